// What ended, counted over time. PURE.

import type { BasicJob, State } from "../api/model.ts";

export interface Bucket {
  from: number;
  to: number;
  counts: Partial<Record<State, number>>;
  total: number;
}

/** Counts by the end of each job, in as many steps as fit. PURE. */
export function bucketed(jobs: Pick<BasicJob, "state" | "finished_at">[], seconds: number, now: number): Bucket[] {
  const steps = seconds === 3600 ? 60 : seconds === 86400 ? 48 : 56;
  const width = (seconds * 1000) / steps;
  const end = Math.ceil(now / width) * width;
  const out: Bucket[] = Array.from({ length: steps }, (_, i) => ({ from: end - (steps - i) * width, to: end - (steps - i - 1) * width, counts: {}, total: 0 }));
  for (const job of jobs) {
    if (!job.finished_at) continue;
    const bucket = out[Math.floor((Date.parse(job.finished_at) - out[0]!.from) / width)];
    if (!bucket) continue;
    bucket.counts[job.state] = (bucket.counts[job.state] ?? 0) + 1;
    bucket.total += 1;
  }
  return out;
}
