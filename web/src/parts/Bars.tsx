// What ended, as bars over time. Each leads to its jobs.

import type { State } from "../api/model.ts";
import { link } from "../router.ts";
import { count } from "../state/format.ts";
import type { Bucket } from "./buckets.ts";
import { HIGH, Plot, timeOf, topOf, WIDE } from "./Plot.tsx";

const ORDER: State[] = ["succeeded", "canceled", "timed_out", "failed", "lost"];
const COLOUR: Partial<Record<State, string>> = { succeeded: "green", failed: "red", timed_out: "orange", canceled: "grey", lost: "pink" };

export function Bars({ buckets, range }: { buckets: Bucket[]; range: number }) {
  const top = topOf(buckets.map((one) => one.total));
  const width = WIDE / buckets.length;
  const total = buckets.reduce((sum, one) => sum + one.total, 0);
  return (
    <Plot buckets={buckets} range={range} scale={[top, top / 2, 0].map(count)} label={`${total} jobs ended`} links>
      {buckets.map((bucket, i) => {
        let at = 0;
        return (
          <a key={bucket.from} href={jobsOf(bucket, range)} tabIndex={-1}>
            <title>{`${timeOf(bucket.from, range)}: ${endsOf(bucket) || "none"}`}</title>
            <rect x={i * width} y="0" width={width} height={HIGH} fill="transparent" />
            {ORDER.map((state) => {
              const number = bucket.counts[state] ?? 0;
              if (number === 0) return null;
              at += number;
              return <rect key={state} x={i * width + width * 0.08} width={width * 0.84} y={HIGH - (at / top) * HIGH} height={(number / top) * HIGH} fill={`var(--${COLOUR[state]}-fill)`} />;
            })}
          </a>
        );
      })}
    </Plot>
  );
}

/** The list of the jobs that may have ended then. */
export function jobsOf(bucket: Bucket, range: number): string {
  return link("jobs", { after: new Date(bucket.from - range * 1000).toISOString(), before: new Date(bucket.to).toISOString() });
}

/** How its jobs ended, in words. */
export function endsOf(bucket: Bucket): string {
  return ORDER.filter((state) => bucket.counts[state]).map((state) => `${bucket.counts[state]} ${state.replace("_", " ")}`).join(", ");
}
