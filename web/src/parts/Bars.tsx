// What ended, as bars over time. Each leads to its jobs.

import type { State } from "../api/model.ts";
import { link } from "../router.ts";
import { two } from "../state/format.ts";
import type { Bucket } from "./buckets.ts";

const ORDER: State[] = ["succeeded", "canceled", "timed_out", "failed", "lost"];

export function Bars({ buckets, range }: { buckets: Bucket[]; range: number }) {
  const most = Math.max(4, ...buckets.map((one) => one.total));
  const top = Math.ceil(most / 4) * 4;
  const [left, right, height] = [30, 1100, 150];
  const width = (right - left) / buckets.length;
  const y = (value: number): number => height - (value / top) * (height - 12);
  const time = (at: number): string => {
    const date = new Date(at);
    return range > 86400 ? `${date.getDate()}.${date.getMonth() + 1}.` : `${two(date.getHours())}:${two(date.getMinutes())}`;
  };
  const total = buckets.reduce((sum, one) => sum + one.total, 0);
  return (
    <svg class="bars" viewBox="0 0 1100 176" preserveAspectRatio="none" role="group" aria-label={`${total} jobs ended`}>
      {[0, 0.5, 1].map((part) => <g key={part}><line x1={left} x2={right} y1={y(top * part)} y2={y(top * part)} stroke="var(--line)" /><text x={left - 6} y={y(top * part) + 4} text-anchor="end">{top * part}</text></g>)}
      {buckets.map((bucket, i) => {
        let at = 0;
        return (
          <a key={bucket.from} href={link("jobs", { after: new Date(bucket.from - range * 1000).toISOString(), before: new Date(bucket.to).toISOString() })} tabIndex={-1}>
            <title>{`${time(bucket.from)}: ${bucket.total === 0 ? "none" : ORDER.filter((state) => bucket.counts[state]).map((state) => `${bucket.counts[state]} ${state.replace("_", " ")}`).join(", ")}`}</title>
            <rect x={left + i * width} y="0" width={width} height={height} fill="transparent" />
            {ORDER.map((state) => {
              const number = bucket.counts[state] ?? 0;
              if (number === 0) return null;
              at += number;
              return <rect key={state} x={left + i * width + 1} width={Math.max(1, width - 2)} y={y(at)} height={y(at - number) - y(at)} rx="1.5" fill={`var(--${COLOUR[state]}-fill)`} />;
            })}
          </a>
        );
      })}
      {[0, 0.25, 0.5, 0.75].map((part) => { const i = Math.floor(part * buckets.length); return <text key={part} x={left + i * width} y="170">{buckets[i] ? time(buckets[i]!.from) : ""}</text>; })}
    </svg>
  );
}

const COLOUR: Partial<Record<State, string>> = { succeeded: "green", failed: "red", timed_out: "orange", canceled: "grey", lost: "pink" };
