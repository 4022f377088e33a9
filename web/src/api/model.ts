// Names for what the API answers with.

import type { components } from "./types.d.ts";

type Schemas = components["schemas"];

export type State = Schemas["State"];
export type OutputTotals = Schemas["OutputTotals"];
export type Exit = Schemas["Exit"];
export type Termination = Schemas["Termination"];
export type Survivor = Schemas["Survivor"];
export type ProcessInfo = Schemas["ProcessInfo"];
export type Info = Schemas["Info"];
export type FileEntry = Schemas["FileEntry"];
export type Violation = Schemas["Violation"];
export type Queue = Schemas["Queue"];
export type Template = Schemas["Template"];
export type TokenEntry = Schemas["TokenEntry"];
export type Finding = Schemas["Finding"];
export type Batch = Schemas["Batch"];
export type Schedule = Schemas["Schedule"];
export type Node = Schemas["Node"];
export type Attempt = Schemas["Attempt"];
export type EventType = Schemas["EventType"];
export type Stats = Schemas["Stats"];
export type Scope = "metrics" | "read" | "operate" | "admin";
/** What a token can be made for: `runner` is for a node of the cluster, and reaches nothing else. */
export type TokenScope = TokenEntry["scope"];

/** What a list has of a job. */
export interface BasicJob {
  id: string;
  name: string | null;
  labels: Record<string, string>;
  created_by: string;
  attempt: number;
  max_attempts: number;
  version: number;
  state: State;
  state_reason: string | null;
  state_message: string | null;
  command: string;
  queue: string;
  priority: number;
  pty: boolean;
  timeout_seconds: number | null;
  created_at: string;
  started_at: string | null;
  finished_at: string | null;
  exit: Exit | null;
  termination: Pick<Termination, "cause" | "requested_by" | "reason" | "escalated"> | null;
  spawn_failure: { stage: string; errno: number; message: string } | null;
  /** In a cluster: which node has it. */
  node?: string;
}

export interface Spec {
  command?: string[];
  script?: string;
  shell?: string[];
  cwd: string | null;
  env: Record<string, string>;
  secret_env: Record<string, null>;
  timeout_seconds: number | null;
  stop: { signal: string; grace_seconds: number; scope: string };
  limits: { memory_bytes: number | null; cpu: number | null; pids: number | null };
  output: { merge_stderr: boolean; max_bytes: number; on_limit: string };
  stdin: { mode: string };
  pty: { rows: number; cols: number; term: string } | null;
  user: string | number | null;
  queue: string;
  priority: number;
  ttl_seconds_after_finished: number;
  webhooks: { url: string; events: string[] }[];
  retry: { max_attempts: number } | null;
  ready: unknown;
  [field: string]: unknown;
}

export interface Job extends Omit<BasicJob, "command" | "queue" | "priority" | "pty" | "timeout_seconds" | "max_attempts"> {
  spec: Spec;
  rerun_of: string | null;
  run_at: string | null;
  hold: boolean;
  schedule: { name: string; due_at: string | null } | null;
  expires_at: string | null;
  deadline_at: string | null;
  next_attempt_at: string | null;
  termination: Termination | null;
  usage: { user_cpu_seconds: number; system_cpu_seconds: number; max_rss_bytes: number } | null;
  output: OutputTotals;
  process: {
    pid: number; pgid: number; sid: number; started_at: string; containment: string; executable: string | null;
    sandbox: { landlock_abi: number | null; seccomp: boolean; missing: string[] } | null;
  } | null;
  ready_at: string | null;
  not_ready_at: string | null;
  ready_message: string | null;
  artifacts: Schemas["Artifacts"] | null;
  attempts: Attempt[];
  batch: { id: string; key: string; index: number; count: number } | null;
  depends_on: Dependency[];
  blocked_by: Survivor[];
}

/** What has to end before a job may start, and how. */
export interface Dependency {
  job?: string;
  batch?: string;
  key?: string;
  on: "succeeded" | "failed" | "finished";
}

export interface Session {
  actor: string;
  scope: Scope;
  expires_at: string | null;
  /** How the caller came in. */
  by: "session" | "token" | "socket" | "none";
}

export interface SessionEntry {
  id: string;
  actor: string;
  scope: Scope;
  created_at: string;
  used_at: string;
  expires_at: string;
  browser: string;
  current: boolean;
}

export interface Count {
  state: State;
  count: number;
  exact: boolean;
}

export interface Event_ {
  id: string;
  type: string;
  /** Of a job its id, else `batch/ID`, `queue/NAME` or `schedule/NAME`. */
  subject: string;
  time: string;
  data: { name: string | null; labels: Record<string, string>; state: State; version: number; attempt: number; [field: string]: unknown };
}

export const UNFINISHED: State[] = ["queued", "starting", "running", "paused", "stopping"];
export const TERMINAL: State[] = ["succeeded", "failed", "timed_out", "canceled", "lost"];

export function isTerminal(state: State): boolean {
  return TERMINAL.includes(state);
}

const REACH: Scope[] = ["metrics", "read", "operate", "admin"];

export function reaches(scope: Scope | undefined, needed: Scope): boolean {
  return scope !== undefined && REACH.indexOf(scope) >= REACH.indexOf(needed);
}
