// What a job wrote, made safe to look at. PURE.
//
// Colours are obeyed; carriage return, backspace and "erase to the end of the line" within a row as well, so that
// a progress bar shows its last state. Nothing else of a terminal is: what is left is shown as words, and what
// could hide or turn text (bidi controls, zero-width and tag characters, bytes that are no UTF-8) as its number.

export type Colour = number | readonly [number, number, number] | null;

export interface Sgr {
  readonly fg: Colour;
  readonly bg: Colour;
  /** Bits: see below. */
  readonly flags: number;
}

export const BOLD = 1, DIM = 2, ITALIC = 4, UNDERLINE = 8, INVERSE = 16, HIDDEN = 32, STRIKE = 64;

export const PLAIN: Sgr = { fg: null, bg: null, flags: 0 };

export interface Span {
  text: string;
  sgr: Sgr;
  /** Stands for what cannot be shown. */
  odd: boolean;
  /** Number of the mark that it is in, else -1. */
  mark: number;
  /** A target of http or https, where there is one. */
  href: string | null;
}

export interface Mark {
  from: number;
  to: number;
}

/** More spans than that are shown plainly. */
export const MAX_SPANS = 512;

const ESC = 0x1b;

interface Sequence {
  end: number;
  kind: "csi" | "osc" | "string" | "other" | "cut";
  final: number;
  params: string;
}

/** The escape sequence that begins at `at`. */
function sequence(bytes: Uint8Array, at: number): Sequence {
  const kind = bytes[at + 1];
  const cut = (): Sequence => ({ end: bytes.length, kind: "cut", final: 0, params: "" });
  if (kind === undefined) return cut();
  if (kind === 0x5b) {
    let i = at + 2;
    while (i < bytes.length && bytes[i]! >= 0x30 && bytes[i]! <= 0x3f) i++;
    const params = ascii(bytes, at + 2, i);
    while (i < bytes.length && bytes[i]! >= 0x20 && bytes[i]! <= 0x2f) i++;
    if (i >= bytes.length) return cut();
    const final = bytes[i]!;
    if (final < 0x40 || final > 0x7e) return { end: i, kind: "other", final: 0, params: "" };
    return { end: i + 1, kind: "csi", final, params };
  }
  if (kind === 0x5d || kind === 0x50 || kind === 0x5e || kind === 0x5f || kind === 0x58) {
    for (let i = at + 2; i < bytes.length; i++) {
      if (bytes[i] === 7 && kind === 0x5d) return { end: i + 1, kind: "osc", final: 0, params: utf8(bytes, at + 2, i) };
      if (bytes[i] === ESC && bytes[i + 1] === 0x5c) {
        return { end: i + 2, kind: kind === 0x5d ? "osc" : "string", final: 0, params: kind === 0x5d ? utf8(bytes, at + 2, i) : "" };
      }
    }
    return cut();
  }
  let i = at + 1;
  while (i < bytes.length && bytes[i]! >= 0x20 && bytes[i]! <= 0x2f) i++;
  return { end: Math.min(i + 1, bytes.length), kind: "other", final: 0, params: "" };
}

function ascii(bytes: Uint8Array, from: number, to: number): string {
  let text = "";
  for (let i = from; i < to; i++) text += String.fromCharCode(bytes[i]!);
  return text;
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

function utf8(bytes: Uint8Array, from: number, to: number): string {
  // A byte order mark is a character like others.
  return decoder.decode(bytes.subarray(from, to));
}

/** The colours behind `bytes`. */
export function after(bytes: Uint8Array, sgr: Sgr): Sgr {
  let at = bytes.indexOf(ESC);
  while (at >= 0) {
    const found = sequence(bytes, at);
    if (found.kind === "csi" && found.final === 0x6d) sgr = apply(sgr, found.params);
    at = bytes.indexOf(ESC, Math.max(found.end, at + 1));
  }
  return sgr;
}

/** "Select graphic rendition". What is not known changes nothing. */
export function apply(before: Sgr, params: string): Sgr {
  if (!/^[0-9;:]*$/.test(params)) return before;
  let { fg, bg, flags } = before;
  const list = params.split(";");
  for (let i = 0; i < list.length; i++) {
    const [head, ...sub] = list[i]!.split(":");
    const code = head === "" ? 0 : Number(head);
    if (code === 0) { fg = null; bg = null; flags = 0; }
    else if (code === 1) flags |= BOLD;
    else if (code === 2) flags |= DIM;
    else if (code === 3) flags |= ITALIC;
    else if (code === 4) flags = sub[0] === "0" ? flags & ~UNDERLINE : flags | UNDERLINE;
    else if (code === 7) flags |= INVERSE;
    else if (code === 8) flags |= HIDDEN;
    else if (code === 9) flags |= STRIKE;
    else if (code === 21) flags |= UNDERLINE;
    else if (code === 22) flags &= ~(BOLD | DIM);
    else if (code === 23) flags &= ~ITALIC;
    else if (code === 24) flags &= ~UNDERLINE;
    else if (code === 27) flags &= ~INVERSE;
    else if (code === 28) flags &= ~HIDDEN;
    else if (code === 29) flags &= ~STRIKE;
    else if (code >= 30 && code <= 37) fg = code - 30;
    else if (code === 39) fg = null;
    else if (code >= 40 && code <= 47) bg = code - 40;
    else if (code === 49) bg = null;
    else if (code >= 90 && code <= 97) fg = code - 82;
    else if (code >= 100 && code <= 107) bg = code - 92;
    else if (code === 38 || code === 48) {
      let colour: Colour | undefined;
      if (sub.length > 0) colour = extended(sub.length > 4 ? [sub[0]!, ...sub.slice(2)] : sub);
      else if (list[i + 1] === "5") { colour = extended(list.slice(i + 1, i + 3)); i += 2; }
      else if (list[i + 1] === "2") { colour = extended(list.slice(i + 1, i + 5)); i += 4; }
      else break;
      if (colour !== undefined) { if (code === 38) fg = colour; else bg = colour; }
    }
  }
  return fg === before.fg && bg === before.bg && flags === before.flags ? before : { fg, bg, flags };
}

function extended(words: string[]): Colour | undefined {
  const numbers = words.slice(1).map((word) => (word === "" ? 0 : Number(word)));
  if (numbers.some((number) => number > 255)) return undefined;
  if (words[0] === "5" && numbers.length >= 1) return numbers[0]!;
  if (words[0] === "2" && numbers.length >= 3) return [numbers[0]!, numbers[1]!, numbers[2]!];
  return undefined;
}

interface Cell {
  text: string;
  sgr: Sgr;
  odd: boolean;
  at: number;
  href: string | null;
}

/** The cells of a row. `raw`: everything that came, in the order in which it came. */
function cells(bytes: Uint8Array, start: Sgr, raw: boolean): Cell[] {
  const out: Cell[] = [];
  let column = 0;
  let sgr = start;
  let href: string | null = null;
  const put = (text: string, at: number, odd = false): void => {
    const cell: Cell = { text, sgr, odd, at, href };
    if (column < out.length) out[column] = cell;
    else out.push(cell);
    column++;
  };
  let i = 0;
  while (i < bytes.length) {
    const byte = bytes[i]!;
    if (byte === ESC) {
      const found = sequence(bytes, i);
      if (found.kind === "csi" && found.final === 0x6d) {
        sgr = apply(sgr, found.params);
      } else if (!raw && found.kind === "csi" && found.final === 0x4b && (found.params === "" || found.params === "0")) {
        out.length = Math.min(out.length, column);
      } else if (found.kind === "osc" && found.params.startsWith("8;")) {
        href = target(found.params.slice(found.params.indexOf(";", 2) + 1));
      } else {
        put(caret(bytes, i, found.end), i, true);
      }
      i = found.end;
    } else if (byte < 0x20 || byte === 0x7f) {
      if (byte === 9) {
        do put(" ", i); while (column % 8 !== 0);
      } else if (byte === 13) {
        if (raw && i + 1 < bytes.length) put("^M", i, true);
        else column = i + 1 < bytes.length ? 0 : column;
      } else if (byte === 8 && !raw) {
        column = Math.max(0, column - 1);
      } else {
        put(byte === 0 ? "\\x00" : `^${String.fromCharCode(byte ^ 0x40)}`, i, true);
      }
      i++;
    } else if (byte < 0x80) {
      put(String.fromCharCode(byte), i);
      i++;
    } else {
      const length = wellFormed(bytes, i);
      if (length === 0) {
        put(`\\x${byte.toString(16).padStart(2, "0")}`, i, true);
        i++;
      } else {
        const text = utf8(bytes, i, i + length);
        const code = text.codePointAt(0)!;
        if (deceptive(code)) put(`<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`, i, true);
        else if (isMark(text) && column > 0 && !out[column - 1]!.odd) join(out[column - 1]!, text);
        else put(text, i);
        i += length;
      }
    }
  }
  return out;
}

function join(cell: Cell, text: string): void {
  // A pile of marks would reach over the rows above.
  if (cell.text.length < 8) cell.text += text;
}

const MARK = /^\p{M}$/u;
function isMark(text: string): boolean {
  return MARK.test(text);
}

/** The length of the UTF-8 character at `at`; 0 where there is none. */
function wellFormed(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  const length = first >= 0xf0 && first <= 0xf4 ? 4 : first >= 0xe0 ? (first < 0xf0 ? 3 : 0) : first >= 0xc2 ? 2 : 0;
  if (length === 0 || at + length > bytes.length) return 0;
  for (let i = 1; i < length; i++) if ((bytes[at + i]! & 0xc0) !== 0x80) return 0;
  const second = bytes[at + 1]!;
  if ((first === 0xe0 && second < 0xa0) || (first === 0xed && second > 0x9f)) return 0;
  if ((first === 0xf0 && second < 0x90) || (first === 0xf4 && second > 0x8f)) return 0;
  return length;
}

/** Controls of the second set, bidi controls, zero-width characters, tags, and characters that break lines. */
export function deceptive(code: number): boolean {
  return (code >= 0x80 && code <= 0x9f) || code === 0xad || code === 0x61c || code === 0x115f || code === 0x1160 || code === 0x180e
    || (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f)
    || code === 0x3164 || code === 0xfeff || code === 0xffa0 || (code >= 0xfff0 && code <= 0xfffb) || (code >= 0xe0000 && code <= 0xe0fff);
}

function caret(bytes: Uint8Array, from: number, to: number): string {
  let text = "";
  for (let i = from; i < Math.min(to, from + 200); i++) {
    const byte = bytes[i]!;
    text += byte < 0x20 || byte === 0x7f ? `^${String.fromCharCode(byte ^ 0x40)}` : byte < 0x80 ? String.fromCharCode(byte) : `\\x${byte.toString(16)}`;
  }
  return to - from > 200 ? `${text}…` : text;
}

/** A link is of http or https, or it is none. */
export function target(text: string): string | null {
  if (text.length > 2048 || !/^https?:\/\/[^\s\u0000-\u001f]+$/i.test(text)) return null;
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/** Nothing but letters, digits and signs of ASCII? */
function isSimple(bytes: Uint8Array): boolean {
  for (const byte of bytes) if (byte < 0x20 || byte > 0x7e) return false;
  return true;
}

/** What is shown of a row, as at most `MAX_SPANS` spans. */
export function spans(bytes: Uint8Array, start: Sgr, marks: readonly Mark[] = [], raw = false): Span[] {
  // Most rows of most logs.
  if (marks.length === 0 && bytes.length > 0 && isSimple(bytes)) return [{ text: utf8(bytes, 0, bytes.length), sgr: start, odd: false, mark: -1, href: null }];
  const out: Span[] = [];
  let mark = -1;
  let next = 0;
  for (const cell of cells(bytes, start, raw)) {
    // Behind an overwritten part, places go back.
    while (next > 0 && marks[next - 1] && cell.at < marks[next - 1]!.from) next--;
    while (next < marks.length && marks[next]!.to <= cell.at) next++;
    mark = next < marks.length && cell.at >= marks[next]!.from ? next : -1;
    const last = out.at(-1);
    const full = out.length >= MAX_SPANS;
    if (last && ((last.sgr === cell.sgr && last.odd === cell.odd && last.mark === mark && last.href === cell.href) || full)) {
      last.text += cell.text;
    } else {
      out.push({ text: cell.text, sgr: cell.sgr, odd: cell.odd, mark, href: cell.href });
    }
  }
  return out;
}

/** The text of a row as it is shown, for the clipboard. */
export function plain(bytes: Uint8Array): string {
  return cells(bytes, PLAIN, false).filter((cell) => !(cell.odd && cell.text.startsWith("^["))).map((cell) => cell.text).join("");
}
