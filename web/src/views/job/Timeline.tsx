// From the start to the end, with the deadline.

import { skew } from "../../api/client.ts";
import { isTerminal, type Job } from "../../api/model.ts";
import { now } from "../../parts/parts.tsx";
import { duration, moment } from "../../state/format.ts";
import { settings } from "../../state/settings.ts";
import { stateWord } from "../../parts/State.tsx";

export function Timeline({ job, onExtend }: { job: Job; onExtend: (() => void) | null }) {
  if (!job.started_at) return null;
  const clock = now.value + skew.value;
  const start = Date.parse(job.started_at);
  const end = job.finished_at ? Date.parse(job.finished_at) : null;
  const deadline = job.deadline_at ? Date.parse(job.deadline_at) : null;
  const to = end ?? Math.max(deadline ?? 0, clock);
  const at = end ?? clock;
  const part = to > start ? Math.min(1, Math.max(0, (at - start) / (to - start))) : 1;
  const when = (time: string): string => moment(time, clock, settings.value.times === "utc" ? "utc" : "local");
  const delay = Math.max(0, (start - Date.parse(job.created_at)) / 1000);
  const done = isTerminal(job.state);
  return (
    <div class="timeline" role="img" aria-label={`Started ${when(job.started_at)}, ${done ? `${stateWord(job.state)} after ${duration((at - start) / 1000)}` : `runs for ${duration((at - start) / 1000)}`}${deadline !== null ? `, timeout at ${when(job.deadline_at!)}` : ""}`}>
      <span class="t0">started {when(job.started_at)}, {duration(delay)} after the request</span>
      <div class="track"><i class={`fill-${job.state === "starting" ? "running" : job.state}`} style={{ left: "0", width: `${part * 100}%` }} /></div>
      {!done && <i class="knob" style={{ left: `${part * 100}%` }} />}
      {!done && part > 0.25 && part < 0.85 && <span class="tn" style={{ left: `${part * 100}%` }}>now, {duration(Math.floor((at - start) / 1000))}</span>}
      {done && job.finished_at && <span class="t1">ended {when(job.finished_at)}, after {duration((at - start) / 1000)}</span>}
      {!done && deadline !== null && <span class="t1">timeout at {when(job.deadline_at!)}</span>}
      {!done && deadline !== null && <span class="t2">in {duration(Math.max(0, Math.floor((deadline - clock) / 1000)))}{onExtend && <> · <button type="button" class="plain" onClick={onExtend}>extend</button></>}</span>}
      {!done && deadline === null && <span class="t1">no timeout{onExtend && <> · <button type="button" class="plain" onClick={onExtend}>set one</button></>}</span>}
    </div>
  );
}
