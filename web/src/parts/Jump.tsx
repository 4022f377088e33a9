// The box that leads to a job, a label or a view.

import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../api/client.ts";
import type { BasicJob } from "../api/model.ts";
import { isHub } from "../state/me.ts";
import { go, link } from "../router.ts";
import { Icon } from "./Icon.tsx";
import { StateShape } from "./State.tsx";

const VIEWS: [string, string][] = [["", "Overview"], ["jobs", "Jobs"], ["batches", "Batches"], ["queues", "Queues"], ["schedules", "Schedules"], ["events", "Events"], ["run", "Run"], ["access", "Access"], ["checkup", "Check-up"], ["settings", "Settings"]];

export function Jump() {
  const [text, setText] = useState("");
  const [found, setFound] = useState<BasicJob[]>([]);
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLFormElement>(null);
  const word = text.trim();
  useEffect(() => {
    setFound([]);
    if (word === "") return;
    const abort = new AbortController();
    const timer = setTimeout(() => {
      const query = /[=!]/.test(word) ? { label_selector: word } : { name_prefix: word };
      get<{ jobs: BasicJob[] }>("/jobs", { ...query, view: "basic", page_size: 6 }, abort.signal).then((list) => setFound(list.jobs), () => undefined);
    }, 150);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [word]);
  const to = (href: string): void => {
    setText("");
    setOpen(false);
    box.current?.querySelector("input")?.blur();
    go(href);
  };
  const choices: { href: string; key: string; content: preact.ComponentChildren }[] = [];
  if (/^[0-9a-f-]{36}$/.test(word)) choices.push({ href: link(`jobs/${word}`), key: word, content: <><Icon name="right" />This id</> });
  for (const job of found) choices.push({ href: link(`jobs/${job.id}`), key: job.id, content: <><span class={`state ${job.state}`}><StateShape state={job.state} /></span><bdi class="cut">{job.name ?? job.id}</bdi></> });
  for (const [path, name] of [...VIEWS, ...(isHub() ? [["nodes", "Nodes"] as [string, string]] : [])]) if (word !== "" && name.toLowerCase().startsWith(word.toLowerCase())) choices.push({ href: link(path), key: path, content: <><Icon name="right" />{name}</> });
  if (word !== "") choices.push({ href: link("jobs", /[=!]/.test(word) ? { label: word } : { name: word }), key: "list", content: <><Icon name="jobs" />All jobs with <bdi class="mono cut">{word}</bdi></> });
  const keys = (event: KeyboardEvent): void => {
    const all = [...(box.current?.querySelectorAll<HTMLElement>(".pop a") ?? [])];
    const at = all.indexOf(document.activeElement as HTMLElement);
    if (event.key === "ArrowDown") all[Math.min(at + 1, all.length - 1)]?.focus();
    else if (event.key === "ArrowUp") (at <= 0 ? box.current?.querySelector("input") : all[at - 1])?.focus();
    else if (event.key === "Escape") {
      setText("");
      (document.activeElement as HTMLElement | null)?.blur();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <form class="jump" role="search" aria-label="Whole service" ref={box} onKeyDown={keys} onFocusIn={() => setOpen(true)} onFocusOut={(event) => { if (!box.current?.contains(event.relatedTarget as Node | null)) setOpen(false); }} onSubmit={(event) => {
      event.preventDefault();
      if (choices[0]) to(choices[0].href);
    }}>
      <Icon name="search" />
      <input type="text" placeholder="Job, name or label" aria-label="Find a job" autocomplete="off" spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} />
      <kbd aria-hidden="true">/</kbd>
      {open && choices.length > 0 && (
        <div class="pop">{choices.map((choice) => <a key={choice.key} href={choice.href} onClick={(event) => { event.preventDefault(); to(choice.href); }}>{choice.content}</a>)}</div>
      )}
    </form>
  );
}
