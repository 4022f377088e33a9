// One job: its state, what can be done with it, and its parts as tabs.

import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import { lazy, Suspense } from "preact/compat";
import { get, Problem, send, words } from "../../api/client.ts";
import { watch as hear } from "../../api/hints.ts";
import { isTerminal, type Job } from "../../api/model.ts";
import { LogView } from "../../log/LogView.tsx";
import { Icon } from "../../parts/Icon.tsx";
import { Broken, Button, copy, Dialog, Labels, Loading, Menu, say } from "../../parts/parts.tsx";
import { State } from "../../parts/State.tsx";
import { go, link, place } from "../../router.ts";
import { type Action, useActions } from "../../state/actions.ts";
import { again, pause, purge, release, resume, signal } from "../../state/acts.ts";
import { actor, bytes, commandLine } from "../../state/format.ts";
import { may } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";
import { settings } from "../../state/settings.ts";
import { shownName } from "../../state/shown.ts";
import { nameOf, result, TINT } from "../../state/words.ts";
import { Bell, toggleBell, useBell } from "./Bell.tsx";
import { JobEvents } from "./JobEvents.tsx";
import { Processes } from "./Processes.tsx";
import { useProcesses } from "./processes.ts";
import { Side } from "./Side.tsx";
import { StopDialog } from "./StopDialog.tsx";
import { Timeline } from "./Timeline.tsx";
import { Waits } from "./Waits.tsx";

const Attempts = lazy(() => import("../rest.ts").then((all) => ({ default: all.Attempts })));
const EditDialog = lazy(() => import("../rest.ts").then((all) => ({ default: all.EditDialog })));
const SignalDialog = lazy(() => import("../rest.ts").then((all) => ({ default: all.SignalDialog })));
const Files = lazy(() => import("../rest.ts").then((all) => ({ default: all.Files })));
const Ports = lazy(() => import("../rest.ts").then((all) => ({ default: all.Ports })));
const InputView = lazy(() => import("../rest.ts").then((all) => ({ default: all.InputView })));
const SpecView = lazy(() => import("../rest.ts").then((all) => ({ default: all.SpecView })));
const Terminal = lazy(() => import("../../terminal/index.ts").then((all) => ({ default: all.Terminal })));
const Player = lazy(() => import("../../terminal/index.ts").then((all) => ({ default: all.Player })));

type Tab = "output" | "terminal" | "recording" | "processes" | "attempts" | "files" | "spec" | "events" | "input";
type Open = "stop" | "edit" | "timeout" | "signal" | "purge" | null;

/** The end of the output, as hints tell it between two looks at the job. */
function useTip(job: Job | null, reload: () => void): { first: number; next: number; complete: boolean } {
  const [tip, set] = useState({ next: 0, complete: false });
  const id = job?.id;
  useEffect(() => {
    if (id === undefined || job?.output.complete) return;
    return hear(`output:${id}`, (hint) => {
      if (typeof hint["next_offset"] === "number") set({ next: hint["next_offset"], complete: false });
      // The end is the job's to tell, with its totals.
      if (hint["complete"] === true || hint["next_offset"] === undefined) reload();
    });
  }, [id, job?.output.complete]);
  useEffect(() => set({ next: 0, complete: false }), [id]);
  // A hub is told of the output of a node's job now and then alone: the page asks for its end.
  const isAsked = job?.node !== undefined && !job.output.complete && job.started_at !== null && job.state_reason !== "node_unreachable";
  useEffect(() => {
    if (id === undefined || !isAsked) return;
    const abort = new AbortController();
    const ask = async (): Promise<void> => {
      if (document.hidden) return;
      try {
        const head = await send("GET", `/jobs/${id}/output`, { query: { tail_bytes: 0, limit_bytes: 0 }, signal: abort.signal });
        const next = Number(head.headers.get("Procession-Next-Offset"));
        set((old) => (next > old.next ? { next, complete: false } : old));
      } catch {
        // The job says soon that its node is away.
      }
    };
    const timer = setInterval(() => void ask(), 1000);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [id, isAsked]);
  return { first: job?.output.first_offset ?? 0, next: Math.max(job?.output.next_offset ?? 0, tip.next), complete: job?.output.complete ?? false };
}

export function JobPage({ id }: { id: string }) {
  // What a job waits for, and whether its node is heard, change without a new version.
  const [pace, setPace] = useState(0);
  const fetched = useResource((stop) => get<Job>(`/jobs/${id}`, {}, stop), ["job", id], [`job:${id}`], pace);
  const [mine, setMine] = useState<Job | null>(null);
  const [open, setOpen] = useState<Open>(null);
  const job = mine && fetched.data && mine.id === id && mine.version > fetched.data.version ? mine : fetched.data;
  const tip = useTip(job, fetched.reload);
  const query = place.value.query;
  const tab: Tab = (query.get("tab") as Tab | null) ?? (job?.spec.pty && may("operate") ? "terminal" : "output");
  const processes = useProcesses(id, job !== null && job.started_at !== null && (!isTerminal(job.state) || job.state === "lost"));
  useBell(id, job);
  useEffect(() => setPace(job?.state === "queued" ? 2000 : job?.node !== undefined && !isTerminal(job.state) ? 5000 : 0), [job?.state, job?.node]);

  useEffect(() => {
    if (!job) return;
    shownName.value = nameOf(job);
    document.title = `${nameOf(job)} · Procession`;
  }, [job?.name, id]);

  const act = async (work: () => Promise<Job>): Promise<void> => {
    try {
      setMine(await work());
    } catch (error) {
      say(words(error), true);
    }
  };
  const rerun = async (): Promise<void> => {
    try {
      go(link(`jobs/${(await again(id)).id}`));
    } catch (error) {
      if (error instanceof Problem && error.code === "invalid_spec") go(link("run", { again: id }));
      else say(words(error), true);
    }
  };
  const tabs = job ? tabsOf(job, processes.list.length) : [];
  const choose = (next: Tab): void => {
    const search = next === tabs[0]?.key ? "" : `?tab=${next}`;
    go(`${link(`jobs/${id}`)}${search}`, "replace");
  };
  useJobKeys({
    tab: (index) => { if (tabs[index]) choose(tabs[index]!.key); }, stop: () => { if (job && may("operate") && !isTerminal(job.state)) setOpen("stop"); },
    pause: () => { if (job && may("operate")) void act(() => (job.state === "paused" ? resume(id) : pause(id))); }, again: () => { if (may("operate")) void rerun(); },
    bell: () => { if (job && !isTerminal(job.state)) void toggleBell(id); }, change: () => { if (may("operate")) go(link("run", { again: id })); }, copy: () => void copy(id, "the id"), link: () => void copy(location.href, "the link"),
  });

  useActions(() => {
    if (!job) return [];
    const [name, done, state] = [nameOf(job), isTerminal(job.state), job.state];
    const out: Action[] = [];
    const offer = (key: string, icon: Action["icon"], word: string, run: () => void): void => void out.push({ key, icon, word, run });
    if (may("operate")) {
      if (!done || state === "lost") offer("stop", "stop", state === "queued" ? `Stop: take ${name} out of the queue …` : done ? `Stop what is left of ${name} …` : `Stop ${name} …`, () => setOpen("stop"));
      if (state === "running") offer("pause", "pause", `Pause ${name}`, () => void act(() => pause(id)));
      if (state === "paused") offer("resume", "play", `Resume ${name}`, () => void act(() => resume(id)));
      if (state === "queued") offer("release", "play", `Release ${name}`, () => void act(() => release(id)));
      if (state === "running" || state === "paused") offer("signal", "signal", `Signal ${name} …`, () => setOpen("signal"));
      offer("again", "again", `Again: rerun ${name}`, () => void rerun());
      offer("changes", "again", `Again with changes: rerun ${name} …`, () => go(link("run", { again: id })));
      offer("edit", "settings", `Change name, labels, timeout of ${name} …`, () => setOpen("edit"));
      if (done) offer("purge", "trash", `Remove record and output of ${name} …`, () => setOpen("purge"));
    }
    if (!done) offer("bell", "bell", `Notify me when ${name} ends`, () => void toggleBell(id));
    offer("copy", "copy", `Copy the id of ${name}`, () => void copy(id, "the id"));
    return out;
  });

  if (!job) return <><h1 class="spoken">Job</h1>{fetched.error ? <Broken error={fetched.error} again={fetched.reload} /> : <Loading />}</>;
  return (
    <div class="job">
      <Head job={job} onOpen={setOpen} onAct={act} onRerun={() => void rerun()} onExtend={() => setOpen("timeout")} />
      <nav class="tabs" role="tablist" aria-label="Parts">
        {tabs.map((one) => <button key={one.key} type="button" role="tab" aria-selected={tab === one.key} aria-controls="part" onClick={() => choose(one.key)}>{one.word} {one.count && <b>{one.count}</b>}</button>)}
      </nav>
      <div class="cols" id="part" role="tabpanel">
        {tab === "output" && <LogView key={id} job={job} tip={tip} />}
        {tab === "terminal" && <Suspense fallback={<Loading />}><Terminal key={id} job={job} /></Suspense>}
        {tab === "recording" && <Suspense fallback={<Loading />}><Player key={id} job={job} /></Suspense>}
        {tab === "processes" && <div class="stack"><Processes watch={processes} />{processes.list.length > 0 && <Suspense fallback={null}><Ports id={id} /></Suspense>}</div>}
        {tab === "attempts" && <Suspense fallback={<Loading />}><Attempts job={job} /></Suspense>}
        {(tab === "files" || tab === "spec" || tab === "input") && <Suspense fallback={<Loading />}>{tab === "files" ? <Files key={id} job={job} /> : tab === "spec" ? <SpecView job={job} /> : <InputView job={job} />}</Suspense>}
        {tab === "events" && <JobEvents id={id} />}
        <Side job={job} watch={processes} ports={tab !== "processes"} />
      </div>
      {open === "stop" && <StopDialog job={{ id, name: nameOf(job), state: job.state }} spec={job.spec.stop} processes={processes.list.length} onClose={() => setOpen(null)} onStopped={setMine} />}
      <Suspense fallback={null}>
        {(open === "edit" || open === "timeout") && <EditDialog job={job} first={open === "edit" ? "name" : "timeout"} onClose={() => setOpen(null)} onDone={setMine} />}
        {open === "signal" && <SignalDialog id={id} onClose={() => setOpen(null)} />}
      </Suspense>
      {open === "purge" && <PurgeDialog job={job} onClose={() => setOpen(null)} />}
    </div>
  );
}

function tabsOf(job: Job, processes: number): { key: Tab; word: string; count: string }[] {
  const out: { key: Tab; word: string; count: string }[] = [];
  const size = job.output.stdout_bytes + job.output.stderr_bytes;
  if (job.spec.pty && may("operate")) out.push({ key: "terminal", word: "Terminal", count: "" });
  out.push({ key: "output", word: "Output", count: size > 0 ? bytes(size) : "" });
  if (job.spec.pty && size > 0) out.push({ key: "recording", word: "Recording", count: "" });
  out.push({ key: "processes", word: "Processes", count: processes > 0 ? String(processes) : "" });
  if (job.spec.retry || job.attempts.length > 0) out.push({ key: "attempts", word: "Attempts", count: job.attempts.length > 0 ? String(job.attempts.length) : "" });
  if (job.spec.workspace !== null) out.push({ key: "files", word: "Files", count: job.artifacts && job.artifacts.files > 0 ? String(job.artifacts.files) : "" });
  out.push({ key: "spec", word: "Spec", count: "" }, { key: "events", word: "Events", count: "" });
  if (job.spec.stdin.mode === "open" && !job.spec.pty && !isTerminal(job.state) && may("operate")) out.push({ key: "input", word: "Input", count: "" });
  return out;
}

function Head({ job, onOpen, onAct, onRerun, onExtend }: { job: Job; onOpen: (open: Open) => void; onAct: (work: () => Promise<Job>) => Promise<void>; onRerun: () => void; onExtend: () => void }) {
  const done = isTerminal(job.state);
  const operate = may("operate");
  const why = result(job);
  return (
    <div>
      <div class="title">
        <State state={job.state} />
        <h1 title={job.name ?? job.id}><bdi>{nameOf(job)}</bdi></h1>
        {job.spec.ready && !done && <span class="label" title={job.ready_message ?? undefined}>{job.ready_at ? "ready" : job.not_ready_at ? "not ready in time" : "not ready yet"}</span>}
        <Labels labels={job.labels} />
        <span class="faint mono wide">{job.name === null ? "" : job.id}</span>
        <Button small icon="copy" kind="quiet" class="wide" label="Copy the id" onClick={() => void copy(job.id, "the id")} />
        <div class="grow" />
        <Bell job={job} />
        {operate && job.state === "running" && <Button icon="pause" class="wide" onClick={() => void onAct(() => pause(job.id))}>Pause</Button>}
        {operate && job.state === "paused" && <Button icon="play" onClick={() => void onAct(() => resume(job.id))}>Resume</Button>}
        {operate && (job.state === "running" || job.state === "paused") && (
          <Menu icon="signal" label="Signal" class="wide" items={[
            ...["SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGTERM"].map((name) => ({ key: name, word: name, run: () => { signal(job.id, name, "group").then((to) => say(`${name} sent to ${to === 1 ? "one process" : `${to} processes`}`), (error: unknown) => say(words(error), true)); } })),
            { key: "other", word: "Another …", run: () => onOpen("signal") },
          ]}>Signal <Icon name="down" /></Menu>
        )}
        {operate && (
          <span class="split wide">
            <Button icon="again" onClick={onRerun}>Again</Button>
            <Menu icon="down" label="More" items={[
              { key: "changes", word: "Again with changes …", run: () => go(link("run", { again: job.id })) },
              { key: "edit", word: "Name, labels, timeout …", run: () => onOpen("edit") },
              { key: "purge", word: "Remove record and output …", disabled: !done, run: () => onOpen("purge") },
            ]} />
          </span>
        )}
        {operate && (
          <Menu icon="more" label="All actions" class="narrow" items={[
            { key: "again", word: "Again", run: onRerun },
            { key: "changes", word: "Again with changes …", run: () => go(link("run", { again: job.id })) },
            ...(job.state === "running" ? [{ key: "pause", word: "Pause", run: () => void onAct(() => pause(job.id)) }] : []),
            ...(job.state === "running" || job.state === "paused" ? [{ key: "signal", word: "Signal …", run: () => onOpen("signal") }] : []),
            { key: "edit", word: "Name, labels, timeout …", run: () => onOpen("edit") },
            { key: "copy", word: "Copy the id", run: () => void copy(job.id, "the id") },
            { key: "purge", word: "Remove record and output …", disabled: !done, run: () => onOpen("purge") },
          ]} />
        )}
        {operate && !done && <Button icon="stop" kind="stop" onClick={() => onOpen("stop")}>Stop</Button>}
        {operate && job.state === "lost" && <Button icon="stop" kind="stop" onClick={() => onOpen("stop")}>End what is left</Button>}
        {!operate && !done && <span class="muted inline small"><Icon name="eye" />You may look. To stop or start jobs, ask for a token of the scope operate.</span>}
      </div>
      <div class="cmdline">
        <code class="cut" title={commandLine(job.spec)}><bdi>{commandLine(job.spec)}</bdi></code>
        <span class="wide">{job.spec.cwd !== null && <>in <bdi class="mono">{job.spec.cwd}</bdi> · </>}{job.process && `PID ${job.process.pid}, session ${job.process.sid} · `}{job.node !== undefined && <>on <a class="plain" href={link("jobs", { node: job.node })}><bdi>{job.node}</bdi></a> · </>}by <a class="plain" href={link("jobs", { by: job.created_by })}><b>{actor(job.created_by)}</b></a>{job.batch && <> · <bdi class="mono">{job.batch.key}</bdi> of the batch <a class="plain mono" href={link(`batches/${job.batch.id}`)}>{job.batch.id.slice(0, 8)}</a></>}{job.schedule && <> · of the schedule <a class="plain" href={link(`schedules/${job.schedule.name}`)}><bdi>{job.schedule.name}</bdi></a></>}{job.rerun_of && <> · again of <a class="plain mono" href={link(`jobs/${job.rerun_of}`)}>{job.rerun_of.slice(0, 8)}</a></>}</span>
      </div>
      {why !== "" && <p class={`blocked ${TINT[job.state] ?? "muted"}`}><bdi>{why}</bdi></p>}
      {job.blocked_by.length > 0 && <p class="blocked tint-amber">{job.blocked_by.slice(0, 3).map((one) => `PID ${one.pid} ${one.name} is in state ${one.state}${one.state === "D" ? ", waiting for a disk or a network file system" : ""}`).join("; ")}{job.blocked_by.length > 3 && ` and ${job.blocked_by.length - 3} more`}</p>}
      <Waits job={job} onRelease={() => void onAct(() => release(job.id))} />
      <Timeline job={job} onExtend={operate && !done && job.state !== "stopping" ? onExtend : null} />
    </div>
  );
}

function PurgeDialog({ job, onClose }: { job: Job; onClose: () => void }) {
  const [problem, setProblem] = useState("");
  return (
    <Dialog title={<span>Remove <bdi>{nameOf(job)}</bdi>?</span>} onClose={onClose}>
      <p class="muted">Its record, its events and {bytes(job.output.stdout_bytes + job.output.stderr_bytes)} of output. They cannot be brought back.</p>
      {problem && <p class="tint-red" role="alert">{problem}</p>}
      <div class="buttons"><Button onClick={onClose}>Leave it</Button><Button kind="stop" icon="trash" onClick={() => { purge(job.id).then(() => go(link("jobs"), "replace"), (error: unknown) => setProblem(words(error))); }}>Remove</Button></div>
    </Dialog>
  );
}

function useJobKeys(keys: { tab: (index: number) => void; stop: () => void; pause: () => void; again: () => void; bell: () => void; change: () => void; copy: () => void; link: () => void }): void {
  // At once: who sees the job may press a key.
  useLayoutEffect(() => {
    const on = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !settings.value.keys) return;
      if (event.target instanceof HTMLElement && event.target.closest("input, textarea, select, dialog, .xterm, [role=menu]") !== null) return;
      if (/^[1-9]$/.test(event.key)) keys.tab(Number(event.key) - 1);
      else if (event.key === "s") keys.stop();
      else if (event.key === "p") keys.pause();
      else if (event.key === "r") keys.again();
      else if (event.key === "b") keys.bell();
      else if (event.key === "e") keys.change();
      else if (event.key === "y") keys.copy();
      else if (event.key === "Y") keys.link();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", on);
    return () => document.removeEventListener("keydown", on);
  });
}
