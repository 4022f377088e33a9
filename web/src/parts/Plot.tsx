// The frame of a chart: its scale and its times are words beside the drawing, which is stretched.

import type { ComponentChildren } from "preact";
import { two } from "../state/format.ts";
import type { Bucket } from "./buckets.ts";

/** The drawing is as wide and as high as this. */
export const WIDE = 1000;
export const HIGH = 100;

export function Plot({ buckets, range, scale, label, links = false, children }: { buckets: Bucket[]; range: number; scale: string[]; label: string; links?: boolean; children: ComponentChildren }) {
  return (
    <div class="plot">
      <div class="scale" aria-hidden="true">{scale.map((word, i) => <span key={i}>{word}</span>)}</div>
      <svg class="bars" viewBox={`0 0 ${WIDE} ${HIGH}`} preserveAspectRatio="none" role={links ? "group" : "img"} aria-label={label}>
        {[0, 0.5, 1].map((part) => <line key={part} x1="0" x2={WIDE} y1={part * HIGH} y2={part * HIGH} stroke="var(--line)" vector-effect="non-scaling-stroke" />)}
        {children}
      </svg>
      <div class="times" aria-hidden="true">{[0, 0.25, 0.5, 0.75].map((part) => <span key={part}>{timeOf(buckets[Math.floor(part * buckets.length)]?.from ?? 0, range)}</span>)}</div>
    </div>
  );
}

/** When a bar begins. */
export function timeOf(at: number, range: number): string {
  const date = new Date(at);
  return range > 86400 ? `${date.getDate()}.${date.getMonth() + 1}.` : `${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** A line over the bars. */
export function Line({ buckets, top, of, colour, filled = false }: { buckets: Bucket[]; top: number; of: (one: Bucket) => number; colour: string; filled?: boolean }) {
  const points = buckets.map((one, i) => `${((i / Math.max(1, buckets.length - 1)) * WIDE).toFixed(1)},${(HIGH - (of(one) / top) * HIGH).toFixed(1)}`).join(" ");
  return (
    <>
      {filled && <polygon points={`0,${HIGH} ${points} ${WIDE},${HIGH}`} fill={`var(--${colour}-fill)`} opacity=".15" />}
      <polyline points={points} fill="none" stroke={`var(--${colour}-fill)`} stroke-width="2" vector-effect="non-scaling-stroke" />
    </>
  );
}

/** The end of a scale that has a middle. */
export function topOf(values: number[]): number {
  return Math.ceil(Math.max(4, ...values) / 4) * 4;
}
