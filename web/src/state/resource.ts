// Something that is fetched, shown, and fetched again when a hint says that it is newer.

import { useCallback, useLayoutEffect, useRef, useState } from "preact/hooks";
import { watch } from "../api/hints.ts";

/** At most so many a second. */
const PAUSE = 250;

export interface Resource<T> {
  data: T | null;
  error: unknown;
  reload: () => void;
}

/** Loads now, and again when one of the subjects is newer. */
export function useResource<T>(load: (signal: AbortSignal) => Promise<T>, needs: unknown[], subjects: string[] = [], every = 0): Resource<T> {
  const [state, set] = useState<{ data: T | null; error: unknown; needs: string }>({ data: null, error: null, needs: "" });
  const name = JSON.stringify(needs);
  const again = useRef<() => void>(() => undefined);
  // Asked for before it is drawn that there is nothing yet.
  useLayoutEffect(() => {
    const abort = new AbortController();
    let busy = false;
    let stale = false;
    let last = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = async (): Promise<void> => {
      busy = true;
      stale = false;
      last = performance.now();
      try {
        const data = await load(abort.signal);
        if (!abort.signal.aborted) set({ data, error: null, needs: name });
      } catch (error) {
        // What is shown stays until there is better.
        if (!abort.signal.aborted) set((old) => ({ data: old.needs === name ? old.data : null, error, needs: name }));
      }
      busy = false;
      if (stale && !abort.signal.aborted) due();
    };
    const due = (): void => {
      if (busy || timer !== undefined) {
        stale = true;
        return;
      }
      timer = setTimeout(() => {
        timer = undefined;
        void run();
      }, Math.max(0, last + PAUSE - performance.now()));
    };
    again.current = due;
    void run();
    const watches = subjects.map((subject) => watch(subject, due));
    const clock = every > 0 ? setInterval(() => { if (!document.hidden) due(); }, every) : undefined;
    return () => {
      abort.abort();
      clearTimeout(timer);
      clearInterval(clock);
      for (const end of watches) end();
    };
  }, [name, subjects.join(" "), every]);
  const reload = useCallback(() => again.current(), []);
  const mine = state.needs === name;
  return { data: mine ? state.data : null, error: mine ? state.error : null, reload };
}
