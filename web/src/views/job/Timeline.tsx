// From the start to the end, with pauses and the deadline.

import { skew } from "../../api/client.ts";
import { isTerminal, type Job } from "../../api/model.ts";
import { now } from "../../parts/parts.tsx";
import { useResource } from "../../state/resource.ts";
import { duration, moment } from "../../state/format.ts";
import { settings } from "../../state/settings.ts";
import { stateWord } from "../../parts/State.tsx";
import { readEvents } from "./JobEvents.tsx";
import { pausesOf } from "./pauses.ts";

export function Timeline({ job, onExtend }: { job: Job; onExtend: (() => void) | null }) {
  return job.started_at ? <Track job={job} started={job.started_at} onExtend={onExtend} /> : null;
}

function Track({ job, started, onExtend }: { job: Job; started: string; onExtend: (() => void) | null }) {
  const clock = now.value + skew.value;
  const events = useResource((stop) => readEvents(`/jobs/${job.id}/events`, { type: "job.paused,job.resumed,job.stopping,job.finished" }, stop), ["pauses", job.id, job.state]);
  const start = Date.parse(started);
  const end = job.finished_at ? Date.parse(job.finished_at) : null;
  const deadline = job.deadline_at ? Date.parse(job.deadline_at) : null;
  const to = end ?? Math.max(deadline ?? 0, clock);
  const at = end ?? clock;
  const part = to > start ? Math.min(1, Math.max(0, (at - start) / (to - start))) : 1;
  const when = (time: string): string => moment(time, clock, settings.value.times === "utc" ? "utc" : "local");
  const delay = Math.max(0, (start - Date.parse(job.created_at)) / 1000);
  const done = isTerminal(job.state);
  const pauses = pausesOf(events.data ?? [], at);
  const paused = pauses.reduce((sum, one) => sum + one.to - one.from, 0) / 1000;
  const place = (moment: number): number => (to > start ? Math.min(100, Math.max(0, ((moment - start) / (to - start)) * 100)) : 0);
  const longest = pauses.reduce<(typeof pauses)[number] | null>((best, one) => (best === null || one.to - one.from > best.to - best.from ? one : best), null);
  return (
    <div class="timeline" role="group" aria-label={`Started ${when(started)}, ${done ? `${stateWord(job.state)} after ${duration((at - start) / 1000)}` : `runs for ${duration((at - start) / 1000)}`}${paused > 0 ? `, paused for ${duration(Math.floor(paused))}` : ""}${deadline !== null ? `, timeout at ${when(job.deadline_at!)}` : ""}`}>
      <span class="t0">started {when(started)}, {duration(delay)} after the request</span>
      <div class="track">
        <i class={`fill-${job.state === "starting" || job.state === "paused" ? "running" : job.state}`} style={{ left: "0", width: `${part * 100}%` }} />
        {pauses.map((one) => <i key={one.from} class="fill-paused" style={{ left: `${place(one.from)}%`, width: `${place(one.to) - place(one.from)}%`, minWidth: "2px" }} />)}
      </div>
      {longest !== null && <span class="tp" style={{ left: `clamp(60px, ${(place(longest.from) + place(longest.to)) / 2}%, 100% - 240px)` }}>paused for {duration(Math.floor(paused))}</span>}
      {!done && <i class="knob" style={{ left: `min(${part * 100}%, 100% - 6.5px)` }} />}
      {!done && part > 0.25 && part < 0.85 && <span class="tn" style={{ left: `${part * 100}%` }}>now, {duration(Math.floor((at - start) / 1000))}</span>}
      {done && job.finished_at && <span class="t1">ended {when(job.finished_at)}, after {duration((at - start) / 1000)}</span>}
      {!done && deadline !== null && <span class="t1">timeout at {when(job.deadline_at!)}</span>}
      {!done && deadline !== null && <span class="t2">in {duration(Math.max(0, Math.floor((deadline - clock) / 1000)))}{onExtend && <> · <button type="button" class="plain" onClick={onExtend}>extend</button></>}</span>}
      {!done && deadline === null && <span class="t1">no timeout{onExtend && <> · <button type="button" class="plain" onClick={onExtend}>set one</button></>}</span>}
    </div>
  );
}
