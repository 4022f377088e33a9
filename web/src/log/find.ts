// What a search has found so far, and which hits are in a row. PURE.

import type { Mark } from "./ansi.ts";
import type { Row } from "./rows.ts";

export interface Hit {
  offset: number;
  length: number;
  line: number | null;
}

/** More are counted and not kept. */
const KEPT = 200_000;

export class Hits {
  /** In the order of the log. */
  readonly list: Hit[] = [];
  count = 0;
  scannedTo = 0;
  done = false;

  push(hit: Hit): void {
    this.count += 1;
    if (this.list.length < KEPT) this.list.push(hit);
  }

  /** The index of the first hit at or behind an offset. */
  from(offset: number): number {
    let low = 0;
    let high = this.list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.list[middle]!.offset < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The next one behind an offset, or with -1 the one before it; around the ends. */
  step(offset: number, by: 1 | -1): number {
    if (this.list.length === 0) return -1;
    const at = by === 1 ? this.from(offset + 1) : this.from(offset) - 1;
    return (at + this.list.length) % this.list.length;
  }

  /** The hits within a row, as places in its bytes, and the index of the first. */
  within(row: Row): { marks: Mark[]; first: number } {
    // One that began in the row before may reach into this one.
    let first = this.from(row.offset);
    while (first > 0 && this.list[first - 1]!.offset + this.list[first - 1]!.length > row.offset) first--;
    const marks: Mark[] = [];
    for (let i = first; i < this.list.length && this.list[i]!.offset < row.end; i++) {
      const hit = this.list[i]!;
      marks.push({ from: hit.offset - row.offset, to: hit.offset - row.offset + hit.length });
    }
    return { marks, first };
  }

  /** Where on a ruler of so many steps there are hits. */
  ruler(first: number, next: number, steps: number): number[] {
    const out: number[] = [];
    let last = -1;
    for (const hit of this.list) {
      const step = Math.floor(((hit.offset - first) / Math.max(1, next - first)) * steps);
      if (step !== last && step >= 0 && step <= steps) out.push(step);
      last = step;
    }
    return out;
  }
}
