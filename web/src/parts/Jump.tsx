// The box that leads to a job, a label or a view, and does what can be done where one is.

import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../api/client.ts";
import type { BasicJob } from "../api/model.ts";
import { isHub } from "../state/me.ts";
import { go, link } from "../router.ts";
import { actions, fits } from "../state/actions.ts";
import { Icon } from "./Icon.tsx";
import { StateShape } from "./State.tsx";

const VIEWS: [string, string][] = [["", "Overview"], ["jobs", "Jobs"], ["batches", "Batches"], ["queues", "Queues"], ["schedules", "Schedules"], ["events", "Events"], ["run", "Run"], ["access", "Access"], ["checkup", "Check-up"], ["settings", "Settings"]];

export function Jump() {
  const [text, setText] = useState("");
  const [answer, setAnswer] = useState<{ word: string; jobs: BasicJob[] }>({ word: "", jobs: [] });
  const [open, setOpen] = useState(false);
  // Enter waits until it is known which jobs have this name: what comes first then is what is meant.
  const entered = useRef("");
  const box = useRef<HTMLFormElement>(null);
  const word = text.trim();
  const isCommand = word.startsWith(">");
  const isKnown = isCommand || answer.word === word;
  const found = answer.word === word ? answer.jobs : [];
  useEffect(() => {
    if (word === "" || isCommand) return;
    const abort = new AbortController();
    const timer = setTimeout(() => {
      const query = /[=!]/.test(word) ? { label_selector: word } : { name_prefix: word };
      get<{ jobs: BasicJob[] }>("/jobs", { ...query, view: "basic", page_size: 6 }, abort.signal).then((list) => list.jobs, () => []).then((jobs) => { if (!abort.signal.aborted) setAnswer({ word, jobs }); });
    }, 150);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [word]);
  const leave = (): void => {
    setText("");
    entered.current = "";
    setOpen(false);
    (document.activeElement as HTMLElement | null)?.blur();
  };
  const choices: { href?: string; run: () => void; key: string; content: preact.ComponentChildren }[] = [];
  const offer = ({ href, ...choice }: { href: string; key: string; content: preact.ComponentChildren }): void => void choices.push({ ...choice, href, run: () => go(href) });
  if (/^[0-9a-f-]{36}$/.test(word)) offer({ href: link(`jobs/${word}`), key: word, content: <><Icon name="right" />This id</> });
  for (const job of found) offer({ href: link(`jobs/${job.id}`), key: job.id, content: <><span class={`state ${job.state}`}><StateShape state={job.state} /></span><bdi class="cut">{job.name ?? job.id}</bdi></> });
  for (const [path, name] of [...VIEWS, ...(isHub() ? [["nodes", "Nodes"] as [string, string]] : [])]) if (word !== "" && name.toLowerCase().startsWith(word.toLowerCase())) offer({ href: link(path), key: path, content: <><Icon name="right" />{name}</> });
  for (const { key, word: name, icon, run } of word === "" ? [] : actions().filter((one) => fits(one, word))) choices.push({ run, key: `act ${key}`, content: <><Icon name={icon} /><bdi class="cut">{name}</bdi></> });
  if (word !== "" && !isCommand) offer({ href: link("jobs", /[=!]/.test(word) ? { label: word } : { name: word }), key: "list", content: <><Icon name="jobs" />All jobs with <bdi class="mono cut">{word}</bdi></> });
  const take = (choice: { run: () => void } | undefined): void => {
    if (!choice) return;
    leave();
    choice.run();
  };
  useEffect(() => {
    if (word !== "" && isKnown && entered.current === word) take(choices[0]);
  }, [word, isKnown]);
  const keys = (event: KeyboardEvent): void => {
    const all = [...(box.current?.querySelectorAll<HTMLElement>(".pop > *") ?? [])];
    const at = all.indexOf(document.activeElement as HTMLElement);
    if (event.key === "ArrowDown") all[Math.min(at + 1, all.length - 1)]?.focus();
    else if (event.key === "ArrowUp") (at <= 0 ? box.current?.querySelector("input") : all[at - 1])?.focus();
    else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <form class="jump" role="search" aria-label="Whole service" ref={box} onKeyDown={keys} onFocusIn={() => setOpen(true)} onFocusOut={(event) => { if (!box.current?.contains(event.relatedTarget as Node | null)) setOpen(false); }} onSubmit={(event) => {
      event.preventDefault();
      if (isKnown || choices[0]?.href !== undefined) take(choices[0]);
      else entered.current = word;
    }}>
      <Icon name="search" />
      <input type="text" placeholder="Job, label, view or action" aria-label="Find a job, or do something" autocomplete="off" spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} />
      <kbd aria-hidden="true">/</kbd>
      {open && choices.length > 0 && (
        <div class="pop">{choices.map((choice) => choice.href === undefined ? <button key={choice.key} type="button" onClick={() => take(choice)}>{choice.content}</button> : <a key={choice.key} href={choice.href} onClick={(event) => { event.preventDefault(); take(choice); }}>{choice.content}</a>)}</div>
      )}
    </form>
  );
}
