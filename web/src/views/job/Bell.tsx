// A notification when a job ends that nobody looks at: asked for here for one job, or in the settings for all.

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { watchHidden } from "../../api/hints.ts";
import { isTerminal, type Job } from "../../api/model.ts";
import { Button, say } from "../../parts/parts.tsx";
import { settings } from "../../state/settings.ts";
import { nameOf, result } from "../../state/words.ts";

/** The jobs that have one, as long as this tab is open. */
const rung = signal<ReadonlySet<string>>(new Set());

/** Gives a job a bell, or takes it away. */
export async function toggleBell(id: string): Promise<void> {
  const next = new Set(rung.value);
  if (next.delete(id)) {
    rung.value = next;
    return say("No notification");
  }
  if (!("Notification" in window) || (await Notification.requestPermission()) !== "granted") return say("The browser does not let the page notify you", true);
  rung.value = next.add(id);
  say("You are notified when it ends and this tab is hidden");
}

export function Bell({ job }: { job: Job }) {
  if (isTerminal(job.state)) return null;
  return <Button icon="bell" class="wide" label="Notify me when it ends" pressed={rung.value.has(job.id)} onClick={() => void toggleBell(job.id)} />;
}

/** Hears of the job though the tab is hidden, and tells of its end. */
export function useBell(id: string, job: Job | null): void {
  const [was, set] = useState<boolean | null>(null);
  const done = job ? isTerminal(job.state) : null;
  const isWanted = settings.value.notify || rung.value.has(id);
  useEffect(() => (isWanted && done === false ? watchHidden(`job:${id}`) : undefined), [id, isWanted, done]);
  useEffect(() => {
    if (was === false && done === true && job && isWanted && document.hidden && "Notification" in window && Notification.permission === "granted") {
      new Notification(`${nameOf(job)}: ${job.state.replace("_", " ")}`, { body: result(job), tag: job.id });
    }
    set(done);
  }, [done]);
}
