// What happens to all jobs.

import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, words } from "../api/client.ts";
import { watch } from "../api/hints.ts";
import type { Event_, EventType } from "../api/model.ts";
import { clock } from "../log/time.ts";
import { Broken, Button, Loading } from "../parts/parts.tsx";
import { link, place, requery } from "../router.ts";
import { settings } from "../state/settings.ts";
import { subjectOf, typeWords } from "../state/subject.ts";
import { readEvents, told } from "./job/JobEvents.tsx";

const TYPES: EventType[] = ["job.created", "job.started", "job.ready", "job.not_ready", "job.warned", "job.paused", "job.resumed", "job.signaled", "job.changed", "job.stopping", "job.attempt_finished", "job.artifacts", "job.finished", "job.reported_late", "job.webhook_delivered", "job.webhook_failed", "batch.created", "batch.finished", "schedule.started", "schedule.skipped", "schedule.changed", "queue.changed"];
const KEPT = 500;

export function Events() {
  const type = place.value.query.get("type") ?? "";
  const label = place.value.query.get("label") ?? "";
  const [events, setEvents] = useState<Event_[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [paused, setPaused] = useState(false);
  const held = useRef(paused);
  held.current = paused;
  useEffect(() => {
    const abort = new AbortController();
    let cursor: string | null = null;
    let busy = false;
    let stale = false;
    const look = async (): Promise<void> => {
      if (held.current && cursor !== null) return;
      if (busy) {
        stale = true;
        return;
      }
      busy = true;
      stale = false;
      try {
        const next = await readEvents("/events", { after: cursor, type: type || null, label_selector: label || null }, abort.signal);
        if (next.length > 0) cursor = next.at(-1)!.id;
        setEvents((old) => [...(old ?? []), ...next].slice(-KEPT));
        setError(null);
      } catch (problem) {
        if (problem instanceof Problem && problem.code === "cursor_expired") cursor = null;
        if (!abort.signal.aborted) setError(problem);
      }
      busy = false;
      if (stale && !abort.signal.aborted) void look();
    };
    setEvents(null);
    void look();
    const end = watch("events", () => void look());
    return () => {
      abort.abort();
      end();
    };
  }, [type, label]);
  const query = (part: Record<string, string>): void => requery(new URLSearchParams(Object.entries({ type, label, ...part }).filter(([, value]) => value !== "")), "replace");
  return (
    <div class="stack">
      <form class="inline wraps" onSubmit={(event) => event.preventDefault()}>
        <select class="input w-result" aria-label="Type" value={type} onChange={(event) => query({ type: event.currentTarget.value })}><option value="">every type</option>{TYPES.map((one) => <option key={one} value={one}>{typeWords(one)}</option>)}</select>
        <input class="input w-result mono" aria-label="Label selector" placeholder="team=web" value={label} onChange={(event) => query({ label: event.currentTarget.value })} />
        <span class="grow" />
        <Button small icon={paused ? "play" : "pause"} pressed={paused} onClick={() => setPaused(!paused)}>{paused ? "Go on" : "Hold"}</Button>
      </form>
      {error !== null && events === null ? <Broken error={error} /> : events === null ? <Loading /> : events.length === 0 ? <div class="card empty"><h2>Nothing has happened</h2><p class="muted">Events of jobs come here.</p></div> : (
        <div class="card scroll">
          <table class="events">
            <thead><tr><th class="w-clock">Time</th><th class="w-result wide">Event</th><th class="w-result">Of</th><th>What</th></tr></thead>
            <tbody>{[...events].reverse().map((event) => (
              <tr key={event.id}><td class="mono muted" title={event.time}>{clock(event.time, settings.value.times === "utc")}</td><td class="wide">{typeWords(event.type)}</td><td><About event={event} /></td><td class="muted"><bdi>{told(event)}</bdi></td></tr>
            ))}</tbody>
          </table>
        </div>
      )}
      {error !== null && events !== null && <p class="tint-red small">{words(error)}</p>}
    </div>
  );
}

/** What it happened to. */
function About({ event }: { event: Event_ }) {
  const { path, word } = subjectOf(event);
  return <a class="name" href={link(path)}><bdi>{word}</bdi></a>;
}
