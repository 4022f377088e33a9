// Where one is in a log. PURE.
//
// The truth is an anchor: the row at the top, and how many pixels of it are cut off. Nothing is kept a row, so that
// a log of any size is the same. The ruler at the side shows bytes.

export interface Anchor {
  offset: number;
  cut: number;
}

export interface Extent {
  /** The oldest byte that is kept. */
  first: number;
  /** Behind the newest byte. */
  next: number;
}

export const ROW = 19;

/** 0 to 1: where on the ruler a byte is. */
export function fraction(offset: number, { first, next }: Extent): number {
  return next <= first ? 0 : Math.min(1, Math.max(0, (offset - first) / (next - first)));
}

/** The byte at a place of the ruler. */
export function offsetAt(part: number, { first, next }: Extent): number {
  return Math.min(Math.max(first, next - 1), first + Math.floor(Math.min(1, Math.max(0, part)) * (next - first)));
}

/** How far the anchor moves by so many pixels; `heights` are those of the rows from `index` on and before. */
export function move(index: number, cut: number, by: number, count: number, height: (index: number) => number): { index: number; cut: number } {
  let at = cut + by;
  while (at < 0 && index > 0) {
    index -= 1;
    at += height(index);
  }
  while (index < count && at >= height(index)) {
    if (index === count - 1) break;
    at -= height(index);
    index += 1;
  }
  // Above the first row that is here are others, perhaps.
  return { index, cut: at };
}

export type Goto = { kind: "line"; line: number } | { kind: "byte"; offset: number } | { kind: "part"; part: number } | { kind: "time"; at: string };

/** What somebody typed into "go to": `12345`, `b1017442903`, `50%`, `14:02` or `14:02:07`. */
export function parseGoto(text: string, day: Date): Goto | null {
  const word = text.trim();
  if (/^[0-9][0-9 \u00a0\u202f]*$/.test(word)) return { kind: "line", line: Number(word.replaceAll(/[ \u00a0\u202f]/g, "")) };
  const byte = /^b\s*([0-9]+)$/i.exec(word);
  if (byte) return { kind: "byte", offset: Number(byte[1]) };
  const part = /^([0-9]{1,3}(?:\.[0-9]+)?)\s*%$/.exec(word);
  if (part && Number(part[1]) <= 100) return { kind: "part", part: Number(part[1]) / 100 };
  const time = /^([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?$/.exec(word);
  if (time) {
    const at = new Date(day);
    at.setHours(Number(time[1]), Number(time[2]), Number(time[3] ?? 0), 0);
    return { kind: "time", at: at.toISOString() };
  }
  const full = new Date(word);
  return /^[0-9]{4}-/.test(word) && !Number.isNaN(full.getTime()) ? { kind: "time", at: full.toISOString() } : null;
}

/** `#o123` or `#o123-o456`: the rows that an address names. */
export function parseHash(hash: string): { from: number; to: number } | null {
  const found = /^#o([0-9]{1,16})(?:-o([0-9]{1,16}))?$/.exec(hash);
  if (!found) return null;
  const from = Number(found[1]);
  const to = found[2] === undefined ? from : Number(found[2]);
  return from <= to ? { from, to } : { from: to, to: from };
}
