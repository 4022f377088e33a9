// The queues: what runs and waits in each, and what is set of it.

import { useState } from "preact/hooks";
import { get, send, skew, words } from "../../api/client.ts";
import type { Queue } from "../../api/model.ts";
import { Broken, Button, Dialog, Field, Input, Loading, Meter, now, say } from "../../parts/parts.tsx";
import { StateShape } from "../../parts/State.tsx";
import { link } from "../../router.ts";
import { count, duration } from "../../state/format.ts";
import { may } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";
import { load, rate, rules } from "./queues.ts";
import { SettingsDialog } from "./SettingsDialog.tsx";

type Open = { kind: "pause" | "settings"; queue: Queue } | { kind: "new" } | null;

export function Queues() {
  const list = useResource((stop) => get<{ queues: Queue[] }>("/queues", {}, stop), ["queues"], ["events"], 5000);
  const [open, setOpen] = useState<Open>(null);
  const resume = async (queue: Queue): Promise<void> => {
    try {
      await patch(queue.name, { paused: false, pause_reason: null });
      say(`${queue.name} starts jobs again`);
    } catch (error) {
      say(words(error), true);
    }
    list.reload();
  };
  const close = (): void => {
    setOpen(null);
    list.reload();
  };
  if (list.error && !list.data) return <Broken error={list.error} again={list.reload} />;
  if (!list.data) return <Loading />;
  const queues = list.data.queues;
  return (
    <div class="stack">
      <div class="inline wraps">
        <span class="muted grow">{sentence(queues)}</span>
        {may("admin") && <Button small icon="plus" onClick={() => setOpen({ kind: "new" })}>Settings of a queue</Button>}
      </div>
      {queues.length === 0 ? (
        <div class="card empty"><h2>No queue</h2><p class="muted">A queue is there once a job names it, or something is set of it. Jobs that name none go to <span class="mono">default</span>.</p></div>
      ) : (
        <div class="card table">
          <table class="queues">
            <thead><tr><th>Queue</th><th class="w-bar">Running</th><th class="w-bar">Waiting</th><th class="w-dur wide">Oldest waits</th><th class="w-rules mid">Rules</th><th class="w-by num">{may("operate") ? <span class="spoken">Actions</span> : ""}</th></tr></thead>
            <tbody>{queues.map((queue) => <Row key={queue.name} queue={queue} onPause={() => setOpen({ kind: "pause", queue })} onResume={() => void resume(queue)} onSettings={() => setOpen({ kind: "settings", queue })} />)}</tbody>
          </table>
        </div>
      )}
      {open?.kind === "pause" && <PauseDialog queue={open.queue} onClose={close} />}
      {open?.kind === "settings" && <SettingsDialog queue={open.queue} onClose={close} />}
      {open?.kind === "new" && <SettingsDialog queue={null} onClose={close} />}
    </div>
  );
}

async function patch(name: string, body: unknown): Promise<void> {
  await send("PATCH", `/queues/${encodeURIComponent(name)}`, { body, type: "application/merge-patch+json" });
}

function sentence(queues: Queue[]): string {
  const sum = (of: (queue: Queue) => number): number => queues.reduce((total, queue) => total + of(queue), 0);
  const paused = queues.filter((queue) => queue.paused).length;
  return [`${count(sum((queue) => queue.running))} running`, `${count(sum((queue) => queue.queued))} waiting`, ...(paused > 0 ? [paused === 1 ? "one queue is paused" : `${paused} queues are paused`] : [])].join(", ");
}

function Row({ queue, onPause, onResume, onSettings }: { queue: Queue; onPause: () => void; onResume: () => void; onSettings: () => void }) {
  const clock = now.value + skew.value;
  const ago = (at: string): string => duration(Math.max(0, Math.floor((clock - Date.parse(at)) / 1000)));
  const running = load(queue);
  const waits = queue.next_start_at !== null && Date.parse(queue.next_start_at) > clock;
  const jobs = (state: string): string => link("jobs", { state, queue: queue.name });
  return (
    <tr>
      <td>
        <span class="first"><a class="name" href={link("jobs", { queue: queue.name })}><bdi>{queue.name}</bdi></a>{queue.paused && <span class="state paused"><StateShape state="paused" /><span class="word">Paused</span></span>}</span>
        {queue.paused && queue.pause_reason !== null ? <bdi class="cmd" title={queue.pause_reason}>{queue.pause_reason}</bdi> : <span class="cmd wide">{rate(queue)}</span>}
      </td>
      <td><a class="two" href={jobs("running,starting,paused,stopping")}>{count(queue.running)}<span class="faint">{running.words}</span></a>{running.part !== null && <Meter part={running.part} />}</td>
      <td><a class="two" href={jobs("queued")}>{count(queue.queued)}<span class="faint">{queue.max_queued === null ? "" : ` of ${count(queue.max_queued)}`}</span></a>{queue.max_queued !== null && <Meter part={queue.max_queued === 0 ? 1 : queue.queued / queue.max_queued} class="grey" />}</td>
      <td class="wide muted">{queue.oldest_queued_at === null ? <span class="faint">–</span> : ago(queue.oldest_queued_at)}{waits && <span class="two faint">next start in {duration(Math.ceil((Date.parse(queue.next_start_at!) - clock) / 1000))}</span>}</td>
      <td class="mid muted">{rules(queue) || <span class="faint">–</span>}</td>
      <td class="num">
        <span class="acts">
          {may("operate") && (queue.paused ? <Button small icon="play" label={`Resume ${queue.name}`} onClick={onResume} /> : <Button small icon="pause" label={`Pause ${queue.name}`} onClick={onPause} />)}
          {may("admin") && <Button small icon="settings" label={`Settings of ${queue.name}`} onClick={onSettings} />}
        </span>
      </td>
    </tr>
  );
}

function PauseDialog({ queue, onClose }: { queue: Queue; onClose: () => void }) {
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState("");
  const pause = async (): Promise<void> => {
    try {
      await patch(queue.name, { paused: true, pause_reason: reason.trim() === "" ? null : reason.trim() });
      onClose();
    } catch (error) {
      setProblem(words(error));
    }
  };
  return (
    <Dialog title={<span>Pause <bdi>{queue.name}</bdi>?</span>} onClose={onClose}>
      <form class="stack" onSubmit={(event) => { event.preventDefault(); void pause(); }}>
        <p class="muted">No job of it starts. {queue.running === 0 ? "None runs." : queue.running === 1 ? "The one that runs goes on." : `The ${count(queue.running)} that run go on.`}</p>
        <Field id="pause-reason" label="Reason" hint="shown here and in every job that waits" error={problem || undefined}><Input id="pause-reason" value={reason} maxLength={1024} onInput={(event) => setReason(event.currentTarget.value)} /></Field>
        <div class="buttons"><Button onClick={onClose}>Cancel</Button><Button kind="go" icon="pause" type="submit">Pause</Button></div>
      </form>
    </Dialog>
  );
}
