// One batch: its counters, its jobs, and what can be done with all of them.

import { useEffect, useState } from "preact/hooks";
import { get, key, send, sendThrough, words } from "../../api/client.ts";
import type { Batch } from "../../api/model.ts";
import { Broken, Button, copy, Dialog, Field, Input, Labels, Loading, Menu, say } from "../../parts/parts.tsx";
import { State, stateWord, StateShape } from "../../parts/State.tsx";
import { go, link, place, requery } from "../../router.ts";
import { actor, count, duration, moment } from "../../state/format.ts";
import { may } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";
import { settings } from "../../state/settings.ts";
import { shownName } from "../../state/shown.ts";
import { nameOf } from "../../state/words.ts";
import { JobTable } from "../JobTable.tsx";
import { PartsBar } from "./Batches.tsx";
import { keys, ON_FAILURE, parts, progress } from "./batches.ts";

export function BatchPage({ id }: { id: string }) {
  const fetched = useResource((stop) => get<Batch>(`/batches/${id}`, {}, stop), ["batch", id], ["events"], 5000);
  const [open, setOpen] = useState<"stop" | "purge" | null>(null);
  const batch = fetched.data;
  useEffect(() => {
    if (!batch) return;
    shownName.value = nameOf(batch);
    document.title = `${nameOf(batch)} · Procession`;
  }, [batch?.name, id]);
  if (!batch) return <><h1 class="spoken">Batch</h1>{fetched.error ? <Broken error={fetched.error} again={fetched.reload} /> : <Loading />}</>;
  const state = place.value.query.get("state") ?? "";
  const again = async (only: "failed" | "all"): Promise<void> => {
    try {
      const made: Batch = await (await sendThrough("POST", `/batches/${id}/rerun`, { body: { only }, headers: key() })).json();
      go(link(`batches/${made.id}`));
    } catch (error) {
      say(words(error), true);
    }
  };
  const bad = (batch.counts.failed ?? 0) + (batch.counts.timed_out ?? 0) + (batch.counts.lost ?? 0) + (batch.counts.canceled ?? 0);
  const done = batch.finished_at !== null;
  return (
    <div class="stack">
      <div>
        <div class="title">
          <State state={batch.state} />
          <h1 title={batch.name ?? batch.id}><bdi>{nameOf(batch)}</bdi></h1>
          <Labels labels={batch.labels} />
          <Button small icon="copy" kind="quiet" class="wide" label="Copy the id" onClick={() => void copy(batch.id, "the id")} />
          <div class="grow" />
          {may("operate") && done && bad > 0 && <Button icon="again" onClick={() => void again("failed")}>Those that failed again</Button>}
          {may("operate") && done && <Menu icon="more" label="More" items={[
            { key: "all", word: "All of them again", run: () => void again("all") },
            { key: "purge", word: "Remove records and output …", run: () => setOpen("purge") },
          ]} />}
          {may("operate") && !done && <Button icon="stop" kind="stop" onClick={() => setOpen("stop")}>Stop all</Button>}
        </div>
        <p class="muted small">{progress(batch)}; created {moment(batch.created_at, Date.now(), settings.value.times)} by <b>{actor(batch.created_by)}</b>{batch.rerun_of && <> · again of <a class="plain mono" href={link(`batches/${batch.rerun_of}`)}>{batch.rerun_of.slice(0, 8)}</a></>}</p>
      </div>
      <div class="card pad">
        <PartsBar batch={batch} />
        <nav class="inline wraps counters" aria-label="Its jobs by state">
          <Counter word="All" number={batch.total} current={state === ""} />
          {parts(batch).map((one) => <Counter key={one.state} state={one.state} word={stateWord(one.state)} number={one.count} current={state === one.state} />)}
        </nav>
        <dl class="facts wide3">
          <dt>At once</dt><dd>{batch.max_running === null ? "as many as the service runs" : `at most ${count(batch.max_running)}`}</dd>
          <dt>When one fails</dt><dd>{ON_FAILURE[batch.on_failure]}</dd>
          {batch.finished_at && <><dt>Took</dt><dd>{duration((Date.parse(batch.finished_at) - Date.parse(batch.created_at)) / 1000)}</dd></>}
          {batch.expires_at && <><dt>Kept</dt><dd>until {moment(batch.expires_at, Date.now(), "local")}</dd></>}
          {batch.webhooks.length > 0 && <><dt>Webhooks</dt><dd><bdi>{batch.webhooks.map((one) => one.url).join(", ")}</bdi></dd></>}
        </dl>
      </div>
      <JobTable query={{ batch: id, order_by: "created_at asc", ...(state === "" ? {} : { state }) }} keyOf={keys(batch)} nothing={state === "" ? "The records of its jobs have expired." : "None of its jobs is in this state."} />
      <p class="small"><a class="plain" href={link("jobs", { batch: id })}>Its jobs in the list, to select some of them</a></p>
      {open === "stop" && <StopDialog batch={batch} onClose={() => { setOpen(null); fetched.reload(); }} />}
      {open === "purge" && <PurgeDialog batch={batch} onClose={() => setOpen(null)} />}
    </div>
  );
}

function Counter({ state, word, number, current }: { state?: Batch["state"] | "queued" | "starting" | "paused" | "stopping" | "timed_out" | "lost"; word: string; number: number; current: boolean }) {
  const query = new URLSearchParams(state ? { state } : {});
  return <a class="counter" href={link(place.value.view === "batch" ? `batches/${place.value.id}` : "batches", query)} aria-current={current ? "true" : undefined} onClick={(event) => { if (!event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); requery(query); } }}>{state && <span class={`state ${state}`}><StateShape state={state} /></span>}{word} <b>{count(number)}</b></a>;
}

function StopDialog({ batch, onClose }: { batch: Batch; onClose: () => void }) {
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState("");
  const stop = async (force: boolean): Promise<void> => {
    try {
      await sendThrough("DELETE", `/batches/${batch.id}`, { query: { reason: reason.trim(), force: force ? true : null } });
      say(`Stopping ${nameOf(batch)}`);
      onClose();
    } catch (error) {
      setProblem(words(error));
    }
  };
  return (
    <Dialog title={<span>Stop all of <bdi>{nameOf(batch)}</bdi>?</span>} onClose={onClose}>
      <form class="stack" onSubmit={(event) => { event.preventDefault(); void stop(false); }}>
        <p class="muted">Those that wait end at once, and none starts any more; each that runs gets its stop signal, its grace, and then SIGKILL for what is left.</p>
        <Field id="batch-reason" label="Reason" hint="shown in the record of each" error={problem || undefined}><Input id="batch-reason" maxLength={1024} value={reason} onInput={(event) => setReason(event.currentTarget.value)} /></Field>
        <div class="buttons"><Button onClick={onClose}>Leave it</Button><Button onClick={() => void stop(true)}>Kill at once</Button><Button kind="stop" icon="stop" type="submit">Stop all</Button></div>
      </form>
    </Dialog>
  );
}

function PurgeDialog({ batch, onClose }: { batch: Batch; onClose: () => void }) {
  const [problem, setProblem] = useState("");
  return (
    <Dialog title={<span>Remove <bdi>{nameOf(batch)}</bdi>?</span>} onClose={onClose}>
      <p class="muted">The records, the events and the output of {batch.total === 1 ? "its one job" : `its ${count(batch.total)} jobs`}. They cannot be brought back.</p>
      {problem && <p class="tint-red" role="alert">{problem}</p>}
      <div class="buttons"><Button onClick={onClose}>Leave it</Button><Button kind="stop" icon="trash" onClick={() => { send("DELETE", `/batches/${batch.id}`, { query: { purge: true, wait: 30 } }).then(() => go(link("batches"), "replace"), (error: unknown) => setProblem(words(error))); }}>Remove</Button></div>
    </Dialog>
  );
}
