// How the service is: numbers, what ended, what runs, and what needs a look.

import { get, skew } from "../api/client.ts";
import type { BasicJob, Count, Info, State as Name, Stats } from "../api/model.ts";
import { Icon } from "../parts/Icon.tsx";
import { Bars } from "../parts/Bars.tsx";
import { bucketed, type Range, RANGES } from "../parts/buckets.ts";
import { Lines, Table, Used } from "../parts/Lines.tsx";
import { Broken, Loading, Meter, now, Segments } from "../parts/parts.tsx";
import { State, StateShape } from "../parts/State.tsx";
import { link, place, requery } from "../router.ts";
import { bytes, count, duration, moment } from "../state/format.ts";
import { may } from "../state/me.ts";
import { useResource } from "../state/resource.ts";
import { settings } from "../state/settings.ts";
import { nameOf, ran, ranWords, result } from "../state/words.ts";
import { useUsage } from "./jobs/usage.ts";

interface Seen {
  info: Info;
  running: BasicJob[];
  needs: BasicJob[];
  stats: Stats;
  day: Count[];
  all: Count[];
}

async function look(range: Range, signal: AbortSignal): Promise<Seen> {
  const list = (query: Record<string, string | number>): Promise<{ jobs: BasicJob[]; next_page_token: string | null }> => get("/jobs", { view: "basic", ...query }, signal);
  const since = (seconds: number): string => new Date(Math.floor((Date.now() + skew.value - seconds * 1000) / 60000) * 60000).toISOString();
  const [info, running, stuck, bad, stats, day, all] = await Promise.all([
    get<Info>("/info", {}, signal),
    list({ state: "running,paused", page_size: 50 }),
    list({ state: "stopping", page_size: 10 }),
    list({ state: "failed,timed_out,lost", page_size: 20, created_after: since(86400) }),
    get<Stats>("/stats", { since: since(RANGES[range].seconds), step: RANGES[range].step }, signal),
    get<{ counts: Count[] }>("/jobs/counts", { created_after: since(86400) }, signal),
    get<{ counts: Count[] }>("/jobs/counts", {}, signal),
  ]);
  return { info, running: running.jobs, needs: [...stuck.jobs, ...bad.jobs], stats, day: day.counts, all: all.counts };
}

const NOTICES: Record<Info["notices"][number], string> = {
  no_room: "No room: less of the disk is free than the service keeps free, so it takes no new jobs.",
  root_jobs: "Jobs without a user run as root. --deny-root-jobs refuses them.",
};

export function Overview() {
  const range = (["1h", "24h", "30d"] as Range[]).find((one) => one === place.value.query.get("range")) ?? "1h";
  const seen = useResource((signal) => look(range, signal), ["overview", range], ["events"]);
  const uses = useUsage((seen.data?.running ?? []).map((job) => job.id));
  if (seen.error && !seen.data) return <Broken error={seen.error} again={seen.reload} />;
  if (!seen.data) return <Loading rows={8} />;
  const { info, running, needs, stats, day, all } = seen.data;
  const of = (counts: Count[], ...states: Name[]): number => counts.filter((one) => states.includes(one.state)).reduce((sum, one) => sum + one.count, 0);
  const [good, failed, late, lost, canceled] = [of(day, "succeeded"), of(day, "failed"), of(day, "timed_out"), of(day, "lost"), of(day, "canceled")];
  const ended = good + failed + late + lost + canceled;
  const bad = failed + late + lost;
  const cores = [...uses.values()].reduce((sum, one) => sum + (one.cores ?? 0), 0);
  const sorted = [...running].sort((a, b) => (uses.get(b.id)?.cores ?? -1) - (uses.get(a.id)?.cores ?? -1));
  const clock = now.value + skew.value;
  const buckets = bucketed(stats.steps, range, clock);
  const used = buckets.reduce((sum, one) => sum + one.cpu, 0);
  return (
    <div class="stack">
      {info.notices.map((one) => <div key={one} class="banner warn" role="status"><Icon name="warn" /><span class="grow">{NOTICES[one]}</span>{may("admin") && <a class="btn small" href={link("checkup")}>Check-up</a>}</div>)}
      <div class="inline wraps"><span class="muted grow">{info.hostname ?? ""}</span><Segments<Range> label="Range" value={range} options={[["1h", "1 h"], ["24h", "24 h"], ["30d", "30 d"]]} onChange={(next) => requery(new URLSearchParams(next === "1h" ? {} : { range: next }), "replace")} /></div>
      <div class="tiles">
        <Tile to={{ state: "running,paused,starting,stopping" }} state="running" word="Running" value={count(info.jobs.running)} beside={`of ${count(info.jobs.max_running)} slots`} note={[of(all, "paused") && `${of(all, "paused")} paused`, of(all, "stopping") && `${of(all, "stopping")} stopping`].filter(Boolean).join(", ") || `${cores.toFixed(1)} cores in use`}><Meter part={info.jobs.running / Math.max(1, info.jobs.max_running)} /></Tile>
        <Tile to={{ state: "queued" }} state="queued" word="Queued" value={count(info.jobs.queued)} beside={`of ${count(info.jobs.max_queued)}`} note={info.jobs.queued === 0 ? "nothing waits" : "wait for a slot"}><Meter part={info.jobs.queued / Math.max(1, info.jobs.max_queued)} class="grey" /></Tile>
        <Tile to={{ state: "succeeded" }} state="succeeded" word="Succeeded" value={count(good)} beside="in 24 h" note={ended === 0 ? "nothing ended" : `${Math.floor((good / ended) * 1000) / 10} % of what ended`}><Meter part={ended === 0 ? 0 : good / ended} class="green" /></Tile>
        <Tile to={{ state: "failed,timed_out,lost" }} state="failed" word="Failed" value={count(bad)} beside="in 24 h" note={[failed && `${failed} failed`, late && `${late} timed out`, lost && `${lost} lost`].filter(Boolean).join(", ") || "none"}>
          <div class="meter parts" aria-hidden="true">{([["failed", failed], ["timed_out", late], ["lost", lost]] as const).map(([state, number]) => number > 0 && <i key={state} class={`fill-${state}`} style={{ width: `${(number / bad) * 100}%` }} />)}</div>
        </Tile>
        <div class="card tile"><div class="k"><Icon name="checkup" />Service</div><div class="v">{info.free_bytes !== null ? bytes(info.free_bytes) : duration(Math.max(0, Math.floor((clock - Date.parse(info.started_at)) / 1000)))} <small>{info.free_bytes !== null ? "free" : "up"}</small></div><Meter part={info.free_bytes !== null && info.disk_bytes ? 1 - info.free_bytes / info.disk_bytes : 0} class="grey" /><div class="n">{info.draining ? "takes no new jobs" : `${bytes(info.output_bytes)} of output kept`}</div></div>
      </div>
      <div class="row charts">
      <div class="card">
        <header><h2>Ended</h2><span class="sub">{RANGES[range].word}</span><span class="legend">{(["succeeded", "failed", "timed_out", "canceled", "lost"] as const).filter((state) => buckets.some((one) => one.counts[state])).map((state) => <span key={state}><i class={`fill-${state}`} />{state.replace("_", " ")}</span>)}</span></header>
        <Bars buckets={buckets} range={RANGES[range].seconds} />
      </div>
      <div class="card">
        <header><h2>Running and waiting</h2><span class="legend"><span><i class="fill-running" />{info.jobs.running}</span><span><i class="fill-waiting" />{info.jobs.queued}</span></span></header>
        <Lines buckets={buckets} range={RANGES[range].seconds} />
      </div>
      <div class="card">
        <header><h2>Processor</h2><span class="sub">of what ended</span><span class="legend"><span>{duration(Math.floor(used))}</span></span></header>
        <Used buckets={buckets} range={RANGES[range].seconds} />
      </div>
      </div>
      <Table buckets={buckets} range={RANGES[range].seconds} />
      <div class="row lists">
        <div class="card">
          <header class="headed"><h2>Running now</h2><span class="sub">by processor</span><div class="grow" /><a class="muted small" href={link("jobs", { state: "running,paused" })}>All {info.jobs.running} running</a></header>
          {sorted.length === 0 ? <p class="muted pad">Nothing runs.</p> : (
            <table>
              <thead><tr><th>Job</th><th class="w-dur">Runs for</th><th class="w-cpu">Processor</th><th class="w-mem num">Memory</th><th class="w-mem num wide">PIDs</th></tr></thead>
              <tbody>{sorted.slice(0, 8).map((job) => {
                const use = uses.get(job.id);
                const seconds = ran(job, clock);
                return (
                  <tr key={job.id}>
                    <td><a class="name" href={link(`jobs/${job.id}`)}><bdi>{nameOf(job)}</bdi></a><bdi class="cmd">{job.command}</bdi></td>
                    <td><span class="two">{ranWords(job, clock)}{job.timeout_seconds !== null && <span class="faint"> of {duration(job.timeout_seconds)}</span>}</span>{seconds !== null && job.timeout_seconds !== null && <Meter part={seconds / job.timeout_seconds} />}</td>
                    <td class="w-cpu">{use?.cores != null ? <div class="use"><span class="num">{Math.round(use.cores * 100)} %</span><Meter part={use.cores / (info.cpus ?? 1)} /></div> : <span class="faint">–</span>}</td>
                    <td class="num w-mem">{use ? bytes(use.rss) : "–"}</td><td class="num wide">{use?.processes ?? "–"}</td>
                  </tr>
                );
              })}</tbody>
            </table>
          )}
        </div>
        <div class="card">
          <header class="headed"><h2>Needs a look</h2><span class="sub">last 24 h</span><div class="grow" />{bad > 0 && <a class="muted small" href={link("jobs", { state: "failed,timed_out,lost" })}>All {count(bad)} of them</a>}</header>
          {needs.length === 0 ? <p class="muted pad">Nothing does.</p> : (
            <ul class="needs">{needs.slice(0, 6).map((job) => <li key={job.id}><div class="top"><State state={job.state} /><a class="name cut grow" href={link(`jobs/${job.id}`)}><bdi>{nameOf(job)}</bdi></a><span class="faint small nowrap">{moment(job.finished_at ?? job.created_at, clock, settings.value.times === "utc" ? "utc" : "local")}</span></div><p><bdi>{result(job)}{job.finished_at && job.started_at ? ` after ${ranWords(job, clock)}` : ""}</bdi></p></li>)}</ul>
          )}
        </div>
      </div>
    </div>
  );
}

function Tile({ to, state, word, value, beside, note, children }: { to: Record<string, string>; state: Name; word: string; value: string; beside: string; note: string; children: preact.ComponentChildren }) {
  return (
    <a class="card tile link" href={link("jobs", to)}>
      <div class={`k ink-${state}`}><StateShape state={state} />{word}</div>
      <div class="v">{value} <small>{beside}</small></div>
      {children}
      <div class="n">{note}</div>
    </a>
  );
}
