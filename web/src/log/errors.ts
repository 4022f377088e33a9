// Where in a log standard error is: the service looks for it, and what comes later is looked for from there on.

import { send } from "../api/client.ts";
import { Hits } from "./find.ts";
import { lines } from "./records.ts";

/** More lines are not marked on the ruler. */
const MOST = 20_000;
/** Between two looks at a log that grows. */
const PAUSE = 3000;
const EVERY_LINE = { q: "(?-u)^.", regex: true, stream: "stderr" };

export class Errors {
  readonly hits = new Hits();
  #at = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #abort: AbortController | null = null;
  readonly #path: string;
  readonly #changed: () => void;

  constructor(id: string, changed: () => void) {
    this.#path = `/jobs/${id}/output/search`;
    this.#changed = changed;
  }

  /** The log reaches so far. */
  look(next: number): void {
    if (next <= this.#at || this.#timer !== undefined || this.#abort !== null || this.hits.count >= MOST) return;
    this.#timer = setTimeout(() => void this.#run(next), this.#at === 0 ? 300 : PAUSE);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#abort?.abort();
  }

  async #run(next: number): Promise<void> {
    this.#timer = undefined;
    const abort = new AbortController();
    this.#abort = abort;
    try {
      const answer = await send("GET", this.#path, { query: { ...EVERY_LINE, offset: this.#at, limit: MOST - this.hits.count }, signal: abort.signal });
      for await (const line of lines(answer.body!)) {
        const json = JSON.parse(line);
        if (json.type === "match") this.hits.push({ offset: json.offset, length: json.length, line: null });
        else if (json.type === "progress") this.#at = Math.max(this.#at, json.scanned_to);
      }
      this.#at = Math.max(this.#at, next);
    } catch {
      // The next look may do.
    }
    if (abort.signal.aborted) return;
    this.#abort = null;
    this.#changed();
  }
}

/** The next line of standard error at or behind a byte; `null` where there is none. */
export async function nextError(id: string, offset: number): Promise<number | null> {
  const answer = await send("GET", `/jobs/${id}/output/search`, { query: { ...EVERY_LINE, offset, limit: 1 } });
  for await (const line of lines(answer.body!)) {
    const json = JSON.parse(line);
    if (json.type === "match") return json.offset;
  }
  return null;
}
