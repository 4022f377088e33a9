// What happened to a job.

import { send, words } from "../../api/client.ts";
import type { Event_ } from "../../api/model.ts";
import { lines } from "../../log/records.ts";
import { Broken, Loading } from "../../parts/parts.tsx";
import { useResource } from "../../state/resource.ts";
import { clock } from "../../log/time.ts";
import { settings } from "../../state/settings.ts";
import { typeWords } from "../../state/subject.ts";

export async function readEvents(path: string, query: Record<string, string | number | null>, signal: AbortSignal): Promise<Event_[]> {
  const answer = await send("GET", path, { query, headers: { Accept: "application/x-ndjson" }, signal });
  const out: Event_[] = [];
  for await (const line of lines(answer.body!)) out.push(JSON.parse(line));
  return out;
}

/** An event in words. PURE. */
export function told(event: Event_): string {
  const { data } = event;
  switch (event.type) {
    case "job.created": return `created by ${String(data["created_by"] ?? "somebody")}${data["rerun_of"] ? ", again" : ""}`;
    case "job.started": return `started${data["pid"] ? `, PID ${String(data["pid"])}` : ""}`;
    case "job.signaled": return `${String(data["signal"])} sent to ${String(data["delivered_to"])} of it (${String(data["scope"])})`;
    case "job.finished": {
      const exit = data["exit"] as { code: number | null; signal: string | null } | null;
      const how = exit ? (exit.signal ?? `exit code ${exit.code}`) : String(data["cause"] ?? "");
      return `${data.state.replace("_", " ")}: ${how}${data["requested_by"] ? `, asked for by ${String(data["requested_by"])}` : ""}${data["reason"] ? `: ${String(data["reason"])}` : ""}`;
    }
    case "job.attempt_finished": {
      const exit = data["exit"] as { code: number | null; signal: string | null } | null;
      return `attempt ${data.attempt}: ${exit ? (exit.signal ?? `exit code ${exit.code}`) : String(data["cause"] ?? "")}${data["next_attempt_at"] ? `, the next at ${clock(String(data["next_attempt_at"]), settings.value.times === "utc")}` : ""}`;
    }
    case "batch.created": return `${String(data["total"])} jobs created by ${String(data["created_by"] ?? "somebody")}${data["rerun_of"] ? ", again" : ""}`;
    case "batch.finished": return `${data.state}: ${Object.entries((data["counts"] ?? {}) as Record<string, number>).filter(([, number]) => number > 0).map(([state, number]) => `${number} ${state.replace("_", " ")}`).join(", ")}`;
    case "job.webhook_delivered": return `webhook delivered, status ${String(data["status"])}, attempt ${String(data["attempts"])}`;
    case "job.webhook_failed": return `webhook given up after ${String(data["attempts"])} attempts: ${String(data["error"])}`;
    default: return typeWords(event.type);
  }
}

export function JobEvents({ id }: { id: string }) {
  const events = useResource((signal) => readEvents(`/jobs/${id}/events`, {}, signal), ["job events", id], [`job:${id}`]);
  if (events.error && !events.data) return <Broken error={events.error} again={events.reload} />;
  if (!events.data) return <Loading />;
  return (
    <div class="card scroll">
      <table class="events">
        <thead><tr><th class="w-clock">Time</th><th class="w-result">Event</th><th>What</th></tr></thead>
        <tbody>{events.data.map((event) => <tr key={event.id}><td class="mono muted" title={event.time}>{clock(event.time, settings.value.times === "utc")}</td><td>{typeWords(event.type)}</td><td><bdi>{told(event)}</bdi></td></tr>)}</tbody>
      </table>
      {events.error !== null && <p class="tint-red pad">{words(events.error)}</p>}
    </div>
  );
}
