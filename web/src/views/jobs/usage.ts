// What running jobs use: the difference of two looks, two seconds apart.

import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "../../api/client.ts";

export interface Use {
  cores: number | null;
  rss: number;
  processes: number;
}

interface Look {
  job_id: string;
  at: string;
  processes: number;
  user_cpu_seconds: number;
  system_cpu_seconds: number;
  rss_bytes: number;
}

export function useUsage(ids: string[]): Map<string, Use> {
  const [uses, set] = useState<Map<string, Use>>(new Map());
  const before = useRef<Map<string, Look>>(new Map());
  const name = ids.join(",");
  useEffect(() => {
    if (name === "") {
      set(new Map());
      return;
    }
    const abort = new AbortController();
    const look = async (): Promise<void> => {
      if (document.hidden) return;
      try {
        const answer = await get<{ usage: Look[] }>("/jobs/usage", { job_ids: name }, abort.signal);
        const next = new Map<string, Use>();
        for (const one of answer.usage) {
          const old = before.current.get(one.job_id);
          const seconds = old ? (Date.parse(one.at) - Date.parse(old.at)) / 1000 : 0;
          const used = old ? one.user_cpu_seconds + one.system_cpu_seconds - old.user_cpu_seconds - old.system_cpu_seconds : 0;
          next.set(one.job_id, { cores: seconds > 0.2 ? Math.max(0, used / seconds) : null, rss: one.rss_bytes, processes: one.processes });
        }
        before.current = new Map(answer.usage.map((one) => [one.job_id, one]));
        set(next);
      } catch {
        // The columns stay empty.
      }
    };
    void look();
    const timer = setInterval(() => void look(), 2000);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [name]);
  return uses;
}
