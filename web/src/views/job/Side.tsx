// Beside the output: what the job uses, its processes, and facts.

import { lazy, Suspense } from "preact/compat";
import { type Job, isTerminal } from "../../api/model.ts";
import { Spark } from "../../parts/Spark.tsx";
import { link } from "../../router.ts";
import { bytes, duration, moment } from "../../state/format.ts";
import { quote } from "../../state/format.ts";
import type { Watch } from "./processes.ts";
import type { Branch } from "./tree.ts";

const Ports = lazy(() => import("../rest.ts").then((all) => ({ default: all.Ports })));

/** `ports`: nobody else shows them. */
export function Side({ job, watch, ports }: { job: Job; watch: Watch; ports: boolean }) {
  const { history } = watch;
  return (
    <aside class="side" aria-label="About the job">
      {!isTerminal(job.state) && (
        <div class="card">
          <header><h2>Processor</h2><span class="sub">since you look</span><div class="grow" /><b>{watch.cores === null ? "…" : `${Math.round(watch.cores * 100)} %`}</b></header>
          <div class="chartbox"><Spark values={history.map((one) => one.cores)} most={job.spec.limits.cpu ?? 1} colour="violet" label={`Processor since you look, now ${Math.round((watch.cores ?? 0) * 100)} %`} /></div>
          <header><h2>Memory</h2><div class="grow" /><b>{bytes(watch.rss)}</b>{job.spec.limits.memory_bytes !== null && <span class="faint">of {bytes(job.spec.limits.memory_bytes)}</span>}</header>
          <div class="chartbox"><Spark values={history.map((one) => one.rss)} most={job.spec.limits.memory_bytes ?? 0} colour="blue" label={`Memory since you look, now ${bytes(watch.rss)}`} /></div>
        </div>
      )}
      {watch.list.length > 0 && (
        <div class="card">
          <header><h2>Processes</h2><span class="sub">{watch.list.length}</span></header>
          <ul class="tree">
            {watch.list.slice(0, 12).map((one) => (
              <li key={one.info.pid} title={one.info.command.map(quote).join(" ")}>
                <span class="cut"><span class="b">{one.lead}</span><bdi>{short(one)}</bdi> <span class="pid">{one.info.pid}</span></span>
                <span class="num">{one.cores === null ? "" : `${Math.round(one.cores * 100)} %`}</span><span class="num muted">{bytes(one.info.rss_bytes)}</span>
              </li>
            ))}
          </ul>
        </div>
      )}
      {ports && watch.list.length > 0 && <Suspense fallback={null}><Ports id={job.id} /></Suspense>}
      <Facts job={job} />
    </aside>
  );
}

export function short(one: Branch): string {
  const [first = "", ...rest] = one.info.command;
  const name = first.split("/").at(-1) ?? first;
  return [name, ...rest].join(" ").slice(0, 60);
}

function Facts({ job }: { job: Job }) {
  const { spec, process, usage, termination } = job;
  const facts: [string, preact.ComponentChildren][] = [];
  if (usage) facts.push(["Used", `${duration(usage.user_cpu_seconds + usage.system_cpu_seconds)} of processor, ${bytes(usage.max_rss_bytes)} at most`]);
  const limits = [spec.limits.memory_bytes !== null && bytes(spec.limits.memory_bytes), spec.limits.cpu !== null && `${spec.limits.cpu} cores`, spec.limits.pids !== null && `${spec.limits.pids} processes`].filter(Boolean);
  facts.push(["Limits", limits.length > 0 ? limits.join(", ") : "none"]);
  if (job.node !== undefined) facts.push(["Node", <a class="plain" href={link("jobs", { node: job.node })}><bdi>{job.node}</bdi></a>]);
  if (process) facts.push(["Contained by", process.containment === "subreaper" ? "subreaper" : "cgroup and subreaper"]);
  if (process?.sandbox) facts.push(["Sandbox", [process.sandbox.landlock_abi !== null && `Landlock ${process.sandbox.landlock_abi}`, process.sandbox.seccomp && "seccomp", process.sandbox.missing.length > 0 && `without ${process.sandbox.missing.join(", ")}`].filter(Boolean).join(", ")]);
  facts.push(["Stop", `${spec.stop.signal}, ${duration(spec.stop.grace_seconds)} of grace, SIGKILL`]);
  if (termination) facts.push(["Ended by", <bdi>{[termination.cause, termination.requested_by && `by ${termination.requested_by}`, termination.reason, termination.killed_leftovers > 0 && `${termination.killed_leftovers} left over and killed`].filter(Boolean).join(", ")}</bdi>]);
  if (job.exit) facts.push(["Exit", job.exit.signal ?? `code ${job.exit.code}`]);
  if (job.batch) facts.push(["Batch", <><a class="plain" href={link(`batches/${job.batch.id}`)}>{job.batch.id.slice(0, 8)}</a>, <bdi>{job.batch.key}</bdi>{job.batch.count > 1 && ` ${job.batch.index + 1} of ${job.batch.count}`}</>]);
  if (job.schedule) facts.push(["Schedule", <><a class="plain" href={link(`schedules/${job.schedule.name}`)}><bdi>{job.schedule.name}</bdi></a>{job.schedule.due_at ? `, due ${moment(job.schedule.due_at, Date.now(), "local")}` : ", by hand"}</>]);
  if (spec.ready) facts.push(["Ready", <bdi>{[job.ready_at ? `since ${moment(job.ready_at, Date.now(), "local")}` : job.not_ready_at ? "not in time" : "not yet", job.ready_message].filter(Boolean).join(", ")}</bdi>]);
  if (spec.retry) facts.push(["Attempts", `${job.attempt} of at most ${spec.retry.max_attempts}`]);
  facts.push(["Queue", `${spec.queue}, priority ${spec.priority}`]);
  facts.push(["Kept", job.expires_at ? `until ${moment(job.expires_at, Date.now(), "local")}` : `${duration(spec.ttl_seconds_after_finished)} after its end`]);
  if (spec.webhooks.length > 0) facts.push(["Webhooks", <bdi>{spec.webhooks.map((one) => one.url).join(", ")}</bdi>]);
  return (
    <div class="card">
      <header><h2>Facts</h2></header>
      <dl class="facts">{facts.map(([key, value]) => [<dt key={`${key} k`}>{key}</dt>, <dd key={key}>{value}</dd>])}</dl>
    </div>
  );
}
