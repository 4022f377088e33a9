// The search: the service reads the log, hits come as it finds them.

import type { RefObject } from "preact";
import { Problem, send, words } from "../api/client.ts";
import { Icon } from "../parts/Icon.tsx";
import { count } from "../state/format.ts";
import { Hits } from "./find.ts";
import type { Extent } from "./place.ts";
import { lines } from "./records.ts";
import type { Which } from "./source.ts";

export interface FindWish {
  text: string;
  regex: boolean;
  sameCase: boolean;
}

/** Between two looks at what a log has become. */
const PAUSE = 1000;

/** Until the log is longer than this. */
function grown(next: () => number, from: number, signal: AbortSignal): Promise<void> {
  return new Promise((done, failed) => {
    const timer = setInterval(() => {
      if (document.hidden || next() <= from) return;
      clearInterval(timer);
      done();
    }, PAUSE);
    signal.addEventListener("abort", () => {
      clearInterval(timer);
      failed(signal.reason);
    });
  });
}

/** Begins a search, also of what is written later, `next` being the end of the log; what is found so far is told again and again. The answer ends it. */
export function search(id: string, which: Which, wish: FindWish, next: () => number, tell: (hits: Hits, problem: string) => void): () => void {
  const abort = new AbortController();
  if (wish.text === "") {
    tell(new Hits(), "");
    return () => undefined;
  }
  const run = async (): Promise<void> => {
    const hits = new Hits();
    try {
      const query = { q: wish.text, regex: wish.regex, case: wish.sameCase, stream: which === "all" ? null : which };
      for (;;) {
        const until = next();
        const answer = await send("GET", `/jobs/${id}/output/search`, { query: { ...query, offset: hits.scannedTo || null }, signal: abort.signal });
        let told = 0;
        for await (const line of lines(answer.body!)) {
          const json = JSON.parse(line);
          if (json.type === "match") hits.push({ offset: json.offset, length: json.length, line: json.line ?? null });
          else if (json.type === "progress") hits.scannedTo = json.scanned_to;
          else if (json.type === "end") hits.done = true;
          if (performance.now() - told > 100) {
            told = performance.now();
            tell(hits, "");
          }
        }
        hits.done = true;
        hits.scannedTo = Math.max(hits.scannedTo, until, (hits.list.at(-1)?.offset ?? -1) + 1);
        tell(hits, "");
        await grown(next, hits.scannedTo, abort.signal);
      }
    } catch (error) {
      if (!abort.signal.aborted) tell(hits, error instanceof Problem ? (error.errors[0]?.detail ?? error.detail) : words(error));
    }
  };
  const timer = setTimeout(() => void run(), 200);
  return () => {
    clearTimeout(timer);
    abort.abort();
  };
}

export function Finder({ box, wish, hits, problem, current, extent, onWish, onStep }: { box: RefObject<HTMLInputElement | null>; wish: FindWish; hits: Hits; problem: string; current: number; extent: Extent; onWish: (wish: FindWish) => void; onStep: (by: 1 | -1) => void }) {
  const keys = (event: KeyboardEvent): void => {
    if (event.key === "Enter") onStep(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") {
      if (wish.text !== "") onWish({ ...wish, text: "" });
      else (event.currentTarget as HTMLElement).closest(".log")?.querySelector<HTMLElement>(".lines")?.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class={`find grow ${wish.text !== "" ? "on" : ""}`} role="search" aria-label="This output">
      <Icon name="search" />
      <input ref={box} type="text" class="mono" placeholder="Find in all of it" aria-label="Find in the whole output" spellcheck={false} autocomplete="off" value={wish.text} aria-invalid={problem !== ""}
        onInput={(event) => onWish({ ...wish, text: event.currentTarget.value })} onKeyDown={keys} />
      <span class={problem === "" ? "hits" : "hits bad"} aria-live="polite" title={problem}>{wish.text === "" ? "" : problem !== "" ? problem : told(hits, current, extent)}</span>
      <button type="button" class="tick" aria-pressed={wish.regex} aria-label="Regular expression" title="Regular expression" onClick={() => onWish({ ...wish, regex: !wish.regex })}>.*</button>
      <button type="button" class="tick" aria-pressed={wish.sameCase} aria-label="Same case" title="Same case" onClick={() => onWish({ ...wish, sameCase: !wish.sameCase })}>Aa</button>
      <button type="button" class="tick" aria-label="Previous hit" disabled={hits.list.length === 0} onClick={() => onStep(-1)}><Icon name="up" /></button>
      <button type="button" class="tick" aria-label="Next hit" disabled={hits.list.length === 0} onClick={() => onStep(1)}><Icon name="down" /></button>
    </div>
  );
}

function told(hits: Hits, current: number, extent: Extent): string {
  const all = hits.count === 1 ? "1 hit" : `${count(hits.count)} hits`;
  const at = current >= 0 ? `${count(current + 1)} of ${count(hits.count)}` : all;
  if (hits.done) return `${at} · all of the log`;
  const part = (hits.scannedTo - extent.first) / Math.max(1, extent.next - extent.first);
  return `${at} · ${Math.floor(Math.min(1, Math.max(0, part)) * 100)} %`;
}
