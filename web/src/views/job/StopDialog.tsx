// Stop, asked once and in words.

import { useState } from "preact/hooks";
import { words } from "../../api/client.ts";
import type { Job, State } from "../../api/model.ts";
import { Icon } from "../../parts/Icon.tsx";
import { Button, Dialog, Field, Input, say } from "../../parts/parts.tsx";
import { stop } from "../../state/acts.ts";
import { duration, parseDuration } from "../../state/format.ts";

export function StopDialog({ job, spec, processes, onClose, onStopped }: { job: { id: string; name: string; state: State }; spec?: Job["spec"]["stop"]; processes?: number | null; onClose: () => void; onStopped?: (job: Job) => void }) {
  const [grace, setGrace] = useState(spec ? duration(spec.grace_seconds) : "");
  const [signal, setSignal] = useState(spec?.signal ?? "");
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const seconds = grace.trim() === "" ? null : parseDuration(grace);
  const wrong = grace.trim() !== "" && seconds === null ? "a duration such as 10 s or 2 min" : undefined;
  const run = async (force: boolean): Promise<void> => {
    setBusy(true);
    try {
      const wish = { force, reason: reason.trim(), grace: force || seconds === spec?.grace_seconds ? null : seconds, signal: force || signal.trim() === "" || signal === spec?.signal ? null : signal.trim() };
      const stopped = await stop(job.id, wish);
      onStopped?.(stopped);
      say(`Stopping ${job.name}`);
      onClose();
    } catch (error) {
      setProblem(words(error));
      setBusy(false);
    }
  };
  const queued = job.state === "queued";
  return (
    <Dialog title={<span>{queued ? "Take" : "Stop"} <bdi>{job.name}</bdi>{queued ? " out of the queue?" : "?"}</span>} onClose={onClose}>
      {!queued && <p class="muted">{spec ? `${signal || spec.signal} to ${SCOPES[spec.scope] ?? "its group"}, ${seconds === null ? "its grace" : duration(seconds)}` : "Its stop signal, its grace"}, then SIGKILL to every process that is left.{processes != null && processes > 0 && ` ${processes === 1 ? "One process runs" : `${processes} processes run`} now.`}</p>}
      <form class="stack" onSubmit={(event) => { event.preventDefault(); if (!wrong) void run(false); }}>
        <div class="grid2">
          {!queued && <Field id="stop-grace" label="Grace" error={wrong}><Input id="stop-grace" value={grace} placeholder="as its spec says" bad={wrong !== undefined} onInput={(event) => setGrace(event.currentTarget.value)} /></Field>}
          {!queued && spec && <Field id="stop-signal" label="Signal"><Input id="stop-signal" mono value={signal} onInput={(event) => setSignal(event.currentTarget.value)} /></Field>}
        </div>
        <Field id="stop-reason" label="Reason"><Input id="stop-reason" maxLength={1024} placeholder="shown in its record" value={reason} onInput={(event) => setReason(event.currentTarget.value)} /></Field>
        {problem && <p class="tint-red" role="alert">{problem}</p>}
        <div class="buttons">
          <Button disabled={busy} onClick={onClose}>Leave it</Button>
          {!queued && <Button disabled={busy} onClick={() => void run(true)}>Kill at once</Button>}
          <button type="submit" class="btn stop" disabled={busy || wrong !== undefined}><Icon name="stop" />{queued ? "Take it out" : "Stop"}</button>
        </div>
      </form>
    </Dialog>
  );
}

const SCOPES: Record<string, string> = { group: "its group", leader: "its leader", all: "each of its processes" };
