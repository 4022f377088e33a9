// The processes of a job, looked at again and again; what they use is the difference of two looks.

import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../../api/client.ts";
import type { ProcessInfo } from "../../api/model.ts";
import { tree, type Branch } from "./tree.ts";

export interface Watch {
  list: Branch[];
  /** Of the whole job, in cores; `null` before the second look. */
  cores: number | null;
  rss: number;
  history: { cores: number; rss: number }[];
}

const NOTHING: Watch = { list: [], cores: null, rss: 0, history: [] };

export function useProcesses(id: string, on: boolean): Watch {
  const [watch, set] = useState<Watch>(NOTHING);
  const before = useRef<{ at: number; used: Map<string, number> } | null>(null);
  useEffect(() => {
    if (!on) {
      set((old) => ({ ...old, list: [], cores: null }));
      return;
    }
    const abort = new AbortController();
    const look = async (): Promise<void> => {
      if (document.hidden) return;
      try {
        const { processes } = await get<{ processes: ProcessInfo[] }>(`/jobs/${id}/processes`, {}, abort.signal);
        const at = performance.now();
        const used = new Map(processes.map((one) => [`${one.pid} ${one.started_at}`, one.user_cpu_seconds + one.system_cpu_seconds]));
        const old = before.current;
        const seconds = old ? (at - old.at) / 1000 : 0;
        const cores = (one: ProcessInfo): number | null => {
          if (!old || seconds < 0.2) return null;
          const name = `${one.pid} ${one.started_at}`;
          return Math.max(0, ((used.get(name) ?? 0) - (old.used.get(name) ?? 0)) / seconds);
        };
        const list = tree(processes, cores);
        const all = old ? list.reduce((sum, one) => sum + (one.cores ?? 0), 0) : null;
        const rss = processes.reduce((sum, one) => sum + one.rss_bytes, 0);
        before.current = { at, used };
        set((last) => ({ list, cores: all, rss, history: all === null ? last.history : [...last.history.slice(-299), { cores: all, rss }] }));
      } catch {
        // The next look may do.
      }
    };
    void look();
    const timer = setInterval(() => void look(), 2000);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [id, on]);
  return watch;
}
