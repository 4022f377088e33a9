import { pausesOf } from "../../src/views/job/pauses.ts";
import type { EventType } from "../../src/api/model.ts";
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, commandLine, count, duration, moment, parseBytes, parseDuration, quote } from "../../src/state/format.ts";
import { cutSelector, EVERYTHING, type Filter, fromAddress, STATES, toAddress, toQuery, typed } from "../../src/state/filter.ts";
import { asCurl, asProcession } from "../../src/state/same.ts";
import { difference, EMPTY, formOf, placed, submission } from "../../src/views/run/form.ts";
import { tree } from "../../src/views/job/tree.ts";
import { merged } from "../../src/views/jobs/merge.ts";
import { bucketed } from "../../src/parts/buckets.ts";
import { result } from "../../src/state/words.ts";
import type { BasicJob, Job, ProcessInfo } from "../../src/api/model.ts";
import { random } from "./random.ts";

test("durations and sizes, there and back", () => {
  assert.deepEqual([0.0105, 0.4, 1.84, 48, 221, 8040, 788400].map(duration), ["11 ms", "400 ms", "1.8 s", "48 s", "3 min 41 s", "2 h 14 min", "9 d 3 h"]);
  assert.deepEqual([0, 999, 1000, 3820000, 12_400_000, 1_020_000_000].map(bytes), ["0 B", "999 B", "1 kB", "3.82 MB", "12.4 MB", "1.02 GB"]);
  assert.equal(count(10482086), "10\u202f482\u202f086");
  assert.deepEqual(["90", "10 s", "1.5 h", "2h30m", "250ms"].map(parseDuration), [90, 10, 5400, 9000, 0.25]);
  for (const bad of ["", "two", "10 x", "-1", "1h x"]) assert.equal(parseDuration(bad), null, bad);
  assert.deepEqual(["64 MB", "2GiB", "1024", "1.5k"].map(parseBytes), [64_000_000, 2 ** 31, 1024, 1500]);
  for (const bad of ["", "MB", "2 XB", "1ib"]) assert.equal(parseBytes(bad), null, bad);
  for (const seconds of [1, 59, 60, 61, 3600, 7260, 90000]) assert.equal(parseDuration(duration(seconds)), seconds);
});

test("moments have a day where it is another one", () => {
  const now = Date.parse("2026-01-31T12:00:00Z");
  assert.equal(moment("2026-01-31T09:08:07Z", now, "utc"), "09:08:07");
  assert.equal(moment("2026-01-30T09:08:07Z", now, "utc"), "30 Jan 09:08");
  assert.equal(moment("2025-01-30T09:08:07Z", now, "utc"), "30 Jan 2025");
});

test("filters go into the address and come back", () => {
  const next = random(3);
  for (let i = 0; i < 200; i++) {
    const filter: Filter = {
      states: STATES.filter(() => next(3) === 0), labels: next(2) ? ["team=web", "env in (a,b)", "!x"].slice(0, 1 + next(3)) : [], name: next(2) ? "a&b=c ä#" : "", queue: next(2) ? "default" : "", batch: next(2) ? "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f" : "", schedule: next(2) ? "nightly" : "", node: next(2) ? "n-7.example" : "", by: next(2) ? "token:ci" : "",
      after: next(2) ? "2026-01-31T12:00:00.000Z" : "", before: "", order: next(2) ? "asc" : "desc",
    };
    assert.deepEqual(fromAddress(new URLSearchParams(toAddress(filter).toString())), filter);
  }
  assert.deepEqual(fromAddress(new URLSearchParams("state=evil,running&after=never&order=x")), { ...EVERYTHING, states: ["running"] });
});

test("pauses of a job, also one that goes on", () => {
  const at = (second: number): string => new Date(second * 1000).toISOString();
  const event = (type: EventType, second: number) => ({ type, time: at(second) });
  assert.deepEqual(pausesOf([], 9000), []);
  assert.deepEqual(pausesOf([event("job.paused", 1), event("job.resumed", 3), event("job.paused", 5)], 9000), [{ from: 1000, to: 3000 }, { from: 5000, to: 9000 }]);
  assert.deepEqual(pausesOf([event("job.resumed", 1), event("job.paused", 2), event("job.paused", 3), event("job.stopping", 4), event("job.finished", 5)], 9000), [{ from: 2000, to: 4000 }]);
});

test("what is typed into the filter", () => {
  const now = new Date("2026-01-31T12:00:00Z");
  assert.deepEqual(typed(EVERYTHING, "team=web", now).labels, ["team=web"]);
  assert.deepEqual(typed(EVERYTHING, "!nightly", now).labels, ["!nightly"]);
  assert.equal(typed(EVERYTHING, "crawl-", now).name, "crawl-");
  assert.equal(typed(EVERYTHING, "queue:fast", now).queue, "fast");
  assert.equal(typed(EVERYTHING, "schedule:nightly", now).schedule, "nightly");
  assert.equal(typed(EVERYTHING, "by:token:ci", now).by, "token:ci");
  assert.deepEqual(toQuery({ ...EVERYTHING, by: "uid:7" }), { created_by: "uid:7" });
  assert.equal(typed(EVERYTHING, "since:1h", now).after, "2026-01-31T11:00:00.000Z");
  assert.deepEqual(cutSelector("a=b, c in (d,e),!f"), ["a=b", "c in (d,e)", "!f"]);
  assert.deepEqual(toQuery({ ...EVERYTHING, labels: ["a=b", "!c"], name: "x" }), { label_selector: "a=b,!c", name_prefix: "x" });
});

test("a form becomes a submission, and what is wrong is at its field", () => {
  const { body, errors } = submission({ ...EMPTY, script: "echo", name: " x ", timeout: "10 min", labels: "team=web env=prod", cpu: "two", memory: "2 GB", env: [{ name: "A", value: "1", secret: false }, { name: "K", value: "s", secret: true }] });
  assert.deepEqual(errors, { cpu: "a number such as 0.5 or 2" });
  assert.deepEqual(body, { script: "echo", name: "x", timeout_seconds: 600, labels: { team: "web", env: "prod" }, env: { A: "1" }, secret_env: { K: "s" }, limits: { memory_bytes: 2e9 } });
  assert.deepEqual(submission({ ...EMPTY, kind: "command", command: "ls\n-l\n\n/a b\n" }).body.command, ["ls", "-l", "", "/a b"]);
  assert.deepEqual(submission({ ...EMPTY, kind: "terminal", command: "bash" }).body, { command: ["bash"], pty: {}, stop: { signal: "SIGHUP" } });
  assert.ok("json" in submission({ ...EMPTY, kind: "json", json: "[1]" }).errors);
  assert.deepEqual(placed([{ pointer: "/stop/grace_seconds", code: "out_of_range", detail: "must be ≥ 0" }, { pointer: "/comand", code: "unknown_field", detail: "unknown field" }], "script"), { grace: "must be ≥ 0", "": "/comand: unknown field" });
  assert.deepEqual(placed([{ pointer: "/labels/a~1b", code: "invalid_value", detail: "no" }], "script"), { labels: "no" });
});

const SPEC = {
  command: ["a", "b c"], cwd: "/srv", env: { A: "1" }, secret_env: { K: null }, timeout_seconds: 60, stop: { signal: "SIGINT", grace_seconds: 5, scope: "group" }, limits: { memory_bytes: null, cpu: 2, pids: null },
  output: { merge_stderr: false, max_bytes: 67108864, on_limit: "drop_oldest" }, stdin: { mode: "null" }, pty: null, user: null, queue: "default", priority: 0, ttl_seconds_after_finished: 604800, webhooks: [], success_exit_codes: [0], wait_for: "leader",
};
const JOB = { id: "x", name: "n", labels: { a: "b" }, spec: SPEC } as unknown as Job;

test("again with changes sends the changes", () => {
  const before = formOf(JOB);
  assert.deepEqual(difference(submission(before).body, submission(before).body), {});
  const after = { ...before, timeout: "2 min", cpu: "", env: [...before.env, { name: "B", value: "2", secret: false }] };
  assert.deepEqual(difference(submission(before).body, submission(after).body), { timeout_seconds: 120, limits: null, env: { B: "2" } });
  assert.deepEqual(difference(submission(before).body, submission({ ...before, labels: "" }).body), { labels: null });
  assert.deepEqual(submission(before).body.command, ["a", "b c"]);
});

test("the same job by other means", () => {
  assert.equal(quote("a'b c"), "'a'\\''b c'");
  assert.equal(commandLine({ command: ["echo", "a b", "$x"] }), "echo 'a b' '$x'");
  assert.equal(asProcession({ command: ["make", "-C", "/srv"], name: "x", timeout_seconds: 600, labels: { a: "b" } }), "procession run -d \\\n  --name x \\\n  --timeout 10m \\\n  -l a=b \\\n  -- make -C /srv");
  assert.ok(asProcession({ script: "x", pty: {} }).includes("-f -"));
  assert.ok(asCurl({ script: "it's" }).includes("it'\\''s"));
});

test("processes are a tree, also where a parent is missing or they are in a ring", () => {
  const one = (pid: number, ppid: number): ProcessInfo => ({ pid, ppid }) as ProcessInfo;
  const made = tree([one(5, 4), one(4, 1), one(6, 4), one(7, 6), one(9, 1)], () => null);
  assert.deepEqual(made.map((branch) => `${branch.lead}${branch.info.pid}${branch.apart ? "!" : ""}`), ["4", "├ 5", "└ 6", "  └ 7", "9!"]);
  assert.equal(tree([one(2, 3), one(3, 2)], () => null).length, 2);
});

test("a list that is shown is made new without a row that moves", () => {
  const job = (id: string, version: number, at: string, state = "running"): BasicJob => ({ id, version, created_at: at, state }) as BasicJob;
  const shown = [job("b", 1, "2"), job("a", 1, "1")];
  const { jobs, fresh, gone } = merged(shown, [job("d", 1, "4"), job("c", 1, "3"), job("b", 2, "2")]);
  assert.deepEqual(jobs.map((one) => `${one.id}${one.version}`), ["b2", "a1"]);
  assert.equal(fresh, 2);
  assert.deepEqual(gone, ["a"]);
  assert.equal(jobs[1], shown[1], "what has not changed is the same object");
});

test("what happened goes to the bar in which it was", () => {
  const now = Date.parse("2026-01-31T12:00:30Z");
  const none = { created: 0, started: 0, succeeded: 0, failed: 0, timed_out: 0, canceled: 0, lost: 0, most_running: 0, most_queued: 0, cpu_seconds: 0 };
  const steps = [{ ...none, at: "2026-01-31T10:00:00Z", succeeded: 9 }, { ...none, at: "2026-01-31T11:59:00Z", failed: 2, most_running: 3, cpu_seconds: 1.5 }, { ...none, at: "2026-01-31T12:00:00Z", succeeded: 1, most_queued: 4 }];
  const made = bucketed(steps, "1h", now);
  assert.equal(made.length, 60);
  assert.deepEqual(made.at(-1)!.counts, { succeeded: 1 });
  assert.deepEqual(made.at(-2)!.counts, { failed: 2 });
  assert.deepEqual([made.at(-1)!.queued, made.at(-2)!.running, made.at(-2)!.cpu], [4, 3, 1.5]);
  assert.equal(made.reduce((sum, one) => sum + one.total, 0), 3);
  const halves = bucketed(steps, "24h", now);
  assert.equal(halves.reduce((sum, one) => sum + one.total, 0), 12);
  assert.equal(halves.at(-1)!.total, 3);
});

test("how a job ended, in words", () => {
  const job = (part: object): Parameters<typeof result>[0] => ({ state: "failed", state_reason: null, state_message: null, exit: null, termination: null, spawn_failure: null, started_at: null, finished_at: null, created_at: "", ...part }) as Parameters<typeof result>[0];
  assert.equal(result(job({ exit: { code: 2, signal: null }, termination: { cause: "exited" } })), "exit code 2");
  assert.equal(result(job({ exit: { code: null, signal: "SIGSEGV" }, termination: { cause: "signaled" } })), "SIGSEGV");
  assert.equal(result(job({ state: "canceled", termination: { cause: "canceled", requested_by: "token:panel", reason: "wrong preset" } })), "by panel: wrong preset");
  assert.equal(result(job({ state: "lost", termination: { cause: "host_rebooted" } })), "the host was restarted");
});
