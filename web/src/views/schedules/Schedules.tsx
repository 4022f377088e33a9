// The schedules: when each is due, and what became of it last.

import { useState } from "preact/hooks";
import { get, skew } from "../../api/client.ts";
import type { Schedule } from "../../api/model.ts";
import { Broken, Button, Loading, now, say } from "../../parts/parts.tsx";
import { StateShape } from "../../parts/State.tsx";
import { go, link } from "../../router.ts";
import { count, duration, moment } from "../../state/format.ts";
import { info, may } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";
import { settings } from "../../state/settings.ts";
import { runNow, setPaused } from "./acts.ts";
import { ScheduleDialog } from "./ScheduleDialog.tsx";
import { runs, skippedWords, times } from "./schedules.ts";

export function Schedules() {
  const list = useResource((stop) => get<{ schedules: Schedule[] }>("/schedules", {}, stop), ["schedules"], ["events"], 5000);
  const [open, setOpen] = useState(false);
  if (list.error && !list.data) return <Broken error={list.error} again={list.reload} />;
  if (!list.data) return <Loading />;
  const { schedules } = list.data;
  const paused = schedules.filter((one) => one.paused).length;
  return (
    <div class="stack">
      <div class="inline wraps">
        <span class="muted grow">{schedules.length === 1 ? "one schedule" : `${count(schedules.length)} schedules`}{paused > 0 && `, ${paused === 1 ? "one is" : `${count(paused)} are`} paused`}</span>
        {may("operate") && !info.value?.policy && <Button small icon="plus" onClick={() => setOpen(true)}>Schedule</Button>}
      </div>
      {schedules.length === 0 ? (
        <div class="card empty"><h2>No schedule</h2><p class="muted">A schedule makes jobs at times: by the clock, every few minutes, or at moments that are named.</p></div>
      ) : (
        <div class="card table">
          <table class="queues">
            <thead><tr><th>Schedule</th><th class="w-bar">Due</th><th class="w-result wide">Last</th><th class="w-dur mid num">Made</th><th class="w-by num">{may("operate") ? <span class="spoken">Actions</span> : ""}</th></tr></thead>
            <tbody>{schedules.map((schedule) => <Row key={schedule.name} schedule={schedule} onChange={list.reload} />)}</tbody>
          </table>
        </div>
      )}
      {open && <ScheduleDialog schedule={null} onClose={(made) => { setOpen(false); if (made) { say(`${made} is made`); go(link(`schedules/${made}`)); } }} />}
    </div>
  );
}

function Row({ schedule, onChange }: { schedule: Schedule; onChange: () => void }) {
  const clock = now.value + skew.value;
  return (
    <tr>
      <td>
        <span class="first"><a class="name" href={link(`schedules/${schedule.name}`)}><bdi>{schedule.name}</bdi></a>{schedule.paused && <span class="state paused"><StateShape state="paused" /><span class="word">Paused</span></span>}</span>
        <bdi class="cmd" title={runs(schedule)}>{runs(schedule)}</bdi>
      </td>
      <td><span class="two">{due(schedule, clock)}</span><span class="two faint small">{times(schedule)}</span></td>
      <td class="wide"><Last schedule={schedule} clock={clock} /></td>
      <td class="mid num muted">{count(schedule.runs)}{schedule.skipped > 0 && <span class="two faint small">{count(schedule.skipped)} skipped</span>}</td>
      <td class="num">
        {may("operate") && (
          <span class="acts">
            <Button small icon="plus" label={`Run ${schedule.name} now`} onClick={() => void runNow(schedule, (job) => go(link(`jobs/${job.id}`)))} />
            <Button small icon={schedule.paused ? "play" : "pause"} label={`${schedule.paused ? "Resume" : "Pause"} ${schedule.name}`} onClick={() => void setPaused(schedule, !schedule.paused).then(onChange)} />
          </span>
        )}
      </td>
    </tr>
  );
}

export function due(schedule: Schedule, clock: number): string {
  if (schedule.paused) return "paused";
  if (schedule.next_due_at === null) return "never again";
  const seconds = Math.ceil((Date.parse(schedule.next_due_at) - clock) / 1000);
  return seconds <= 0 ? "now" : `in ${duration(seconds)}`;
}

export function Last({ schedule, clock }: { schedule: Schedule; clock: number }) {
  const { last } = schedule;
  if (!last) return <span class="faint">not due yet</span>;
  const at = moment(last.due_at, clock, settings.value.times);
  const why = skippedWords(last);
  return (
    <>
      {last.job_id !== null ? <a class="plain" href={link(`jobs/${last.job_id}`)}>{at}</a> : <span>{at}</span>}
      {why !== "" ? <span class="two tint-amber small">{why}</span> : <span class="two faint small">made a job</span>}
    </>
  );
}
