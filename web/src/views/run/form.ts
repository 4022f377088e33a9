// The form of a job: what is typed, and what is sent. PURE.

import type { Job, Violation } from "../../api/model.ts";
import { bytes, duration, parseBytes, parseDuration } from "../../state/format.ts";
import type { Submission } from "../../state/same.ts";

export type Kind = "script" | "command" | "terminal" | "json";

export interface Variable {
  name: string;
  value: string;
  secret: boolean;
}

export interface Form {
  kind: Kind;
  script: string;
  /** One argument a line. */
  command: string;
  json: string;
  name: string;
  cwd: string;
  timeout: string;
  labels: string;
  env: Variable[];
  stopSignal: string;
  grace: string;
  waitFor: "leader" | "all";
  exitCodes: string;
  ttl: string;
  memory: string;
  cpu: string;
  pids: string;
  user: string;
  sandbox: "" | "default" | "off" | "require";
  maxOutput: string;
  onLimit: "drop_oldest" | "drop_newest" | "stop_job" | "wait";
  merge: boolean;
  stdin: boolean;
  queue: string;
  priority: string;
  webhook: string;
}

export const EMPTY: Form = {
  kind: "script", script: "", command: "", json: "", name: "", cwd: "", timeout: "", labels: "", env: [], stopSignal: "", grace: "", waitFor: "leader", exitCodes: "", ttl: "",
  memory: "", cpu: "", pids: "", user: "", sandbox: "", maxOutput: "", onLimit: "drop_oldest", merge: false, stdin: false, queue: "", priority: "", webhook: "",
};

export type Errors = Record<string, string>;

/** Where the form shows a field of the spec. */
const FIELDS: [string, string][] = [
  ["/script", "script"], ["/command", "command"], ["/name", "name"], ["/cwd", "cwd"], ["/timeout_seconds", "timeout"], ["/labels", "labels"], ["/env", "env"], ["/secret_env", "env"],
  ["/stop/signal", "stopSignal"], ["/stop/grace_seconds", "grace"], ["/stop", "stopSignal"], ["/wait_for", "waitFor"], ["/success_exit_codes", "exitCodes"], ["/ttl_seconds_after_finished", "ttl"],
  ["/limits/memory_bytes", "memory"], ["/limits/cpu", "cpu"], ["/limits/pids", "pids"], ["/limits", "memory"], ["/user", "user"], ["/sandbox", "sandbox"], ["/no_new_privs", "sandbox"],
  ["/output/max_bytes", "maxOutput"], ["/output", "maxOutput"], ["/stdin", "stdin"], ["/queue", "queue"], ["/priority", "priority"], ["/webhooks", "webhook"],
];

/** Each mistake at its field; what has none goes under "". */
export function placed(errors: Violation[], kind: Kind): Errors {
  const out: Errors = {};
  for (const error of errors) {
    const pointer = error.pointer ?? "";
    const field = kind === "json" ? "json" : (FIELDS.find(([prefix]) => pointer === prefix || pointer.startsWith(`${prefix}/`))?.[1] ?? "");
    const words = field === "" || field === "json" ? `${pointer}: ${error.detail}` : error.detail;
    out[field] = out[field] === undefined ? words : `${out[field]}; ${words}`;
  }
  return out;
}

/** What is sent, and what cannot be. */
export function submission(form: Form): { body: Submission; errors: Errors } {
  const errors: Errors = {};
  if (form.kind === "json") {
    try {
      const body = JSON.parse(form.json);
      if (typeof body !== "object" || body === null || Array.isArray(body)) throw new Error("an object is needed");
      return { body, errors };
    } catch (error) {
      return { body: {}, errors: { json: error instanceof Error ? error.message : "no JSON" } };
    }
  }
  const body: Submission = {};
  if (form.kind === "script") body.script = form.script;
  else body.command = form.command.split("\n").filter((line, i, all) => line !== "" || i < all.length - 1);
  if (form.kind === "script" && form.script.trim() === "") errors["script"] = "a script is needed";
  if (form.kind !== "script" && form.command.trim() === "") errors["command"] = "a program is needed";
  if (form.kind === "terminal") body["pty"] = {};
  const text = (field: "name" | "cwd" | "user" | "queue", key: string): void => {
    if (form[field].trim() !== "") body[key] = form[field].trim();
  };
  text("name", "name");
  text("cwd", "cwd");
  text("user", "user");
  text("queue", "queue");
  const seconds = (field: "timeout" | "grace" | "ttl", hint: string): number | undefined => {
    if (form[field].trim() === "") return undefined;
    const value = parseDuration(form[field]);
    if (value === null) errors[field] = hint;
    return value ?? undefined;
  };
  const timeout = seconds("timeout", "a duration such as 10 min or 2 h");
  if (timeout !== undefined) body["timeout_seconds"] = timeout;
  const ttl = seconds("ttl", "a duration such as 7 d");
  if (ttl !== undefined) body["ttl_seconds_after_finished"] = ttl;
  const stop: Record<string, unknown> = {};
  if (form.stopSignal.trim() !== "") stop["signal"] = form.stopSignal.trim();
  else if (form.kind === "terminal") stop["signal"] = "SIGHUP";
  const grace = seconds("grace", "a duration such as 10 s");
  if (grace !== undefined) stop["grace_seconds"] = grace;
  if (Object.keys(stop).length > 0) body["stop"] = stop;
  if (form.waitFor !== "leader") body["wait_for"] = form.waitFor;
  labels(form, body, errors);
  variables(form, body, errors);
  numbers(form, body, errors);
  if (form.sandbox === "off") body["sandbox"] = { landlock: "off", seccomp: "off" };
  else if (form.sandbox !== "") body["sandbox"] = { landlock: "default", seccomp: "default", require: form.sandbox === "require" };
  const output: Record<string, unknown> = {};
  if (form.maxOutput.trim() !== "") {
    const max = parseBytes(form.maxOutput);
    if (max === null) errors["maxOutput"] = "a size such as 64 MB";
    else output["max_bytes"] = max;
  }
  if (form.onLimit !== "drop_oldest") output["on_limit"] = form.onLimit;
  if (form.merge) output["merge_stderr"] = true;
  if (Object.keys(output).length > 0) body["output"] = output;
  if (form.stdin && form.kind !== "terminal") body["stdin"] = { mode: "open" };
  if (form.webhook.trim() !== "") body["webhooks"] = form.webhook.split(/\s+/).filter(Boolean).map((url) => ({ url }));
  return { body, errors };
}

function labels(form: Form, body: Submission, errors: Errors): void {
  const words = form.labels.split(/[,\s]+/).filter(Boolean);
  if (words.length === 0) return;
  const out: Record<string, string> = {};
  for (const word of words) {
    const [key, ...value] = word.split("=");
    if (!key || !word.includes("=")) errors["labels"] = `“${word}” is no key=value`;
    else out[key] = value.join("=");
  }
  body.labels = out;
}

function variables(form: Form, body: Submission, errors: Errors): void {
  const env: Record<string, string> = {};
  const secret: Record<string, string> = {};
  for (const { name, value, secret: hidden } of form.env) {
    if (name === "" && value === "") continue;
    if (name === "" || name.includes("=")) errors["env"] = "a variable needs a name without =";
    else (hidden ? secret : env)[name] = value;
  }
  if (Object.keys(env).length > 0) body["env"] = env;
  if (Object.keys(secret).length > 0) body["secret_env"] = secret;
}

function numbers(form: Form, body: Submission, errors: Errors): void {
  const limits: Record<string, number> = {};
  if (form.memory.trim() !== "") {
    const memory = parseBytes(form.memory);
    if (memory === null) errors["memory"] = "a size such as 2 GB";
    else limits["memory_bytes"] = memory;
  }
  if (form.cpu.trim() !== "") {
    const cpu = Number(form.cpu);
    if (!Number.isFinite(cpu)) errors["cpu"] = "a number such as 0.5 or 2";
    else limits["cpu"] = cpu;
  }
  const whole = (field: "pids" | "priority"): number | undefined => {
    if (form[field].trim() === "") return undefined;
    const value = Number(form[field]);
    if (!Number.isInteger(value)) {
      errors[field] = "a whole number";
      return undefined;
    }
    return value;
  };
  const pids = whole("pids");
  if (pids !== undefined) limits["pids"] = pids;
  if (Object.keys(limits).length > 0) body["limits"] = limits;
  const priority = whole("priority");
  if (priority !== undefined) body["priority"] = priority;
  if (form.exitCodes.trim() !== "") {
    const codes = form.exitCodes.split(/[,\s]+/).filter(Boolean).map(Number);
    if (codes.some((code) => !Number.isInteger(code))) errors["exitCodes"] = "numbers such as 0, 2";
    else body["success_exit_codes"] = codes;
  }
}

/** A job as a form; its secrets are not known any more. */
export function formOf(job: Job): Form {
  const { spec } = job;
  const word = (value: number | null, usual: number | null, how: (value: number) => string): string => (value === null || value === usual ? "" : how(value));
  return {
    ...EMPTY,
    kind: spec.pty ? "terminal" : spec.command ? "command" : "script",
    script: spec.script ?? "", command: (spec.command ?? []).join("\n"), name: job.name ?? "", cwd: spec.cwd ?? "",
    timeout: word(spec.timeout_seconds, null, duration), labels: Object.entries(job.labels).map(([key, value]) => `${key}=${value}`).join(" "),
    env: [...Object.entries(spec.env).map(([name, value]) => ({ name, value, secret: false })), ...Object.keys(spec.secret_env).map((name) => ({ name, value: "", secret: true }))],
    stopSignal: spec.stop.signal === (spec.pty ? "SIGHUP" : "SIGTERM") ? "" : spec.stop.signal, grace: word(spec.stop.grace_seconds, 10, duration),
    waitFor: spec["wait_for"] === "all" ? "all" : "leader", exitCodes: JSON.stringify(spec["success_exit_codes"]) === "[0]" ? "" : (spec["success_exit_codes"] as number[]).join(", "),
    ttl: word(spec.ttl_seconds_after_finished, 604800, duration), memory: word(spec.limits.memory_bytes, null, bytes), cpu: word(spec.limits.cpu, null, String), pids: word(spec.limits.pids, null, String),
    user: spec.user === null ? "" : String(spec.user), maxOutput: word(spec.output.max_bytes, 67108864, (value) => `${value}`), onLimit: spec.output.on_limit as Form["onLimit"], merge: spec.output.merge_stderr,
    stdin: spec.stdin.mode === "open", queue: spec.queue === "default" ? "" : spec.queue, priority: word(spec.priority, 0, String), webhook: spec.webhooks.map((one) => one.url).join(" "),
  };
}

/** The merge patch that makes one submission of the other. */
export function difference(before: Submission, after: Submission): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const [a, b] = [before[key], after[key]];
    if (JSON.stringify(a) === JSON.stringify(b)) continue;
    if (b === undefined) out[key] = null;
    else if (isObject(a) && isObject(b)) out[key] = difference(a as Submission, b as Submission);
    else out[key] = b;
  }
  return out;
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
