// How much ran and waited, as lines over time.

import type { Bucket } from "./buckets.ts";

/** The most that ran and waited, of each bar. */
export function Lines({ buckets }: { buckets: Bucket[] }) {
  const most = Math.max(4, ...buckets.map((one) => Math.max(one.running, one.queued)));
  const top = Math.ceil(most / 4) * 4;
  const [left, right, height] = [30, 560, 150];
  const x = (i: number): number => left + (i / Math.max(1, buckets.length - 1)) * (right - left);
  const y = (value: number): number => height - (value / top) * (height - 12);
  const points = (of: (one: Bucket) => number): string => buckets.map((one, i) => `${x(i).toFixed(1)},${y(of(one)).toFixed(1)}`).join(" ");
  const peak = (of: (one: Bucket) => number): number => Math.max(0, ...buckets.map(of));
  return (
    <svg class="bars" viewBox="0 0 570 176" preserveAspectRatio="none" role="img" aria-label={`At most ${peak((one) => one.running)} ran and ${peak((one) => one.queued)} waited at a time`}>
      {[0, 0.5, 1].map((part) => <g key={part}><line x1={left} x2={right} y1={y(top * part)} y2={y(top * part)} stroke="var(--line)" /><text x={left - 6} y={y(top * part) + 4} text-anchor="end">{top * part}</text></g>)}
      <polyline points={points((one) => one.queued)} fill="none" stroke="var(--grey-fill)" stroke-width="2" vector-effect="non-scaling-stroke" />
      <polyline points={points((one) => one.running)} fill="none" stroke="var(--blue-fill)" stroke-width="2" vector-effect="non-scaling-stroke" />
    </svg>
  );
}
