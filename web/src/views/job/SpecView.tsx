// The spec of a job, every field of it, and the same by other means.

import { useState } from "preact/hooks";
import type { Job } from "../../api/model.ts";
import { Button, copy, Segments } from "../../parts/parts.tsx";
import { asCurl, asJson, asProcession, type Submission } from "../../state/same.ts";

export function SpecView({ job }: { job: Job }) {
  const [how, setHow] = useState<"procession" | "curl" | "json">("procession");
  const submission = submissionOf(job);
  const text = how === "json" ? asJson(submission) : how === "curl" ? asCurl(submission) : asProcession(submission);
  return (
    <div class="spec scroll">
      <div class="card">
        <header><h2>Spec</h2><span class="sub">every field, defaults in grey</span></header>
        <dl class="facts wide3">
          {Object.entries(job.spec).map(([key, value]) => {
            const usual = isUsual(key, value);
            return [<dt key={`${key} k`} class="mono">{key}</dt>, <dd key={key} class={`mono ${usual ? "faint" : ""}`}><bdi>{typeof value === "string" ? value : JSON.stringify(value)}</bdi></dd>];
          })}
        </dl>
      </div>
      <div class="card">
        <header><h2>The same by</h2><div class="grow" /><Segments label="How" value={how} options={[["procession", "procession"], ["curl", "curl"], ["json", "JSON"]]} onChange={setHow} /><Button small icon="copy" label="Copy" onClick={() => void copy(text, "it")} /></header>
        <pre class="box" tabIndex={0}><bdi>{text}</bdi></pre>
      </div>
    </div>
  );
}

const USUAL: Record<string, unknown> = {
  cwd: null, env: {}, secret_env: {}, env_inherit: "default", user: null, group: null, supplementary_groups: null, umask: "0022", nice: null, oom_score_adj: null, cpu_affinity: null, rlimits: {},
  limits: { memory_bytes: null, cpu: null, pids: null }, no_new_privs: true, sandbox: null, stdin: { mode: "null" }, pty: null, output: { merge_stderr: false, max_bytes: 67108864, on_limit: "drop_oldest" },
  timeout_seconds: null, stop: { signal: "SIGTERM", grace_seconds: 10, scope: "group" }, wait_for: "leader", success_exit_codes: [0], queue: "default", priority: 0, weight: 1, concurrency: null, retry: null, start_deadline_seconds: null,
  ttl_seconds_after_finished: 604800, webhooks: [], shell: ["/bin/sh", "-c"],
};

export function isUsual(key: string, value: unknown): boolean {
  // What is nothing was not asked for.
  if (value === null || (Array.isArray(value) && value.length === 0)) return true;
  return key in USUAL && JSON.stringify(USUAL[key]) === JSON.stringify(value);
}

/** What was asked for: only what differs from the defaults. */
export function submissionOf(job: Job): Submission {
  const out: Submission = {};
  if (job.name !== null) out.name = job.name;
  if (Object.keys(job.labels).length > 0) out.labels = job.labels;
  for (const [key, value] of Object.entries(job.spec)) if (!isUsual(key, value)) out[key] = value;
  return out;
}
