// How a job is told in words. PURE.

import { type Attempt, type BasicJob, isTerminal, type Job, type State } from "../api/model.ts";
import { actor, duration } from "./format.ts";

type Told = Pick<BasicJob, "state" | "state_reason" | "state_message" | "exit" | "termination" | "spawn_failure" | "started_at" | "finished_at" | "created_at">;

const CAUSES: Record<string, string> = {
  timeout: "ended by its timeout", canceled: "stopped", oom_killed: "out of memory", output_limit: "wrote more than it may", not_ready: "not ready in time", workspace_limit: "too much in its workspace", start_deadline: "did not start in time", dependency_failed: "what it waited for did not end as it had to", superseded: "another job took its place", shutdown: "the service was stopped",
  monitor_lost: "its monitor was lost", supervisor_lost: "the supervisor was lost", node_lost: "its node was lost", host_rebooted: "the host was restarted", spawn_failed: "did not start",
};

/** Why it is as it is, in a few words. */
export function result(job: Told): string {
  if (job.state === "queued") return job.state_reason === "waiting_for_slot" ? "waits for a slot" : (job.state_message ?? "");
  if (job.state === "stopping" || job.state === "paused") return job.state_message ?? "";
  if (!isTerminal(job.state)) return job.state_reason === "node_unreachable" ? (job.state_message ?? "its node does not answer") : "";
  if (job.spawn_failure) return job.spawn_failure.message;
  const cause = job.termination?.cause ?? job.state_reason ?? "";
  if (job.state === "canceled") {
    const by = job.termination?.requested_by;
    return `${by ? `by ${actor(by)}` : (CAUSES[cause] ?? "stopped")}${job.termination?.reason ? `: ${job.termination.reason}` : ""}`;
  }
  if (job.state === "timed_out") return job.termination?.escalated ? "timeout, then SIGKILL" : "timeout";
  if (job.state === "lost") return CAUSES[cause] ?? "how it ended is not known";
  if (cause !== "exited" && cause !== "signaled" && CAUSES[cause]) return CAUSES[cause]!;
  if (job.exit?.signal) return `${job.exit.signal}${job.exit.core_dumped ? ", core dumped" : ""}`;
  return job.exit?.code != null ? `exit code ${job.exit.code}` : (job.state_message ?? "");
}

/** How an attempt has ended, in a few words. */
export function endOf(attempt: Pick<Attempt, "cause" | "exit" | "spawn_failure">): string {
  if (attempt.spawn_failure) return attempt.spawn_failure.message;
  const { cause, exit } = attempt;
  if (cause !== "exited" && cause !== "signaled" && CAUSES[cause]) return CAUSES[cause]!;
  return exit?.signal ?? (exit?.code != null ? `exit code ${exit.code}` : cause.replaceAll("_", " "));
}

export const TINT: Partial<Record<State, string>> = { failed: "tint-red", timed_out: "tint-orange", lost: "tint-pink", stopping: "tint-amber" };

/** How long it has run, in seconds; `null` where it has not. */
export function ran(job: Told, now: number): number | null {
  if (!job.started_at) return null;
  const end = job.finished_at ? Date.parse(job.finished_at) : now;
  return Math.max(0, (end - Date.parse(job.started_at)) / 1000);
}

export function ranWords(job: Told, now: number): string {
  const seconds = ran(job, now);
  return seconds === null ? "–" : duration(isTerminal(job.state) ? seconds : Math.floor(seconds));
}

export function nameOf(job: { name: string | null; id: string }): string {
  return job.name ?? `${job.id.slice(0, 8)}…${job.id.slice(-4)}`;
}

/** What can be done with a job in this state. */
export function acts(state: State): { stop: boolean; pause: boolean; resume: boolean; again: boolean; priority: boolean } {
  return { stop: !isTerminal(state), pause: state === "running", resume: state === "paused", again: true, priority: state === "queued" };
}

/** A whole job as a list has it. */
export function basic(job: Job, command: string): BasicJob {
  const { spec, ...rest } = job;
  return { ...rest, command, queue: spec.queue, priority: spec.priority, max_attempts: spec.retry?.max_attempts ?? 1, pty: spec.pty !== null, timeout_seconds: spec.timeout_seconds };
}
