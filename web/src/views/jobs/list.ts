// The page of jobs that is shown. Rows do not move under the hand: what is new waits.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { get } from "../../api/client.ts";
import { watch } from "../../api/hints.ts";
import type { BasicJob, Job } from "../../api/model.ts";
import { commandLine } from "../../state/format.ts";
import { type Filter, toQuery } from "../../state/filter.ts";
import { basic } from "../../state/words.ts";
import { merged } from "./merge.ts";

interface Page {
  jobs: BasicJob[];
  next_page_token: string | null;
}

export interface List {
  jobs: BasicJob[] | null;
  next: string | null;
  /** How many newer ones wait. */
  fresh: number;
  error: unknown;
  reload: () => void;
  /** These have changed here. */
  put: (job: BasicJob) => void;
}

export function useList(filter: Filter, token: string, size: number): List {
  const name = JSON.stringify([filter, token, size]);
  const [state, set] = useState<{ name: string; jobs: BasicJob[] | null; next: string | null; fresh: number; error: unknown }>({ name: "", jobs: null, next: null, fresh: 0, error: null });
  const latest = useRef<Page | null>(null);
  const shown = useRef<BasicJob[] | null>(null);
  const again = useRef<(replace: boolean) => void>(() => undefined);
  // Asked for before it is drawn that there is nothing yet.
  useLayoutEffect(() => {
    const abort = new AbortController();
    let busy = false;
    let stale = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    shown.current = null;
    const query = { ...toQuery(filter), state: filter.states.join(",") || null, order_by: `created_at ${filter.order}`, view: "basic", page_size: size, page_token: token || null };
    const run = async (replace: boolean): Promise<void> => {
      busy = true;
      stale = false;
      try {
        const page = await get<Page>("/jobs", query, abort.signal);
        latest.current = page;
        if (replace || shown.current === null || shown.current.length === 0) {
          shown.current = page.jobs;
          set({ name, jobs: page.jobs, next: page.next_page_token, fresh: 0, error: null });
        } else {
          const { jobs, fresh, gone } = merged(shown.current, page.jobs);
          const others = await Promise.all(gone.slice(0, 20).map((id) => get<Job>(`/jobs/${id}`, {}, abort.signal).then((job) => basic(job, commandLine(job.spec)), () => null)));
          const byId = new Map(others.filter((job) => job !== null).map((job) => [job.id, job]));
          shown.current = jobs.map((job) => byId.get(job.id) ?? job);
          const all = shown.current;
          set((old) => ({ ...old, name, jobs: all, fresh: token === "" && filter.order === "desc" ? fresh : 0, error: null }));
        }
      } catch (error) {
        if (!abort.signal.aborted) set((old) => ({ ...old, name, jobs: old.name === name ? old.jobs : null, error }));
      }
      busy = false;
      if (stale && !abort.signal.aborted) due();
    };
    const due = (): void => {
      if (busy || timer !== undefined) stale = true;
      else timer = setTimeout(() => {
        timer = undefined;
        void run(false);
      }, 250);
    };
    again.current = (replace) => void run(replace);
    void run(true);
    const end = watch("events", due);
    return () => {
      abort.abort();
      clearTimeout(timer);
      end();
    };
  }, [name]);
  const mine = state.name === name;
  return {
    jobs: mine ? state.jobs : null, next: mine ? state.next : null, fresh: mine ? state.fresh : 0, error: mine ? state.error : null,
    reload: () => again.current(true),
    put: (job) => {
      shown.current = shown.current?.map((one) => (one.id === job.id ? job : one)) ?? null;
      set((old) => ({ ...old, jobs: shown.current }));
    },
  };
}
