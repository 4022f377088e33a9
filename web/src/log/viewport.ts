// The part of a log that is seen: an anchor, rows around it, and whether the end is followed.

import { type Anchor, move, ROW } from "./place.ts";
import { around, type LogSource, type Visible } from "./source.ts";

/** Rows that are drawn above and below those that are seen. */
const MARGIN = 40;
/** And while somebody waits for a place, who may go to another at once. */
const HURRIED = 3;
/** So long after a jump one looks at a place, and it is worth while to fetch what is beside it. */
const REST = 150;

export class Viewport {
  anchor: Anchor = { offset: 0, cut: 0 };
  follow = true;
  height = 600;
  /** What was last drawn, and how high each row of it is. */
  visible: Visible = { rows: [], lines: [], anchor: -1, loading: false, failed: null, atStart: true, atEnd: true };
  heights: number[] = [];
  /** Somebody waits for a place. */
  #hurried = true;
  #rest: ReturnType<typeof setTimeout> | undefined;
  /** What is drawn is of the place before: the present one is being fetched. */
  #stale = false;
  /** What is drawn was drawn while the end was followed. */
  #ofEnd = false;
  #top = 0;
  readonly source: LogSource;
  readonly #draw: () => void;

  constructor(source: LogSource, draw: () => void) {
    this.source = source;
    this.#draw = draw;
    this.#hurry();
  }

  close(): void {
    clearTimeout(this.#rest);
  }

  #hurry(): void {
    this.#hurried = true;
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => this.#look(), REST);
  }

  #look(): void {
    clearTimeout(this.#rest);
    this.#hurried = false;
    this.#draw();
  }

  /** What is to be drawn now. */
  rows(): Visible {
    const need = Math.ceil(this.height / ROW) + 2;
    const margin = this.#hurried ? HURRIED : MARGIN;
    // What is above the anchor is a part of what is seen, if the anchor is not at the top.
    const above = Math.ceil(this.anchor.cut / ROW);
    const next = this.follow ? this.#end(need + margin) : this.#place(margin + Math.max(0, -above), margin + Math.max(1, need + above), need + margin);
    // What is being fetched takes the place of what is there once it has come.
    this.#stale = next.rows.length === 0 && next.loading && this.visible.rows.length > 0;
    if (!this.#stale) {
      this.visible = next;
      this.#ofEnd = this.follow;
    } else this.visible = { ...this.visible, loading: true, failed: next.failed };
    return this.visible;
  }

  /** The rows around the anchor; near the end as many before it as fill the height. */
  #place(before: number, after: number, all: number): Visible {
    const place = around(this.source, this.anchor.offset, before, after, !this.#hurried);
    return place.atEnd && before < all ? around(this.source, this.anchor.offset, all, after, !this.#hurried) : place;
  }

  /** The rows before the end. While it is being fetched, those before the newest that are here: a fast writer's end never is. */
  #end(before: number): Visible {
    const { source } = this;
    const end = around(source, Math.max(source.first, source.next - 1), before, 1, !this.#hurried);
    const newest = source.newest;
    if (end.rows.length > 0 || newest === null || (!this.#ofEnd && this.visible.rows.length > 0)) return end;
    return { ...around(source, newest, before, 1, !this.#hurried), loading: end.loading, failed: end.failed };
  }

  /** What is drawn is of the place before, and need not be measured. */
  get isStale(): boolean {
    return this.#stale;
  }

  /** The rows have been drawn and are so high: where does the first one begin? */
  settle(heights: number[]): number {
    if (!this.#stale) this.#top = this.#settled(heights);
    return this.#top;
  }

  #settled(heights: number[]): number {
    this.heights = heights;
    const { visible } = this;
    const total = heights.reduce((sum, one) => sum + one, 0);
    if (visible.rows.length === 0) return 0;
    if (this.follow) {
      const above = total - this.height;
      if (above <= 0 && visible.atStart) {
        this.anchor = { offset: visible.rows[0]!.offset, cut: 0 };
        return 0;
      }
      this.#anchorAt(Math.max(0, above));
      return -above;
    }
    let index = visible.rows.findIndex((row, i) => row.offset <= this.anchor.offset && (visible.rows[i + 1]?.offset ?? Infinity) > this.anchor.offset);
    if (index < 0) index = Math.max(0, Math.min(visible.anchor, visible.rows.length - 1));
    let top = this.anchor.cut;
    for (let i = 0; i < index; i++) top += heights[i]!;
    // Neither beyond the end nor before the beginning.
    if (visible.atEnd && top > total - this.height) top = total - this.height;
    if (visible.atStart && top < 0) top = 0;
    if (top >= 0) this.#anchorAt(top);
    return -top;
  }

  #anchorAt(top: number): void {
    let rest = top;
    const { rows } = this.visible;
    for (let i = 0; i < rows.length; i++) {
      if (rest < this.heights[i]! || i === rows.length - 1) {
        this.anchor = { offset: rows[i]!.offset, cut: rest };
        return;
      }
      rest -= this.heights[i]!;
    }
  }

  get endInView(): boolean {
    const { visible, heights, anchor } = this;
    if (!visible.atEnd || visible.rows.length === 0) return false;
    const index = visible.rows.findIndex((row) => row.offset === anchor.offset);
    if (index < 0) return false;
    let below = -anchor.cut;
    for (let i = index; i < heights.length; i++) below += heights[i]!;
    return below <= this.height + 1;
  }

  scrollBy(pixels: number): void {
    // What is drawn while the end is being fetched is where one is.
    if (this.#stale && !this.follow) return;
    const { visible, heights } = this;
    const index = visible.rows.findIndex((row) => row.offset === this.anchor.offset);
    if (index < 0 || pixels === 0) return;
    if (pixels < 0 && this.follow) {
      const total = heights.reduce((sum, one) => sum + one, 0);
      if (total <= this.height && visible.atStart) return;
      this.follow = false;
    }
    const moved = move(index, this.anchor.cut, pixels, visible.rows.length, (i) => heights[i] ?? ROW);
    this.anchor = { offset: visible.rows[moved.index]!.offset, cut: moved.cut };
    if (pixels > 0 && this.endInView) this.follow = true;
    this.#look();
  }

  /** To a byte; `part` of the height is left above it. */
  jump(offset: number, part = 0): void {
    this.follow = false;
    this.anchor = { offset: Math.min(Math.max(offset, this.source.first), Math.max(this.source.first, this.source.next - 1)), cut: -Math.round(this.height * part) };
    // What is drawn is measured once more before there is something else, and says nothing of this place.
    this.#stale = true;
    this.#hurry();
    this.source.hurry(this.anchor.offset);
    // What is drawn stays until there is better.
    if (around(this.source, this.anchor.offset, 1, 1, false).rows.length > 0) this.#draw();
  }

  toStart(): void {
    this.jump(this.source.first);
  }

  toEnd(): void {
    this.follow = true;
    this.#draw();
  }
}
