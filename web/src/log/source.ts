// Windows of a log: what of it is here, and what is being fetched. It knows nothing of pixels.

import { lines, record } from "./records.ts";
import { CUT, RowBuilder, rowAt, type Row } from "./rows.ts";

export type Which = "all" | "stdout" | "stderr";

/** Asks for a part of the log. */
export type Fetch = (from: number, limit: number, signal: AbortSignal) => Promise<{ first: number; next: number; complete: boolean; body: ReadableStream<Uint8Array> }>;

/** Which line begins at or behind an offset. */
export type LineOf = (offset: number, signal: AbortSignal) => Promise<number | null>;

/** Where colours are looked for that a window begins with. */
const LOOKBACK = 64 << 10;
/** Small, since a jump waits for one of them. */
const SIZE = 64 << 10;
/** Of one stream: the service reads past what is not of it. */
const SIZE_OF_ONE = 2 << 20;
/** As many bytes as are kept. */
const KEPT = 4 << 20;
/** Of the place that somebody jumps to, before and behind the part of it that is cut: rows begin there for sure, and fill a screen. */
const GLIMPSE = [16 << 10, 24 << 10] as const;

interface Window {
  index: number;
  builder: RowBuilder;
  rows: Row[];
  /** How far it has been read. */
  read: number;
  whole: boolean;
  loading: Promise<void> | null;
  abort: AbortController;
  failed: unknown;
  used: number;
  /** The number of the line that has its first byte. */
  line: number | null;
  asked: boolean;
  /** The line of its first byte ends with a row before its own: its rows begin with the next line. */
  led: boolean;
  /** How many of its lines have ended before each row, and altogether; counted when it is first asked for. */
  closed: Uint32Array | null;
}

/** A small piece around the place that somebody jumps to, which is there before its window is. */
interface Glimpse {
  index: number;
  rows: Row[];
  loading: boolean;
  abort: AbortController;
}

export class LogSource {
  first = 0;
  next = 0;
  complete = false;
  readonly size: number;
  readonly #windows = new Map<number, Window>();
  readonly #fetch: Fetch;
  readonly #lineOf: LineOf | null;
  readonly #which: Which;
  readonly #changed: (now?: boolean) => void;
  #counting: AbortController | null = null;
  #clock = 0;
  /** The window that somebody waits for. */
  #wanted = -1;
  #glimpse: Glimpse | null = null;

  constructor(which: Which, fetch: Fetch, lineOf: LineOf | null, changed: (now?: boolean) => void) {
    this.#which = which;
    this.size = which === "all" ? SIZE : SIZE_OF_ONE;
    this.#fetch = fetch;
    this.#lineOf = lineOf;
    this.#changed = changed;
  }

  close(): void {
    for (const window of this.#windows.values()) window.abort.abort();
    this.#counting?.abort();
    this.#glimpse?.abort.abort();
    this.#windows.clear();
  }

  /** There is more, or less, than before. */
  extent(first: number, next: number, complete: boolean): void {
    const grown = next > this.next || complete !== this.complete || first > this.first;
    if (first > this.first) for (const index of [...this.#windows.keys()]) if ((index + 1) * this.size <= first || index === this.indexOf(first)) this.#windows.delete(index);
    this.first = Math.max(first, this.first);
    this.next = Math.max(next, this.next);
    this.complete = complete;
    if (grown) this.#changed();
  }

  indexOf(offset: number): number {
    return Math.floor(Math.min(Math.max(offset, this.first), Math.max(this.first, this.next - 1)) / this.size);
  }

  get firstIndex(): number {
    return Math.floor(this.first / this.size);
  }

  get lastIndex(): number {
    return Math.floor(Math.max(this.first, this.next - 1) / this.size);
  }

  /** The newest row that is here. */
  get newest(): number | null {
    let newest: number | null = null;
    for (const { rows } of this.#windows.values()) if (rows.length > 0) newest = Math.max(newest ?? 0, rows.at(-1)!.offset);
    return newest;
  }

  /** The window as far as it is here; what is missing is fetched. */
  window(index: number): { rows: Row[]; whole: boolean; failed: unknown } {
    const window = this.#windows.get(index) ?? this.#make(index);
    window.used = ++this.#clock;
    const isGlimpsed = this.#glimpse?.loading === true && this.#glimpse.index === index;
    if (!this.#sated(window) && window.loading === null && window.failed === null && !isGlimpsed) {
      window.loading = this.#load(window).finally(() => {
        window.loading = null;
        if (!window.abort.signal.aborted) this.#changed(index === this.#wanted);
        if (index === this.#wanted) this.#wanted = -1;
      });
    }
    return window;
  }

  /** Somebody waits for this byte, and for nothing else: what is being fetched for other places is let go. */
  hurry(offset: number): void {
    const index = this.indexOf(offset);
    for (const [other, window] of this.#windows) {
      if (other === index || window.loading === null) continue;
      window.abort.abort();
      this.#windows.delete(other);
    }
    this.#glimpse?.abort.abort();
    this.#glimpse = null;
    const here = this.#windows.get(index);
    if (this.#which === "all" && (here === undefined || (here.rows.length === 0 && here.loading === null && here.failed === null))) return void this.#look(offset);
    this.#wanted = index;
    this.window(index);
    this.#number(this.#windows.get(index)!);
  }

  /** The rows around a byte that are here before its window is; nothing if it is not among them. */
  glimpse(offset: number): Row[] | null {
    const rows = this.#glimpse?.rows ?? [];
    const last = rows.at(-1);
    return last !== undefined && rows[0]!.from <= offset && offset < last.end ? rows : null;
  }

  /** Fetches what fills a screen: its window, its colours and the numbers of its lines come when somebody stays. */
  async #look(offset: number): Promise<void> {
    const glimpse: Glimpse = { index: this.indexOf(offset), rows: [], loading: true, abort: new AbortController() };
    this.#glimpse = glimpse;
    const from = Math.max(this.first, Math.floor(offset / CUT) * CUT - GLIMPSE[0]);
    const until = Math.min(this.next, Math.floor(offset / CUT) * CUT + GLIMPSE[1]);
    const builder = new RowBuilder(from, from === 0, true);
    try {
      const { body } = await this.#fetch(from, until - from, glimpse.abort.signal);
      await build(body, builder, until, () => undefined);
      const all = builder.all();
      // The first row may have begun before it, and the last one may go on.
      glimpse.rows = all.slice(from === this.first ? 0 : 1, all.at(-1)?.closed || until === this.next ? undefined : -1);
    } catch {
      // The window is asked for then, and says what is wrong.
    }
    glimpse.loading = false;
    if (!glimpse.abort.signal.aborted) this.#changed(true);
  }

  async loaded(index: number): Promise<void> {
    this.window(index);
    await this.#windows.get(index)?.loading;
  }

  retry(): void {
    for (const window of this.#windows.values()) window.failed = null;
    this.#changed();
  }

  /** The number of the first line of a window, where it is known. */
  lineAt(index: number): number | null {
    const window = this.#windows.get(index);
    if (!window) return null;
    this.#number(window);
    return window.line === null ? null : window.line + (window.led ? 1 : 0);
  }

  /** Finds the number of its first line, or asks for it. */
  #number(window: Window): void {
    if (window.line !== null) return;
    if (window.index === this.firstIndex) window.line = 1;
    const before = this.#windows.get(window.index - 1);
    if (before?.line != null && before.whole && window.rows.length > 0) window.line = before.line + (before.led ? 1 : 0) + this.closedBefore(before.index, before.rows.length) - (window.led ? 1 : 0);
    if (window.line === null && !window.asked && this.#lineOf !== null) this.#askLine(window, this.#lineOf);
  }

  /** How many lines of a window have ended before a row of it. */
  closedBefore(index: number, row: number): number {
    const window = this.#windows.get(index);
    if (!window) return 0;
    window.closed ??= closed(window.rows);
    return window.closed[row]!;
  }

  /** One question at a time, the newest: a browser has few connections, and counting may take a while. */
  #askLine(window: Window, lineOf: LineOf): void {
    this.#counting?.abort();
    const abort = new AbortController();
    this.#counting = abort;
    window.asked = true;
    lineOf(window.index * this.size, abort.signal).then((line) => {
      window.line = line;
      if (window.rows.length > 0) this.#changed();
    }, () => {
      window.asked = !abort.signal.aborted;
    });
  }

  #make(index: number): Window {
    while (this.#windows.size >= Math.max(4, KEPT / this.size)) {
      const idle = [...this.#windows.values()].filter((one) => one.loading === null);
      if (idle.length === 0) break;
      this.#windows.delete(idle.reduce((a, b) => (a.used < b.used ? a : b)).index);
    }
    const from = index * this.size;
    const start = index === this.firstIndex ? 0 : Math.max(0, from - LOOKBACK);
    const window: Window = {
      index, builder: new RowBuilder(start, start === 0, this.#which === "all"), rows: [], read: start, whole: false, loading: null, abort: new AbortController(), failed: null, used: 0, line: null, asked: false, led: false, closed: null,
    };
    this.#windows.set(index, window);
    return window;
  }

  #sated(window: Window): boolean {
    return window.read >= Math.min(this.#until(window), this.next);
  }

  #until(window: Window): number {
    return (window.index + 1) * this.size + 2 * CUT;
  }

  async #load(window: Window): Promise<void> {
    const until = this.#until(window);
    try {
      const from = window.read;
      const answer = await this.#fetch(from, until - Math.max(from, this.first), window.abort.signal);
      const { builder } = window;
      // What came before an error has been read all the same, and must not be read twice.
      await build(answer.body, builder, until, () => { window.read = builder.next; });
      window.read = Math.max(window.read, Math.min(answer.next, until));
      builder.next = window.read;
      this.first = Math.max(this.first, from === 0 ? answer.first : 0);
      this.next = Math.max(this.next, answer.next);
      if (answer.complete) this.complete = true;
    } catch (error) {
      if (!window.abort.signal.aborted) window.failed = error;
    }
    this.#cut(window);
  }

  #cut(window: Window): void {
    const from = window.index * this.size;
    const to = from + this.size;
    const all = window.builder.all();
    const begin = Math.max(0, rowAt(all, from - 1) + 1);
    const end = rowAt(all, to - 1) + 1;
    window.rows = all.slice(begin, end);
    const lead = all[begin - 1];
    window.led = lead?.kind === "line" && lead.closed && lead.end > from;
    window.closed = null;
    window.whole = window.read >= Math.min(this.#until(window), this.next) && (to <= this.next || this.complete);
  }
}

/** Makes rows of a body, up to an offset. */
async function build(body: ReadableStream<Uint8Array>, builder: RowBuilder, until: number, read: () => void): Promise<void> {
  for await (const line of lines(body)) {
    const one = record(line);
    if (one.kind === "output") {
      if (one.piece.offset >= until) break;
      builder.push(one.piece);
      read();
    } else if (one.kind === "gap") {
      builder.gap(one.from, one.to);
      read();
    }
  }
}

function closed(rows: Row[]): Uint32Array {
  const out = new Uint32Array(rows.length + 1);
  rows.forEach((row, i) => { out[i + 1] = out[i]! + (row.kind === "line" && row.closed ? 1 : 0); });
  return out;
}

export interface Visible {
  rows: Row[];
  /** The number of each row's line, where it is known. */
  lines: (number | null)[];
  /** Of the row at the anchor; -1 where it is not here yet. */
  anchor: number;
  loading: boolean;
  failed: unknown;
  atStart: boolean;
  atEnd: boolean;
}

/** The rows around an offset: at least so many before it and after it, as far as they are here. `ahead`: what is beside them is fetched as well. */
export function around(source: LogSource, offset: number, before: number, after: number, ahead = true): Visible {
  const middle = source.indexOf(offset);
  const glimpse = source.glimpse(offset);
  if (glimpse !== null && !ahead) return glimpsed(source, glimpse, offset, before, after);
  const here = source.window(middle);
  if (here.rows.length === 0 && !here.whole) {
    // The number of its first line is asked for meanwhile.
    if (glimpse !== null) source.lineAt(middle);
    if (glimpse !== null) return { ...glimpsed(source, glimpse, offset, before, after), failed: here.failed };
    // What is beside it is not the place that was asked for.
    return { rows: [], lines: [], anchor: -1, loading: here.failed === null && source.next > source.first, failed: here.failed, atStart: false, atEnd: false };
  }
  const parts: Part[] = [{ index: middle, rows: here.rows }];
  let count = here.rows.length;
  let anchor = Math.max(0, rowAt(here.rows, offset));
  let failed = here.failed;
  let loading = false;
  let low = middle;
  let high = middle;
  while (low > source.firstIndex && (anchor < before || (ahead && middle - low < 1)) && middle - low < 64) {
    low -= 1;
    const window = source.window(low);
    failed ??= window.failed;
    if (!window.whole) { loading ||= anchor < Math.min(before, 1); break; }
    parts.unshift({ index: low, rows: window.rows });
    anchor += window.rows.length;
    count += window.rows.length;
  }
  while (after > 1 && high < source.lastIndex && (count - anchor < after || (ahead && high - middle < 1)) && high - middle < 64) {
    if (high === middle && !here.whole) break;
    high += 1;
    const window = source.window(high);
    failed ??= window.failed;
    parts.push({ index: high, rows: window.rows });
    count += window.rows.length;
    if (!window.whole) break;
  }
  // The row may begin in the window before.
  anchor = placeOf(parts, offset) ?? anchor;
  const from = Math.max(0, anchor - before);
  const to = Math.min(count, anchor + after);
  return {
    ...slice(source, parts, from, to), anchor: count === 0 ? -1 : anchor - from, loading, failed,
    atStart: from === 0 && low === source.firstIndex, atEnd: high >= source.lastIndex && to === count,
  };
}

/** The same of what is here before the window is. */
function glimpsed(source: LogSource, rows: Row[], offset: number, before: number, after: number): Visible {
  const place = Math.max(0, rowAt(rows, offset));
  const [from, to] = [Math.max(0, place - before), Math.min(rows.length, place + after)];
  const part = rows.slice(from, to);
  return { rows: part, lines: part.map(() => null), anchor: place - from, loading: true, failed: null, atStart: part[0]!.from === source.first, atEnd: part.at(-1)!.end === source.next };
}

/** The rows of one window. */
interface Part {
  index: number;
  rows: Row[];
}

/** Which row, of all of them, has a byte. */
function placeOf(parts: Part[], offset: number): number | null {
  let place: number | null = null;
  let before = 0;
  for (const { rows } of parts) {
    const at = rowAt(rows, offset);
    if (at >= 0) place = before + at;
    before += rows.length;
  }
  return place;
}

/** Some of the rows, with the numbers of their lines. */
function slice(source: LogSource, parts: Part[], from: number, to: number): { rows: Row[]; lines: (number | null)[] } {
  const out: { rows: Row[]; lines: (number | null)[] } = { rows: [], lines: [] };
  let before = 0;
  for (const { index, rows } of parts) {
    const [first, end] = [Math.max(0, from - before), Math.min(rows.length, to - before)];
    before += rows.length;
    if (first >= end) continue;
    const line = source.lineAt(index);
    for (let i = first; i < end; i++) {
      out.rows.push(rows[i]!);
      out.lines.push(line === null || rows[i]!.kind === "gap" ? null : line + source.closedBefore(index, i));
    }
  }
  return out;
}
