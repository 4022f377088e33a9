// When a job was paused, of its events. PURE.

import type { Event_ } from "../../api/model.ts";

export interface Pause {
  from: number;
  to: number;
}

/** `end`: where what goes on ends. */
export function pausesOf(events: Pick<Event_, "type" | "time">[], end: number): Pause[] {
  const out: Pause[] = [];
  let from: number | null = null;
  for (const { type, time } of events) {
    if (type === "job.paused") from ??= Date.parse(time);
    else if (from !== null) {
      out.push({ from, to: Date.parse(time) });
      from = null;
    }
  }
  if (from !== null) out.push({ from, to: Math.max(from, end) });
  return out;
}
