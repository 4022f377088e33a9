// What a queue is in words and parts, and what a form sets of it. PURE.

import type { Queue } from "../../api/model.ts";
import { count, duration, parseDuration } from "../../state/format.ts";

/** How much of what may run does; `null` where only the service sets a limit. */
export function load(queue: Queue): { part: number | null; words: string } {
  if (queue.max_running === null) return { part: null, words: "" };
  const weighted = queue.running_weight !== queue.running;
  return { part: queue.running_weight / queue.max_running, words: weighted ? ` · weight ${count(queue.running_weight)} of ${count(queue.max_running)}` : ` of ${count(queue.max_running)}` };
}

export function rate(queue: Queue): string {
  if (!queue.rate) return "";
  const per = queue.rate.per_seconds === 1 ? "second" : queue.rate.per_seconds === 60 ? "minute" : queue.rate.per_seconds === 3600 ? "hour" : duration(queue.rate.per_seconds);
  return `at most ${count(queue.rate.starts)} ${queue.rate.starts === 1 ? "start" : "starts"} a ${per}`.replace(" a 1", " in 1").replace(/ a ([0-9])/, " in $1");
}

export function rules(queue: Queue): string {
  const out: string[] = [];
  if (queue.fair_by === "created_by") out.push("turns by creator");
  else if (queue.fair_by) out.push(`turns by ${queue.fair_by.label}`);
  if (queue.default_priority !== 0) out.push(`priority ${queue.default_priority}`);
  return out.join(", ");
}

export interface QueueForm {
  name: string;
  maxRunning: string;
  maxQueued: string;
  starts: string;
  per: string;
  fairBy: string;
  priority: string;
}

export function formOf(queue: Queue | null): QueueForm {
  const text = (value: number | null | undefined): string => (value === null || value === undefined ? "" : String(value));
  return {
    name: queue?.name ?? "", maxRunning: text(queue?.max_running), maxQueued: text(queue?.max_queued), starts: text(queue?.rate?.starts), per: queue?.rate ? duration(queue.rate.per_seconds) : "",
    fairBy: queue?.fair_by === "created_by" ? "created_by" : (queue?.fair_by?.label ?? ""), priority: queue && queue.default_priority !== 0 ? String(queue.default_priority) : "",
  };
}

/** The merge patch that sets what the form says, and what is no number. */
export function patchOf(form: QueueForm): { body: Record<string, unknown>; errors: Record<string, string> } {
  const errors: Record<string, string> = {};
  const whole = (field: "maxRunning" | "maxQueued" | "starts" | "priority"): number | null => {
    if (form[field].trim() === "") return null;
    const value = Number(form[field]);
    if (!Number.isInteger(value)) errors[field] = "a whole number";
    return value;
  };
  const starts = whole("starts");
  const per = form.per.trim() === "" ? 60 : parseDuration(form.per);
  if (per === null) errors["per"] = "a duration such as 1 min";
  if (starts === null && form.per.trim() !== "") errors["starts"] = "how many in that time";
  if (form.name.trim() === "") errors["name"] = "a queue needs a name";
  const fair = form.fairBy.trim();
  const body = {
    max_running: whole("maxRunning"), max_queued: whole("maxQueued"), rate: starts === null ? null : { starts, per_seconds: per },
    fair_by: fair === "" ? null : fair === "created_by" ? fair : { label: fair.replace(/^label=/, "") }, default_priority: whole("priority") ?? 0,
  };
  return { body, errors };
}

/** Where the form shows a field of the settings. */
export const FIELDS: Record<string, keyof QueueForm> = { max_running: "maxRunning", max_queued: "maxQueued", rate: "starts", fair_by: "fairBy", default_priority: "priority" };
