// The attempts of a job that is tried again when it fails.

import { skew } from "../../api/client.ts";
import { isTerminal, type Attempt, type Job } from "../../api/model.ts";
import { now } from "../../parts/parts.tsx";
import { link } from "../../router.ts";
import { bytes, duration, moment } from "../../state/format.ts";
import { settings } from "../../state/settings.ts";
import { endOf } from "../../state/words.ts";

export function Attempts({ job }: { job: Job }) {
  const clock = now.value + skew.value;
  const most = job.spec.retry?.max_attempts ?? 1;
  const runs = job.started_at !== null && !isTerminal(job.state) && job.state !== "queued";
  return (
    <div class="card scroll">
      <header class="headed"><h2>Attempts</h2><span class="sub">{job.attempts.length === 0 ? "none has ended" : job.attempts.length === 1 ? "one has ended" : `${job.attempts.length} have ended`}, at most {most}{job.next_attempt_at && `; the next one ${inWords(job.next_attempt_at, clock)}`}</span></header>
      <table class="events">
        <thead><tr><th class="w-check num">No.</th><th class="w-time">Started</th><th class="w-dur">Took</th><th>How it ended</th><th class="w-time wide num">Processor</th><th class="w-time num">Output</th></tr></thead>
        <tbody>
          {runs && <tr><td class="num">{job.attempt}</td><td class="muted">{job.process ? moment(job.process.started_at, clock, settings.value.times) : "–"}</td><td class="muted">{job.process ? duration(Math.max(0, Math.floor((clock - Date.parse(job.process.started_at)) / 1000))) : "–"}</td><td class="muted">has not ended</td><td class="wide num faint">–</td><td class="num"><Output id={job.id} first={job.attempts.at(-1)?.next_offset ?? 0} next={job.output.next_offset} /></td></tr>}
          {[...job.attempts].reverse().map((one) => (
            <tr key={one.number}>
              <td class="num">{one.number}</td>
              <td class="muted" title={one.started_at ?? ""}>{one.started_at ? moment(one.started_at, clock, settings.value.times) : "–"}</td>
              <td class="muted">{one.started_at ? duration((Date.parse(one.finished_at) - Date.parse(one.started_at)) / 1000) : "–"}</td>
              <td title={one.message ?? ""}><bdi>{how(one)}</bdi></td>
              <td class="wide num muted">{one.usage ? duration(one.usage.user_cpu_seconds + one.usage.system_cpu_seconds) : "–"}</td>
              <td class="num"><Output id={job.id} first={one.first_offset} next={one.next_offset} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A link to where the output of an attempt begins. */
function Output({ id, first, next }: { id: string; first: number; next: number }) {
  if (next <= first) return <span class="faint">none</span>;
  return <a class="plain" href={`${link(`jobs/${id}`)}#o${first}`}>{bytes(next - first)}</a>;
}

function how(one: Attempt): string {
  return `${endOf(one)}${one.escalated ? ", then SIGKILL" : ""}${one.killed_leftovers > 0 ? `, ${one.killed_leftovers} left over and killed` : ""}`;
}

export function inWords(at: string, clock: number): string {
  const seconds = Math.ceil((Date.parse(at) - clock) / 1000);
  return seconds <= 0 ? "now" : `in ${duration(seconds)}`;
}
