// What is done to jobs.

import { key, Problem, send, sendThrough } from "../api/client.ts";
import type { Job } from "../api/model.ts";

export async function stop(id: string, wish: { grace?: number | null; signal?: string | null; reason?: string; force?: boolean } = {}): Promise<Job> {
  const query = { grace_seconds: wish.grace ?? null, signal: wish.signal ?? null, reason: wish.reason ?? null, force: wish.force ? true : null };
  return (await sendThrough("DELETE", `/jobs/${id}`, { query })).json();
}

export async function purge(id: string): Promise<void> {
  await send("DELETE", `/jobs/${id}`, { query: { purge: true, wait: 30 } });
}

export async function pause(id: string): Promise<Job> {
  return (await sendThrough("POST", `/jobs/${id}/pause`)).json();
}

export async function resume(id: string): Promise<Job> {
  return (await sendThrough("POST", `/jobs/${id}/resume`)).json();
}

/** A held job may start, or the next attempt. */
export async function release(id: string): Promise<Job> {
  return (await sendThrough("POST", `/jobs/${id}/release`)).json();
}

export async function signal(id: string, name: string, scope: string): Promise<number> {
  const answer = await send("POST", `/jobs/${id}/signal`, { body: { signal: name, scope } });
  return (await answer.json()).delivered_to;
}

export async function again(id: string, patch?: Record<string, unknown>): Promise<Job> {
  const body = patch === undefined ? {} : { body: patch, type: "application/merge-patch+json" };
  return (await sendThrough("POST", `/jobs/${id}/rerun`, { ...body, headers: key() })).json();
}

export async function create(body: unknown): Promise<Job> {
  return (await sendThrough("POST", "/jobs", { body, headers: key() })).json();
}

export async function patch(id: string, body: unknown): Promise<Job> {
  return (await send("PATCH", `/jobs/${id}`, { body, type: "application/merge-patch+json" })).json();
}

/** What became of each job of a request on many. */
interface Acted {
  results: { id: string; status: number; detail: string | null }[];
}

/** Does the same to all that match, if they are as many as somebody was shown, or fewer since some have ended meanwhile. */
export async function all(act: "stop" | "rerun" | "pause" | "resume", filter: Record<string, unknown>, shown: number): Promise<{ id: string; error: unknown }[]> {
  const headers = act === "rerun" ? key() : {};
  let expect = shown;
  for (;;) {
    try {
      const answer: Acted = await (await sendThrough("POST", `/jobs/${act}`, { body: { ...filter, expect }, headers })).json();
      return answer.results.filter(({ status }) => status >= 400).map(({ id, detail }) => ({ id, error: new Error(detail ?? "") }));
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== "count_differs" || error.matched === null || error.matched >= expect) throw error;
      expect = error.matched;
    }
  }
}

/** Does the same to many, a few at a time; says what became of each. */
export async function each(ids: string[], act: (id: string) => Promise<unknown>, tell: (done: number) => void): Promise<{ id: string; error: unknown }[]> {
  const out: { id: string; error: unknown }[] = [];
  let next = 0;
  let done = 0;
  const work = async (): Promise<void> => {
    while (next < ids.length) {
      const id = ids[next++]!;
      try {
        await act(id);
      } catch (error) {
        out.push({ id, error });
      }
      tell(++done);
    }
  };
  await Promise.all(Array.from({ length: Math.min(4, ids.length) }, work));
  return out;
}
