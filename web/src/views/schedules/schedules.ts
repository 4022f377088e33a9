// What a schedule is in words, and what a form sets of it. PURE.

import type { Schedule, Violation } from "../../api/model.ts";
import { commandLine, count, duration, parseDuration } from "../../state/format.ts";

export type How = "cron" | "every" | "at";

export function how(schedule: Pick<Schedule, "cron" | "every_seconds">): How {
  return schedule.cron ? "cron" : schedule.every_seconds ? "every" : "at";
}

/** `30 2 * * *, Europe/Berlin`, `every 5 min`, `at 3 moments`. */
export function times(schedule: Pick<Schedule, "cron" | "every_seconds" | "at" | "time_zone">): string {
  if (schedule.cron) return `${schedule.cron}, ${schedule.time_zone ?? "UTC"}`;
  if (schedule.every_seconds) return `every ${ONE[schedule.every_seconds] ?? duration(schedule.every_seconds)}`;
  const moments = schedule.at?.length ?? 0;
  return moments === 1 ? "once" : `at ${count(moments)} moments`;
}

const ONE: Record<number, string> = { 1: "second", 60: "minute", 3600: "hour", 86400: "day" };

/** What its jobs run, on one line. */
export function runs(schedule: Pick<Schedule, "job">): string {
  const job = schedule.job as { command?: string[]; script?: string; template?: string };
  return job.template !== undefined ? `template ${job.template}` : commandLine(job);
}

const REASONS: Record<string, string> = {
  overlap: "its last job had not ended", missed: "nobody was there", draining: "the service took no jobs", queue_full: "its queue was full", no_room: "there was no room", policy_forbids: "the policy forbids it", refused: "the job was refused",
};

/** Why the last due time has made no job; "" where it has. */
export function skippedWords(last: Schedule["last"]): string {
  return last?.outcome === "skipped" ? `skipped: ${REASONS[last.reason ?? ""] ?? last.reason ?? "not told why"}` : "";
}

export const OVERLAP: [string, string][] = [["skip", "none while one runs"], ["queue", "one that waits for its end"], ["replace", "one in its place"], ["allow", "another one beside it"]];
export const MISSED: [string, string][] = [["latest", "the last one once"], ["all", "each of them"], ["skip", "none"]];

export interface ScheduleForm {
  name: string;
  how: How;
  cron: string;
  every: string;
  /** One moment a line. */
  at: string;
  zone: string;
  overlap: string;
  missed: string;
  script: string;
}

export function formOf(schedule: Schedule | null, zone: string): ScheduleForm {
  return {
    name: schedule?.name ?? "", how: schedule ? how(schedule) : "cron", cron: schedule?.cron ?? "", every: schedule?.every_seconds ? duration(schedule.every_seconds) : "",
    at: (schedule?.at ?? []).join("\n"), zone: schedule?.time_zone ?? zone, overlap: schedule?.overlap ?? "skip", missed: schedule?.missed ?? "latest", script: "",
  };
}

/** When it would be due, as the service takes it, or what is wrong. */
export function timesOf(form: ScheduleForm): { body: Record<string, unknown>; errors: Record<string, string> } {
  if (form.how === "cron") return form.cron.trim() === "" ? { body: {}, errors: { cron: "five fields, such as 30 2 * * *" } } : { body: { cron: form.cron.trim(), time_zone: form.zone.trim() || null }, errors: {} };
  if (form.how === "every") {
    const seconds = parseDuration(form.every);
    return seconds === null || !Number.isInteger(seconds) ? { body: {}, errors: { every: "a duration such as 5 min, of whole seconds" } } : { body: { every_seconds: seconds }, errors: {} };
  }
  const lines = form.at.split("\n").map((line) => line.trim()).filter(Boolean);
  const wrong = lines.find((line) => Number.isNaN(Date.parse(line)));
  if (lines.length === 0 || wrong !== undefined) return { body: {}, errors: { at: wrong === undefined ? "a moment, such as 2027-01-31T09:00:00Z" : `“${wrong}” is no moment` } };
  return { body: { at: lines.map((line) => new Date(line).toISOString()) }, errors: {} };
}

/** What is sent: all of a new one, of an old one what the form has. */
export function bodyOf(form: ScheduleForm, made: boolean): { body: Record<string, unknown>; errors: Record<string, string> } {
  const { body, errors } = timesOf(form);
  if (!made && form.name.trim() === "") errors["name"] = "a schedule needs a name";
  if (!made && form.script.trim() === "") errors["script"] = "a script is needed";
  return { body: { ...body, overlap: form.overlap, missed: form.missed, ...(made ? {} : { job: { script: form.script } }) }, errors };
}

const FIELDS: Record<string, string> = { cron: "cron", every_seconds: "every", at: "at", time_zone: "zone", overlap: "overlap", missed: "missed", job: "script" };

/** Each mistake at its field; what has none goes under "". */
export function placed(violations: Violation[]): Record<string, string> {
  const out: Record<string, string> = {};
  for (const { pointer, detail } of violations) {
    const field = FIELDS[(pointer ?? "").split("/")[1] ?? ""] ?? "";
    const words = field === "" ? `${pointer ?? ""}: ${detail}` : detail;
    out[field] = out[field] === undefined ? words : `${out[field]}; ${words}`;
  }
  return out;
}
