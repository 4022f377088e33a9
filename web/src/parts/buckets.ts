// What happened, put into bars. PURE.

import type { State, Stats } from "../api/model.ts";

export interface Bucket {
  from: number;
  to: number;
  counts: Partial<Record<State, number>>;
  total: number;
  running: number;
  queued: number;
  cpu: number;
}

export type Range = "1h" | "24h" | "30d";

/** How long a range is, in how many bars it is shown, and by which steps the service tells it. */
export const RANGES: Record<Range, { seconds: number; bars: number; step: 60 | 3600; word: string }> = {
  "1h": { seconds: 3600, bars: 60, step: 60, word: "by the minute" },
  "24h": { seconds: 86400, bars: 48, step: 60, word: "by the half hour" },
  "30d": { seconds: 2592000, bars: 60, step: 3600, word: "by the half day" },
};

const ENDS = ["succeeded", "failed", "timed_out", "canceled", "lost"] as const;

/** The steps of the service as bars that end now; each step goes to the bar in which it begins. */
export function bucketed(steps: Stats["steps"], range: Range, now: number): Bucket[] {
  const { seconds, bars, step } = RANGES[range];
  const width = (seconds * 1000) / bars;
  const end = Math.ceil(now / (step * 1000)) * step * 1000;
  const first = end - bars * width;
  const out: Bucket[] = Array.from({ length: bars }, (_, i) => ({ from: first + i * width, to: first + (i + 1) * width, counts: {}, total: 0, running: 0, queued: 0, cpu: 0 }));
  for (const one of steps) {
    const bucket = out[Math.floor((Date.parse(one.at) - first) / width)];
    if (!bucket) continue;
    for (const state of ENDS) {
      if (one[state] === 0) continue;
      bucket.counts[state] = (bucket.counts[state] ?? 0) + one[state];
      bucket.total += one[state];
    }
    bucket.running = Math.max(bucket.running, one.most_running);
    bucket.queued = Math.max(bucket.queued, one.most_queued);
    bucket.cpu += one.cpu_seconds;
  }
  return out;
}
