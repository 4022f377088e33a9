// Doing something to many jobs: which ones is settled before anything happens, and told in words.

import { useState } from "preact/hooks";
import { get, words } from "../../api/client.ts";
import { type BasicJob, isTerminal, type State } from "../../api/model.ts";
import { Icon } from "../../parts/Icon.tsx";
import { Button, Dialog, Field, Input } from "../../parts/parts.tsx";
import { again, all, each, patch, pause, resume, stop } from "../../state/acts.ts";
import { type Filter, STATES, toQuery } from "../../state/filter.ts";
import { count } from "../../state/format.ts";
import { acts, nameOf } from "../../state/words.ts";

export type BulkAct = "stop" | "again" | "pause" | "resume" | "priority";

const WORDS: Record<BulkAct, [string, string, string]> = { stop: ["Stop", "stopped", "stopped"], again: ["Run again", "run again", "run again"], pause: ["Pause", "paused", "paused"], resume: ["Resume", "resumed", "resumed"], priority: ["Set the priority of", "set", "changed"] };

/** As many as one request acts on. */
const MOST = 10_000;

/** The filter as the API takes it: what was there at this moment. */
function before(filter: Filter, at: Date): Record<string, string> {
  const end = filter.before !== "" && Date.parse(filter.before) < at.getTime() ? filter.before : at.toISOString();
  return { ...toQuery(filter), created_before: end };
}

/** Every job that matches and was there at this moment. */
export async function frozen(filter: Filter, at: Date): Promise<BasicJob[]> {
  const out: BasicJob[] = [];
  let token: string | null = null;
  do {
    const page: { jobs: BasicJob[]; next_page_token: string | null } = await get("/jobs", { ...before(filter, at), state: filter.states.join(",") || null, view: "basic", page_size: 1000, page_token: token });
    out.push(...page.jobs);
    token = page.next_page_token;
  } while (token !== null && out.length < MOST);
  return out;
}

/** The states whose jobs an act is for, of those that are shown. */
function statesFor(act: BulkAct, filter: Filter): State[] {
  const fits = (state: State): boolean => (act === "stop" ? !isTerminal(state) : act === "pause" || act === "resume" ? acts(state)[act] : true);
  return STATES.filter((state) => fits(state) && (filter.states.length === 0 || filter.states.includes(state)));
}

export function BulkBar({ selected, total, all, onAll, onAct, onClear }: { selected: BasicJob[]; total: string | null; all: boolean; onAll: () => void; onAct: (act: BulkAct) => void; onClear: () => void }) {
  const fits = (act: Exclude<BulkAct, "again">): boolean => selected.some((job) => acts(job.state)[act]);
  return (
    <div class="bulk" role="region" aria-label="What is selected">
      <b>{count(selected.length)} selected</b>
      {total !== null && !all && <><span class="faint wide">of {total} that match</span><button type="button" class="plain" onClick={onAll}>Select all {total}</button></>}
      <span class="sep" />
      <Button small icon="again" onClick={() => onAct("again")}>Again</Button>
      {fits("pause") && <Button small icon="pause" onClick={() => onAct("pause")}>Pause</Button>}
      {fits("resume") && <Button small icon="play" onClick={() => onAct("resume")}>Resume</Button>}
      {fits("priority") && <Button small icon="up" onClick={() => onAct("priority")}>Priority …</Button>}
      {fits("stop") && <Button small icon="stop" kind="stop" onClick={() => onAct("stop")}>Stop …</Button>}
      <Button small kind="quiet" icon="close" label="Clear the selection" onClick={onClear} />
    </div>
  );
}

/** `filter`: all that match were selected, and `filtered` says in words which these are. */
export function BulkDialog({ act, jobs, at, filter, filtered, onClose }: { act: BulkAct; jobs: BasicJob[]; at: Date; filter: Filter | null; filtered: string; onClose: (done: boolean) => void }) {
  const [typed, setTyped] = useState("");
  const [done, setDone] = useState<number | null>(null);
  const [failed, setFailed] = useState<{ id: string; error: unknown }[] | null>(null);
  const [problem, setProblem] = useState("");
  const hit = act === "again" ? jobs : jobs.filter((job) => acts(job.state)[act]);
  const [verb, , past] = WORDS[act];
  const many = hit.length > 100;
  const [priority, setPriority] = useState("0");
  const wrong = act === "priority" && !(/^-?[0-9]{1,7}$/.test(priority.trim()) && Math.abs(Number(priority)) <= 1_000_000);
  const run = async (): Promise<void> => {
    setDone(0);
    if (filter !== null && act !== "priority" && jobs.length < MOST) {
      try {
        const out = await all(act === "again" ? "rerun" : act, { ...before(filter, at), state: statesFor(act, filter) }, hit.length);
        return out.length === 0 ? onClose(true) : setFailed(out);
      } catch (error) {
        setDone(null);
        return setProblem(words(error));
      }
    }
    const how: Record<BulkAct, (id: string) => Promise<unknown>> = { stop: (id) => stop(id), again: (id) => again(id), pause, resume, priority: (id) => patch(id, { priority: Number(priority) }) };
    const out = await each(hit.map((job) => job.id), how[act], setDone);
    if (out.length === 0) onClose(true);
    else setFailed(out);
  };
  if (failed !== null) {
    return (
      <Dialog title={`${count(failed.length)} of ${count(hit.length)} could not be ${past}`} onClose={() => onClose(true)}>
        <ul class="scroll">{failed.slice(0, 50).map(({ id, error }) => <li key={id} class="small"><bdi>{nameOf(hit.find((job) => job.id === id) ?? { name: null, id })}</bdi>: <span class="muted">{words(error)}</span></li>)}</ul>
        <div class="buttons"><Button onClick={() => onClose(true)}>Close</Button></div>
      </Dialog>
    );
  }
  return (
    <Dialog title={hit.length === 1 ? `${verb} ${nameOf(hit[0]!)}?` : `${verb} ${count(hit.length)} jobs?`} onClose={() => { if (done === null) onClose(false); }}>
      <p class="muted">
        {filtered === "" ? "Those that you selected" : <>All with <bdi class="mono">{filtered}</bdi> that were created before {at.toLocaleTimeString()}</>}
        {act === "priority" ? " and wait: the highest starts first, over all queues." : act === "stop" ? " and have not ended: each gets its stop signal, its grace, and then SIGKILL for what is left." : "."} {filtered !== "" && "Newer ones are left alone."}
      </p>
      <p class="small"><bdi>{hit.slice(0, 5).map(nameOf).join(", ")}</bdi>{hit.length > 5 && <span class="faint"> and {count(hit.length - 5)} more</span>}</p>
      {act === "priority" && <Field id="bulk-priority" label="Priority" hint="-1000000 to 1000000" error={wrong ? "must be a whole number from -1000000 to 1000000" : undefined}><Input id="bulk-priority" inputMode="numeric" value={priority} bad={wrong} onInput={(event) => setPriority(event.currentTarget.value)} /></Field>}
      {many && <Field id="bulk-count" label={`Type ${hit.length} to go on`}><Input id="bulk-count" inputMode="numeric" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} /></Field>}
      {problem !== "" && <p class="tint-red" role="alert">{problem}</p>}
      {done !== null && <p role="status">{count(done)} of {count(hit.length)}</p>}
      <div class="buttons">
        <Button disabled={done !== null} onClick={() => onClose(false)}>Leave them</Button>
        <button type="button" class={`btn ${act === "stop" ? "stop" : "go"}`} disabled={hit.length === 0 || wrong || done !== null || (many && typed.trim() !== String(hit.length))} onClick={() => void run()}><Icon name={act === "stop" ? "stop" : act === "pause" ? "pause" : act === "resume" ? "play" : act === "priority" ? "up" : "again"} />{verb} {count(hit.length)}</button>
      </div>
    </Dialog>
  );
}
