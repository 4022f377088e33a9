// The list of jobs.

import { useEffect, useRef, useState } from "preact/hooks";
import { get, skew, words } from "../../api/client.ts";
import { type BasicJob, type Count, isTerminal, type State as Name, UNFINISHED } from "../../api/model.ts";
import { Icon, Logo } from "../../parts/Icon.tsx";
import { Broken, Button, Labels, Loading, Meter, now, say } from "../../parts/parts.tsx";
import { State } from "../../parts/State.tsx";
import { go, link, place, requery } from "../../router.ts";
import { again } from "../../state/acts.ts";
import { EVERYTHING, type Filter, fromAddress, NAMED, STATES, toAddress, toQuery } from "../../state/filter.ts";
import { actor, bytes, count, duration, moment } from "../../state/format.ts";
import { info, may } from "../../state/me.ts";
import { useResource } from "../../state/resource.ts";
import { settings } from "../../state/settings.ts";
import { acts, nameOf, ran, ranWords, result, TINT } from "../../state/words.ts";
import { StopDialog } from "../job/StopDialog.tsx";
import { type Column, COLUMNS, shown } from "./columns.ts";
import { type BulkAct, BulkBar, BulkDialog, frozen } from "./Bulk.tsx";
import { Filters } from "./Filters.tsx";
import { useList } from "./list.ts";
import { Peek } from "./Peek.tsx";
import { type Use, useUsage } from "./usage.ts";

const TABS: { key: string; word: string; states: Name[] }[] = [
  { key: "all", word: "All", states: [] },
  { key: "unfinished", word: "Unfinished", states: UNFINISHED },
  { key: "running", word: "Running", states: ["running"] },
  { key: "queued", word: "Queued", states: ["queued"] },
  { key: "succeeded", word: "Succeeded", states: ["succeeded"] },
  { key: "failed", word: "Failed", states: ["failed"] },
  { key: "timed_out", word: "Timed out", states: ["timed_out"] },
  { key: "canceled", word: "Canceled", states: ["canceled"] },
  { key: "lost", word: "Lost", states: ["lost"] },
];

export function Jobs() {
  const { query } = place.value;
  const filter = fromAddress(query);
  const token = query.get("page") ?? "";
  const list = useList(filter, token, settings.value.pageSize);
  const counts = useResource(() => get<{ counts: Count[] }>("/jobs/counts", toQuery(filter)), [toQuery(filter)], ["events"]);
  const [selected, setSelected] = useState<Map<string, BasicJob>>(new Map());
  const [everything, setEverything] = useState<Date | null>(null);
  const [cursor, setCursor] = useState<string | null>(null);
  const [bulk, setBulk] = useState<{ act: BulkAct; at: Date; jobs: BasicJob[] } | null>(null);
  const [stopping, setStopping] = useState<BasicJob | null>(null);
  const [peek, setPeek] = useState<string | null>(null);
  const anchor = useRef<string | null>(null);
  const jobs = list.jobs ?? [];
  const uses = useUsage(jobs.filter((job) => job.state === "running" || job.state === "stopping").slice(0, 200).map((job) => job.id));

  const choose = (next: Filter): void => {
    clear();
    requery(toAddress(next));
  };
  const clear = (): void => {
    setSelected(new Map());
    setEverything(null);
  };
  const page = (next: string | null): void => {
    const to = toAddress(filter);
    if (next) to.set("page", next);
    requery(to);
  };
  const toggle = (job: BasicJob, range: boolean): void => {
    const next = new Map(selected);
    const from = range ? jobs.findIndex((one) => one.id === anchor.current) : -1;
    const to = jobs.findIndex((one) => one.id === job.id);
    if (from >= 0) for (const one of jobs.slice(Math.min(from, to), Math.max(from, to) + 1)) next.set(one.id, one);
    else if (next.has(job.id)) next.delete(job.id);
    else next.set(job.id, job);
    anchor.current = job.id;
    setEverything(null);
    setSelected(next);
  };
  const total = totalOf(counts.data?.counts, filter.states);
  const selectAll = async (): Promise<void> => {
    const at = new Date(Date.now() + skew.value);
    try {
      const all = await frozen(filter, at);
      setSelected(new Map(all.map((job) => [job.id, job])));
      setEverything(at);
    } catch (error) {
      say(words(error), true);
    }
  };
  const runAgain = async (job: BasicJob): Promise<void> => {
    try {
      const made = await again(job.id);
      say(`Runs again: ${nameOf(made)}`);
    } catch (error) {
      say(words(error), true);
    }
  };
  useListKeys({
    jobs, cursor, setCursor, open: (id) => go(link(`jobs/${id}`)), peek: (id) => setPeek(peek === id ? null : id), toggle,
    stop: (job) => { if (may("operate") && acts(job.state).stop) setStopping(job); }, again: (job) => { if (may("operate")) void runAgain(job); },
    next: () => { if (list.next) page(list.next); }, back: () => { if (token !== "") history.back(); },
    label: () => document.querySelector<HTMLInputElement>(".filter input")?.focus(),
  });

  const tab = TABS.find((one) => same(one.states, filter.states))?.key ?? "";
  return (
    <>
      <div class="listhead">
        <nav class="tabs" aria-label="States">
          {TABS.map((one) => {
            const number = totalOf(counts.data?.counts, one.states);
            const to = toAddress({ ...filter, states: one.states });
            return <a key={one.key} href={link("jobs", to)} aria-current={tab === one.key ? "true" : undefined} onClick={clear}>{one.word} {number !== null && <b>{number}</b>}</a>;
          })}
        </nav>
        {list.fresh > 0 && <button type="button" class="pill" onClick={() => { list.reload(); document.getElementById("main")?.scrollTo(0, 0); }}><Icon name="up" />{list.fresh >= settings.value.pageSize ? `${settings.value.pageSize}+` : list.fresh} new</button>}
      </div>
      <Filters filter={filter} onFilter={choose} />
      {list.error !== null && list.jobs === null ? <Broken error={list.error} again={list.reload} /> : list.jobs === null ? <Loading rows={10} /> : jobs.length === 0 ? <Nothing filter={filter} counts={counts.data?.counts} onFilter={choose} /> : (
        <div class="card table">
          <table class="jobs">
            <thead>
              <tr>
                <th class="w-check wide"><input type="checkbox" aria-label="Select this page" checked={jobs.every((job) => selected.has(job.id))} onChange={(event) => { setEverything(null); setSelected(event.currentTarget.checked ? new Map(jobs.map((job) => [job.id, job])) : new Map()); }} /></th>
                <th class="w-state">State</th><th>Job</th>{COLUMNS.filter(({ key }) => shown(key)).map(({ key, word, width }) => <th key={key} class={`${width} wide`}>{word}</th>)}<th class="w-by num wide">By</th><th class="w-narrow num narrow">For</th>
              </tr>
            </thead>
            <tbody>
              {jobs.map((job) => <JobRow key={job.id} job={job} use={uses.get(job.id)} selected={selected.has(job.id)} cursor={cursor === job.id} onToggle={toggle} onStop={() => setStopping(job)} onAgain={() => void runAgain(job)} onPeek={() => setPeek(job.id)} />)}
            </tbody>
          </table>
        </div>
      )}
      {(token !== "" || list.next) && (
        <div class="pager">
          {token !== "" && <Button small icon="left" onClick={() => history.back()}>Back</Button>}
          {token !== "" && <Button small onClick={() => page(null)}>First page</Button>}
          {list.next && <Button small onClick={() => page(list.next)}>Next {settings.value.pageSize} <Icon name="right" /></Button>}
        </div>
      )}
      {selected.size > 0 && may("operate") && <BulkBar selected={[...selected.values()]} total={selected.size >= jobs.length && (list.next !== null || token !== "") ? total : null} all={everything !== null} onAll={() => void selectAll()} onClear={clear} onAct={(act) => setBulk({ act, at: everything ?? new Date(), jobs: [...selected.values()] })} />}
      {bulk && <BulkDialog act={bulk.act} jobs={bulk.jobs} at={bulk.at} filter={everything ? filter : null} filtered={everything ? wordsOf(filter) : ""} onClose={(done) => { setBulk(null); if (done) clear(); }} />}
      {stopping && <StopDialog job={{ id: stopping.id, name: nameOf(stopping), state: stopping.state }} onClose={() => setStopping(null)} />}
      {peek && <Peek id={peek} onClose={() => setPeek(null)} />}
    </>
  );
}

function JobRow({ job, use, selected, cursor, onToggle, onStop, onAgain, onPeek }: { job: BasicJob; use: Use | undefined; selected: boolean; cursor: boolean; onToggle: (job: BasicJob, range: boolean) => void; onStop: () => void; onAgain: () => void; onPeek: () => void }) {
  // The clock of a job that has ended stands still: its row is not drawn once a second.
  const clock = (isTerminal(job.state) && settings.value.times !== "relative" ? now.peek() : now.value) + skew.value;
  const seconds = ran(job, clock);
  const cpus = info.value?.cpus ?? 1;
  const running = !isTerminal(job.state);
  const why = result(job) || (job.pty ? "terminal" : "");
  const cell = (column: Column) => {
    switch (column) {
      case "created": return <td key={column} class="wide muted" title={job.created_at}>{moment(job.created_at, clock, settings.value.times)}</td>;
      case "duration": return (
        <td key={column} class="wide">
          <span class="two">{ranWords(job, clock)}{running && seconds !== null && job.timeout_seconds !== null && <span class="faint"> of {duration(job.timeout_seconds)}</span>}</span>
          {running && seconds !== null && job.timeout_seconds !== null && <Meter part={seconds / job.timeout_seconds} />}
        </td>
      );
      case "cpu": return <td key={column} class="wide">{use?.cores != null ? <div class="use"><span class="num">{Math.round(use.cores * 100)} %</span><Meter part={use.cores / cpus} /></div> : <span class="faint">–</span>}</td>;
      case "memory": return <td key={column} class="num wide">{use ? bytes(use.rss) : <span class="faint">–</span>}</td>;
      case "queue": return <td key={column} class="wide muted cut"><bdi>{job.queue}</bdi></td>;
      case "priority": return <td key={column} class="num wide muted">{job.priority}</td>;
      case "result": return <td key={column} class={`wide ${TINT[job.state] ?? "muted"}`} title={job.state_message ?? why}><bdi>{why}</bdi></td>;
    }
  };
  return (
    <tr class={selected ? "sel" : ""} data-id={job.id} data-cursor={cursor ? "" : undefined}>
      <td class="wide"><input type="checkbox" aria-label={`Select ${nameOf(job)}`} checked={selected} onClick={(event) => onToggle(job, event.shiftKey)} /></td>
      <td><State state={job.state} /></td>
      <td>
        <span class="first"><a class={`name ${job.name === null ? "mono" : ""}`} href={link(`jobs/${job.id}`)}><bdi>{nameOf(job)}</bdi></a><span class="wide labels"><Labels labels={job.labels} most={2} />{job.node !== undefined && <a class="label" title="All jobs of this node" href={link("jobs", { node: job.node })}><bdi>on {job.node}</bdi></a>}</span></span>
        <bdi class="cmd" title={job.command}>{job.command}</bdi>
      </td>
      {COLUMNS.filter(({ key }) => shown(key)).map(({ key }) => cell(key))}
      <td class="num wide by">
        <span class="muted">{actor(job.created_by)}</span>
        <span class="acts">
          <Button small icon="output" label={`Last lines of ${nameOf(job)}`} onClick={onPeek} />
          {may("operate") && <Button small icon="again" label={`Run ${nameOf(job)} again`} onClick={onAgain} />}
          {may("operate") && running && <Button small icon="stop" kind="stop" label={`Stop ${nameOf(job)}`} onClick={onStop} />}
        </span>
      </td>
      <td class="num narrow"><span class="two">{running ? ranWords(job, clock) : moment(job.created_at, clock, "local").replace(/^([0-9]{2}:[0-9]{2}):[0-9]{2}$/, "$1")}</span><span class={`two small ${TINT[job.state] ?? "muted"}`}>{use?.cores != null ? `${Math.round(use.cores * 100)} %` : why}</span></td>
    </tr>
  );
}

function same(a: Name[], b: Name[]): boolean {
  return a.length === b.length && a.every((state) => b.includes(state));
}

function totalOf(counts: Count[] | undefined, states: Name[]): string | null {
  if (!counts) return null;
  const wanted = counts.filter((one) => states.length === 0 || states.includes(one.state));
  return `${count(wanted.reduce((sum, one) => sum + one.count, 0))}${wanted.every((one) => one.exact) ? "" : "+"}`;
}

function wordsOf(filter: Filter): string {
  const out: string[] = [];
  if (filter.states.length > 0) out.push(filter.states.join(" or "));
  if (filter.labels.length > 0) out.push(filter.labels.join(", "));
  if (filter.name !== "") out.push(`a name in ${filter.name}…`);
  for (const name of NAMED) if (filter[name] !== "") out.push(`${name} ${filter[name]}`);
  if (filter.after !== "") out.push(`created since ${moment(filter.after, Date.now(), "local")}`);
  return out.join(", ") || "any name and state";
}

function Nothing({ filter, counts, onFilter }: { filter: Filter; counts: Count[] | undefined; onFilter: (filter: Filter) => void }) {
  if (toAddress({ ...filter, order: "desc" }).toString() === "") {
    return (
      <div class="card empty">
        <Logo size={30} />
        <h2>No job yet</h2>
        <p class="muted">Run one here, or from a shell:</p>
        <code class="mono box">procession run -- make -C /srv/site</code>
        {may("operate") && <a class="btn go" href={link("run")}><Icon name="plus" />Run</a>}
      </div>
    );
  }
  const others = (counts ?? []).filter((one) => one.count > 0 && !filter.states.includes(one.state));
  const sum = others.reduce((total, one) => total + one.count, 0);
  return (
    <div class="card empty">
      <h2>No job is {filter.states.length > 0 && filter.states.length < STATES.length ? filter.states.join(" or ").replaceAll("_", " ") : "like this"}</h2>
      <p class="muted"><bdi>{wordsOf(filter)}</bdi>: {filter.states.length > 0 && sum > 0 ? `${count(sum)} in other states.` : "nothing matches."}</p>
      <div class="inline">
        {filter.states.length > 0 && <Button small onClick={() => onFilter({ ...filter, states: [] })}>All states</Button>}
        <Button small onClick={() => onFilter({ ...EVERYTHING, states: filter.states })}>Without the filter</Button>
      </div>
    </div>
  );
}

interface ListKeys {
  jobs: BasicJob[];
  cursor: string | null;
  setCursor: (id: string) => void;
  open: (id: string) => void;
  peek: (id: string) => void;
  toggle: (job: BasicJob, range: boolean) => void;
  stop: (job: BasicJob) => void;
  again: (job: BasicJob) => void;
  next: () => void;
  back: () => void;
  label: () => void;
}

function useListKeys(keys: ListKeys): void {
  const latest = useRef(keys);
  latest.current = keys;
  useEffect(() => {
    const hear = (event: KeyboardEvent): void => {
      const { jobs, cursor, ...act } = latest.current;
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target instanceof HTMLElement && event.target.closest("input:not([type=checkbox]), textarea, select, dialog, [role=menu]") !== null) return;
      const at = jobs.findIndex((job) => job.id === cursor);
      const job = jobs[at];
      const to = (index: number): void => {
        const next = jobs[Math.min(Math.max(0, index), jobs.length - 1)];
        if (!next) return;
        act.setCursor(next.id);
        document.querySelector(`tr[data-id="${CSS.escape(next.id)}"]`)?.scrollIntoView({ block: "nearest" });
      };
      const onControl = event.target instanceof HTMLElement && event.target.closest("a, button, input") !== null;
      if (event.key === "ArrowDown") to(at + 1);
      else if (event.key === "ArrowUp") to(at < 0 ? 0 : at - 1);
      else if (event.key === "Enter" && job && !onControl) act.open(job.id);
      else if (!settings.value.keys) return;
      else if (event.key === "j") to(at + 1);
      else if (event.key === "k") to(at < 0 ? 0 : at - 1);
      else if (event.key === " " && job && !onControl) act.peek(job.id);
      else if (event.key.toLowerCase() === "x" && job) act.toggle(job, event.shiftKey);
      else if (event.key === "s" && job) act.stop(job);
      else if (event.key === "r" && job) act.again(job);
      else if (event.key === "l") act.label();
      else if (event.key === "]") act.next();
      else if (event.key === "[") act.back();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", hear);
    return () => document.removeEventListener("keydown", hear);
  }, []);
}
