// What a job waits for before it starts, and what it depends on.

import { get, skew } from "../../api/client.ts";
import type { Batch, Dependency, Job, State as Name } from "../../api/model.ts";
import { Icon } from "../../parts/Icon.tsx";
import { Button, now } from "../../parts/parts.tsx";
import { StateShape } from "../../parts/State.tsx";
import { link } from "../../router.ts";
import { moment } from "../../state/format.ts";
import { may } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";
import { settings } from "../../state/settings.ts";
import { nameOf } from "../../state/words.ts";
import { inWords } from "./Attempts.tsx";

const ENDS: Record<Dependency["on"], string> = { succeeded: "has succeeded", failed: "has failed", finished: "has ended" };
/** So many are looked at; the rest is a number. */
const SHOWN = 10;

export function Waits({ job, onRelease }: { job: Job; onRelease: () => void }) {
  const clock = now.value + skew.value;
  const queued = job.state === "queued";
  const later = queued && job.run_at !== null && Date.parse(job.run_at) > clock;
  const pause = queued && job.next_attempt_at !== null;
  const held = queued && job.hold;
  if (!held && !later && !pause && job.depends_on.length === 0) return null;
  const when = (at: string): string => moment(at, clock, settings.value.times === "utc" ? "utc" : "local");
  return (
    <div class="card waits" role="group" aria-label="What it waits for">
      {held && <div class="inline"><Icon name="pause" /><span class="grow">Held: it does not start before it is released.</span>{may("operate") && <Button small kind="go" icon="play" onClick={onRelease}>Release</Button>}</div>}
      {later && <div class="inline"><Icon name="clock" /><span>Not before {when(job.run_at!)}, {inWords(job.run_at!, clock)}.</span></div>}
      {pause && <div class="inline"><Icon name="again" /><span class="grow">Attempt {job.attempt} of {job.spec.retry?.max_attempts ?? job.attempt} at {when(job.next_attempt_at!)}, {inWords(job.next_attempt_at!, clock)}.</span>{may("operate") && <Button small icon="play" onClick={onRelease}>Try now</Button>}</div>}
      {job.depends_on.length > 0 && <Dependencies job={job} queued={queued} />}
    </div>
  );
}

interface Seen {
  name: string;
  state: Name | null;
}

/** The state and the name of what is depended on; what is gone has neither. */
async function look(one: Dependency, signal: AbortSignal): Promise<Seen> {
  try {
    if (one.job !== undefined) {
      const job = await get<Job>(`/jobs/${one.job}`, {}, signal);
      return { name: nameOf(job), state: job.state };
    }
    const batch = await get<Batch>(`/batches/${one.batch}`, {}, signal);
    return { name: nameOf(batch), state: batch.state };
  } catch (error) {
    if (signal.aborted) throw error;
    return { name: (one.job ?? one.batch ?? "").slice(0, 8), state: null };
  }
}

function Dependencies({ job, queued }: { job: Job; queued: boolean }) {
  const first = job.depends_on.slice(0, SHOWN);
  const seen = useResource((signal) => Promise.all(first.map((one) => (one.key === undefined ? look(one, signal) : Promise.resolve(null)))), ["depends on", job.id], queued ? ["events"] : []);
  return (
    <div>
      <p class="muted small">{queued ? "It starts once" : "It started once"}</p>
      <ul class="plainlist">{first.map((one, i) => {
        const found = seen.data?.[i];
        const href = one.key !== undefined ? link("jobs", { batch: job.batch?.id ?? "" }) : link(one.job !== undefined ? `jobs/${one.job}` : `batches/${one.batch}`);
        return (
          <li key={i} class="inline">
            <span class={`state ${found?.state ?? "queued"}`}><StateShape state={found?.state ?? "queued"} /></span>
            <span>{one.key !== undefined ? "each of " : one.batch !== undefined ? "the batch " : ""}<a class="plain" href={href}><bdi>{one.key ?? found?.name ?? (one.job ?? one.batch ?? "").slice(0, 8)}</bdi></a> {ENDS[one.on]}</span>
          </li>
        );
      })}</ul>
      {job.depends_on.length > SHOWN && <p class="faint small">and {job.depends_on.length - SHOWN} more</p>}
    </div>
  );
}
