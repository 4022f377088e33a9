import assert from "node:assert/strict";
import { test } from "node:test";
import type { Batch, Schedule } from "../../src/api/model.ts";
import { subjectOf, typeWords } from "../../src/state/subject.ts";
import { ended, keys, parts, progress } from "../../src/views/batches/batches.ts";
import { bodyOf, formOf, placed, skippedWords, times, timesOf } from "../../src/views/schedules/schedules.ts";

const data = (name: string | null) => ({ name, labels: {}, state: "running" as const, version: 1, attempt: 1 });

test("an event leads to what it is about", () => {
  const id = "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f";
  assert.deepEqual(subjectOf({ subject: id, data: data(null) }), { path: `jobs/${id}`, word: "0198c1d2…5e6f" });
  assert.deepEqual(subjectOf({ subject: id, data: data("build") }), { path: `jobs/${id}`, word: "build" });
  assert.deepEqual(subjectOf({ subject: `batch/${id}`, data: data("many") }), { path: `batches/${id}`, word: "many" });
  assert.deepEqual(subjectOf({ subject: "schedule/nightly-report", data: data(null) }), { path: "schedules/nightly-report", word: "nightly-report" });
  assert.deepEqual(subjectOf({ subject: "queue/render", data: data(null) }), { path: "queues", word: "render" });
  assert.deepEqual(subjectOf({ subject: "node/seven", data: data(null) }), { path: "events", word: "node/seven" });
  assert.equal(typeWords("job.attempt_finished"), "attempt finished");
  assert.equal(typeWords("batch.created"), "batch created");
});

const BATCH = { total: 500, state: "running", counts: { succeeded: 310, failed: 2, running: 10, queued: 178 } } as unknown as Batch;

test("how far a batch is, in words and parts that are the whole", () => {
  assert.equal(ended(BATCH), 312);
  assert.equal(progress(BATCH), "312 of 500 ended, 2 failed, 10 running");
  assert.equal(parts(BATCH).reduce((sum, one) => sum + one.part, 0), 1);
  assert.deepEqual(parts(BATCH).map((one) => one.state), ["succeeded", "failed", "running", "queued"]);
  assert.equal(progress({ total: 1, state: "succeeded", counts: { succeeded: 1 } }), "the one job ended");
});

test("a job of a batch is of the entry that begins last before it", () => {
  const keyOf = keys({ jobs: { join: "0198-09", fetch: "0198-01", shard: { first: "0198-02", count: 7 } } });
  assert.deepEqual(["0198-01", "0198-02", "0198-08", "0198-09", "0197-00"].map(keyOf), ["fetch", "shard", "shard", "join", ""]);
});

const SCHEDULE = { name: "nightly", cron: "30 2 * * *", every_seconds: null, at: null, time_zone: "Europe/Berlin", overlap: "queue", missed: "all", job: { script: "echo" } } as unknown as Schedule;

test("a schedule in words, and its form there and back", () => {
  assert.equal(times(SCHEDULE), "30 2 * * *, Europe/Berlin");
  assert.equal(times({ ...SCHEDULE, cron: null, every_seconds: 300 }), "every 5 min");
  assert.equal(times({ ...SCHEDULE, cron: null, every_seconds: 3600 }), "every hour");
  assert.equal(times({ ...SCHEDULE, cron: null, every_seconds: 5400 }), "every 1 h 30 min");
  assert.equal(times({ ...SCHEDULE, cron: null, at: ["2027-01-31T09:00:00Z", "2027-02-28T09:00:00Z"] }), "at 2 moments");
  assert.deepEqual(bodyOf(formOf(SCHEDULE, "UTC"), true), { body: { cron: "30 2 * * *", time_zone: "Europe/Berlin", overlap: "queue", missed: "all" }, errors: {} });
  const made = { ...formOf(null, "UTC"), name: "a", how: "every" as const, every: "5 min", script: "true" };
  assert.deepEqual(bodyOf(made, false), { body: { every_seconds: 300, overlap: "skip", missed: "latest", job: { script: "true" } }, errors: {} });
  assert.deepEqual(Object.keys(bodyOf({ ...made, name: "", every: "often", script: " " }, false).errors).sort(), ["every", "name", "script"]);
  assert.deepEqual(timesOf({ ...made, how: "at", at: "2027-01-31T09:00:00Z\n\n2027-01-31T10:00:00+01:00" }).body, { at: ["2027-01-31T09:00:00.000Z", "2027-01-31T09:00:00.000Z"] });
  assert.equal(timesOf({ ...made, how: "at", at: "soon" }).errors["at"], "“soon” is no moment");
});

test("mistakes of a schedule are placed, and a skipped time says why", () => {
  assert.deepEqual(placed([{ pointer: "/cron", code: "invalid", detail: "no such month" }, { pointer: "/job/script", code: "x", detail: "too long" }, { pointer: "/jitter_seconds", code: "x", detail: "no" }]), { cron: "no such month", script: "too long", "": "/jitter_seconds: no" });
  assert.equal(skippedWords({ due_at: "2026-01-31T12:00:00Z", outcome: "skipped", job_id: null, reason: "overlap" }), "skipped: its last job had not ended");
  assert.equal(skippedWords({ due_at: "2026-01-31T12:00:00Z", outcome: "started", job_id: "a", reason: null }), "");
});
