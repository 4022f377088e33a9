// What is shown and what is newest, put together. PURE.

import { type BasicJob, isTerminal } from "../../api/model.ts";

/** The list as it is shown: known rows are made new, nothing moves. */
export function merged(shown: BasicJob[], latest: BasicJob[]): { jobs: BasicJob[]; fresh: number; gone: string[] } {
  const byId = new Map(latest.map((job) => [job.id, job]));
  const had = new Set(shown.map((job) => job.id));
  const jobs = shown.map((job) => {
    const newer = byId.get(job.id);
    return newer && (newer.version !== job.version || newer.state !== job.state) ? newer : job;
  });
  const first = shown[0];
  const fresh = first === undefined ? latest.length : latest.filter((job) => !had.has(job.id) && job.created_at >= first.created_at).length;
  return { jobs, fresh, gone: shown.filter((job) => !byId.has(job.id) && !isTerminal(job.state)).map((job) => job.id) };
}
