// One schedule: when it is due next, what it has made, and what is set of it.

import { useEffect, useState } from "preact/hooks";
import { get, skew, words } from "../../api/client.ts";
import type { Schedule } from "../../api/model.ts";
import { Broken, Button, Dialog, Labels, Loading, now } from "../../parts/parts.tsx";
import { StateShape } from "../../parts/State.tsx";
import { go, link } from "../../router.ts";
import { actor, count, duration, moment } from "../../state/format.ts";
import { may } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";
import { settings } from "../../state/settings.ts";
import { shownName } from "../../state/shown.ts";
import { JobTable } from "../JobTable.tsx";
import { remove, runNow, setPaused } from "./acts.ts";
import { ScheduleDialog } from "./ScheduleDialog.tsx";
import { due, Last } from "./Schedules.tsx";
import { MISSED, OVERLAP, runs, times } from "./schedules.ts";

interface Seen {
  schedule: Schedule;
  next: string[];
}

async function look(name: string, stop: AbortSignal): Promise<Seen> {
  const [schedule, { times: next }] = await Promise.all([get<Schedule>(`/schedules/${encodeURIComponent(name)}`, {}, stop), get<{ times: string[] }>(`/schedules/${encodeURIComponent(name)}/times`, { count: 5 }, stop)]);
  return { schedule, next };
}

export function SchedulePage({ name }: { name: string }) {
  const seen = useResource((stop) => look(name, stop), ["schedule", name], ["events"], 5000);
  const [open, setOpen] = useState<"change" | "remove" | null>(null);
  useEffect(() => {
    shownName.value = name;
    document.title = `${name} · Procession`;
  }, [name]);
  if (!seen.data) return <><h1 class="spoken">Schedule</h1>{seen.error ? <Broken error={seen.error} again={seen.reload} /> : <Loading />}</>;
  const { schedule, next } = seen.data;
  const clock = now.value + skew.value;
  return (
    <div class="stack">
      <div>
        <div class="title">
          {schedule.paused && <span class="state paused"><StateShape state="paused" /><span class="word">Paused</span></span>}
          <h1><bdi>{schedule.name}</bdi></h1>
          <Labels labels={schedule.labels ?? {}} />
          <div class="grow" />
          {may("operate") && (
            <>
              <Button icon={schedule.paused ? "play" : "pause"} onClick={() => void setPaused(schedule, !schedule.paused).then(seen.reload)}>{schedule.paused ? "Resume" : "Pause"}</Button>
              <Button icon="settings" onClick={() => setOpen("change")}>Change …</Button>
              <Button icon="trash" label="Remove …" onClick={() => setOpen("remove")} />
              <Button kind="go" icon="plus" onClick={() => void runNow(schedule, (job) => go(link(`jobs/${job.id}`)))}>Run now</Button>
            </>
          )}
        </div>
        <div class="cmdline"><code class="cut" title={runs(schedule)}><bdi>{runs(schedule)}</bdi></code></div>
      </div>
      <div class="row lists">
        <div class="card">
          <header><h2>{times(schedule)}</h2></header>
          <dl class="facts wide3">
            <dt>Due</dt><dd>{due(schedule, clock)}</dd>
            <dt>Last</dt><dd><Last schedule={schedule} clock={clock} /></dd>
            {schedule.last_success_at && <><dt>Succeeded last</dt><dd>{moment(schedule.last_success_at, clock, settings.value.times)}</dd></>}
            <dt>Made</dt><dd>{count(schedule.runs)} jobs{schedule.skipped > 0 && `, ${count(schedule.skipped)} times skipped`}</dd>
            <dt>While one runs</dt><dd>{wordOf(OVERLAP, schedule.overlap)}</dd>
            <dt>Missed times</dt><dd>{wordOf(MISSED, schedule.missed)}{schedule.missed !== "skip" && `, within ${duration(schedule.missed_within_seconds ?? 0)}`}</dd>
            {(schedule.jitter_seconds ?? 0) > 0 && <><dt>Later by</dt><dd>up to {duration(schedule.jitter_seconds!)}</dd></>}
            {schedule.starts_at && <><dt>Not before</dt><dd>{moment(schedule.starts_at, clock, "local")}</dd></>}
            {schedule.ends_at && <><dt>Not after</dt><dd>{moment(schedule.ends_at, clock, "local")}</dd></>}
            <dt>By</dt><dd>{actor(schedule.created_by)}</dd>
          </dl>
        </div>
        <div class="card">
          <header><h2>Next times</h2>{schedule.paused && <span class="sub">if it were not paused</span>}</header>
          {next.length === 0 ? <p class="muted pad">None.</p> : <ol class="facts times">{next.map((at) => <li key={at} title={at}>{moment(at, clock, settings.value.times === "utc" ? "utc" : "local")} <span class="faint">in {duration(Math.max(0, Math.ceil((Date.parse(at) - clock) / 1000)))}</span></li>)}</ol>}
        </div>
      </div>
      <JobTable query={{ schedule: schedule.name }} nothing="It has made no job that is kept." />
      {open === "change" && <ScheduleDialog schedule={schedule} onClose={() => { setOpen(null); seen.reload(); }} />}
      {open === "remove" && <RemoveDialog schedule={schedule} onClose={() => setOpen(null)} />}
    </div>
  );
}

function wordOf(words: [string, string][], key: string | null | undefined): string {
  return words.find(([one]) => one === key)?.[1] ?? String(key);
}

function RemoveDialog({ schedule, onClose }: { schedule: Schedule; onClose: () => void }) {
  const [problem, setProblem] = useState("");
  return (
    <Dialog title={<span>Remove <bdi>{schedule.name}</bdi>?</span>} onClose={onClose}>
      <p class="muted">It makes no jobs any more. Those that it has made stay.</p>
      {problem && <p class="tint-red" role="alert">{problem}</p>}
      <div class="buttons"><Button onClick={onClose}>Leave it</Button><Button kind="stop" icon="trash" onClick={() => { remove(schedule).then(() => go(link("schedules"), "replace"), (error: unknown) => setProblem(words(error))); }}>Remove</Button></div>
    </Dialog>
  );
}
