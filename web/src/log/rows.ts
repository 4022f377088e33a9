// Bytes of a log to rows. PURE.
//
// A row begins after a line feed, where the stream changes, behind a gap, and in a long line at the first
// multiple of 8 KiB that is 8 KiB or more behind the row's beginning, and at each one after that. So a row can be
// found from either side, and the offset of its first byte names it for ever.

import { type Sgr, PLAIN, after } from "./ansi.ts";

export const CUT = 8192;

export type Stream = "stdout" | "stderr";

export interface Piece {
  offset: number;
  stream: Stream;
  at: string;
  bytes: Uint8Array;
}

export interface Row {
  kind: "line" | "gap";
  /** Of the first byte; of a gap its last one, so that no two rows have the same. */
  offset: number;
  /** Where a gap begins. */
  from: number;
  /** Behind the last byte, the line feed included. */
  end: number;
  stream: Stream;
  at: string;
  /** Without the line feed. */
  bytes: Uint8Array;
  /** The row before it is of the same line. */
  continued: boolean;
  /** Its line feed has come. */
  closed: boolean;
  /** The colours that it begins with. */
  sgr: Sgr;
}

interface Open {
  offset: number;
  stream: Stream;
  at: string;
  parts: Uint8Array[];
  length: number;
  continued: boolean;
  end: number;
}

const EMPTY = new Uint8Array(0);

/** Makes rows of pieces, however these are cut. */
export class RowBuilder {
  readonly rows: Row[] = [];
  /** Behind the last byte that came. */
  next: number;
  #open: Open | null = null;
  #sgr: Record<Stream, Sgr> = { stdout: PLAIN, stderr: PLAIN };
  #known: boolean;
  /** Is a change of stream a boundary? Not where only one stream is shown. */
  readonly #mixed: boolean;

  /** `known`: is `at` the beginning of a row for sure? */
  constructor(at: number, known: boolean, mixed = true) {
    this.next = at;
    this.#known = known;
    this.#mixed = mixed;
  }

  push(piece: Piece): void {
    if (this.#open && this.#mixed && this.#open.stream !== piece.stream) this.#close(false);
    let from = 0;
    const { bytes } = piece;
    while (from < bytes.length) {
      const here = piece.offset + from;
      if (this.#open === null) this.#begin(here, piece);
      const open = this.#open!;
      const cut = this.#cutOf(open.offset, open.continued);
      if (here >= cut) {
        this.#close(false);
        this.#begin(here, piece, true);
        continue;
      }
      const room = Math.min(bytes.length, from + (cut - here));
      const feed = bytes.indexOf(10, from);
      const to = feed >= 0 && feed < room ? feed : room;
      if (to > from) {
        open.parts.push(bytes.subarray(from, to));
        open.length += to - from;
      }
      open.end = piece.offset + to;
      from = to;
      if (feed === to && to < room) {
        open.end += 1;
        from += 1;
        this.#close(true);
      }
    }
    this.next = piece.offset + bytes.length;
  }

  gap(from: number, to: number): void {
    if (this.#open) this.#close(false);
    const last = this.rows.at(-1);
    if (last?.kind === "gap" && last.end === from) {
      last.end = to;
      last.offset = to - 1;
    } else {
      this.rows.push({ kind: "gap", offset: to - 1, from, end: to, stream: "stdout", at: "", bytes: EMPTY, continued: false, closed: true, sgr: PLAIN });
    }
    this.#known = true;
    this.next = to;
  }

  /** All rows, the last of which may go on. */
  all(): Row[] {
    const open = this.#open;
    return open ? [...this.rows, this.#row(open, false)] : this.rows;
  }

  #cutOf(offset: number, continued: boolean): number {
    // The beginning of what is seen first is not known to be the beginning of a row: it counts as a cut.
    if (continued) return (Math.floor(offset / CUT) + 1) * CUT;
    return Math.ceil((offset + CUT) / CUT) * CUT;
  }

  #begin(offset: number, piece: Piece, continued = false): void {
    const unknown = !this.#known;
    this.#known = true;
    this.#open = { offset, stream: piece.stream, at: piece.at, parts: [], length: 0, continued: continued || unknown, end: offset };
  }

  #close(closed: boolean): void {
    const row = this.#row(this.#open!, closed);
    this.rows.push(row);
    this.#sgr[row.stream] = after(row.bytes, row.sgr);
    this.#open = null;
  }

  #row(open: Open, closed: boolean): Row {
    let bytes = open.parts[0] ?? EMPTY;
    if (open.parts.length > 1) {
      bytes = new Uint8Array(open.length);
      let at = 0;
      for (const part of open.parts) {
        bytes.set(part, at);
        at += part.length;
      }
      open.parts = [bytes];
    }
    return { kind: "line", offset: open.offset, from: open.offset, end: open.end, stream: open.stream, at: open.at, bytes, continued: open.continued, closed, sgr: this.#sgr[open.stream] };
  }
}

/** The index of the last row that begins at or before `offset`; -1 where there is none. */
export function rowAt(rows: readonly Row[], offset: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle]!.offset <= offset) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
