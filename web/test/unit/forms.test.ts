import assert from "node:assert/strict";
import { test } from "node:test";
import type { Queue, Template } from "../../src/api/model.ts";
import { asProcession } from "../../src/state/same.ts";
import { countBy, parseCast, squeezed } from "../../src/terminal/cast.ts";
import { formOf, load, patchOf, rate, rules } from "../../src/views/queues/queues.ts";
import { commandOf, parameters, placedAt, submissionOf } from "../../src/views/run/template.ts";

const TEMPLATE: Template = {
  name: "deploy",
  command: ["/opt/deploy", "{env}", "--level", "{level}", "{host}", "{file}"],
  params: {
    type: "object", required: ["env", "level", "host", "file"], additionalProperties: false,
    properties: {
      level: { type: "integer", minimum: 1, maximum: 9 }, env: { type: "string", enum: ["prod", "test"] },
      host: { type: "string", maxLength: 4096, pattern: "^(?:[a-z]+)$" }, file: { type: "string", maxLength: 4096, "x-beneath": "/srv/data" },
    },
  } as object as Template["params"],
};

test("a template is a form of its parameters, in the order of the command", () => {
  assert.deepEqual(parameters(TEMPLATE).map((one) => [one.name, one.kind, one.hint]), [
    ["env", "choice", ""], ["level", "integer", "a whole number from 1 to 9"], ["host", "text", "matches [a-z]+"], ["file", "path", "a path beneath /srv/data"],
  ]);
});

test("a form of a template is sent with its types, and says what it cannot send", () => {
  const { body, errors } = submissionOf(TEMPLATE, { env: "prod", level: "3", host: "a", file: "/srv/data/x" }, "now", "a=b");
  assert.deepEqual(errors, {});
  assert.deepEqual(body, { template: "deploy", params: { env: "prod", level: 3, host: "a", file: "/srv/data/x" }, name: "now", labels: { a: "b" } });
  assert.deepEqual(Object.keys(submissionOf(TEMPLATE, { level: "x" }, "", "a").errors), ["env", "level", "host", "labels"]);
  assert.equal(asProcession(body), "procession run -d \\\n  --template deploy \\\n  --param env=prod \\\n  --param level=3 \\\n  --param host=a \\\n  --param file=/srv/data/x \\\n  --name now \\\n  -l a=b");
});

test("mistakes of parameters are placed, and the command is shown as far as it is known", () => {
  const placed = placedAt([{ pointer: "/params/level", code: "out_of_range", detail: "too large" }, { pointer: "/webhooks", code: "x", detail: "no" }], TEMPLATE);
  assert.deepEqual(placed, { level: "too large", "": "/webhooks: no" });
  assert.deepEqual(commandOf(TEMPLATE, { env: "test", level: "2" }), ["/opt/deploy", "test", "--level", "2", "{host}", "/srv/data/"]);
});

const QUEUE: Queue = {
  name: "render", max_running: 4, max_queued: null, rate: { starts: 10, per_seconds: 60 }, paused: false, pause_reason: null, fair_by: { label: "customer" }, default_priority: 2,
  version: 1, created_at: null, changed_at: null, running: 2, running_weight: 3, queued: 0, oldest_queued_at: null, next_start_at: null,
};

test("a queue in words, and its settings there and back", () => {
  assert.deepEqual(load(QUEUE), { part: 0.75, words: " · weight 3 of 4" });
  assert.deepEqual(load({ ...QUEUE, max_running: null }), { part: null, words: "" });
  assert.equal(rate(QUEUE), "at most 10 starts a minute");
  assert.equal(rate({ ...QUEUE, rate: { starts: 1, per_seconds: 90 } }), "at most 1 start in 1 min 30 s");
  assert.equal(rules(QUEUE), "turns by customer, priority 2");
  const { body, errors } = patchOf(formOf(QUEUE));
  assert.deepEqual(errors, {});
  assert.deepEqual(body, { max_running: 4, max_queued: null, rate: { starts: 10, per_seconds: 60 }, fair_by: { label: "customer" }, default_priority: 2 });
  assert.deepEqual(Object.keys(patchOf({ ...formOf(null), maxRunning: "x", per: "1 min" }).errors).sort(), ["maxRunning", "name", "starts"]);
});

test("a recording is read, and its long pauses are cut", () => {
  const cast = parseCast('{"version": 2, "width": 100, "height": 30}\n[0.5, "o", "a"]\n[10, "r", "120x50"]\nbroken\n[11, "o", "b"]\n[11, "m", "3 bytes are not kept"]\n[12, "i", "x"]\n[13, "o"');
  assert.deepEqual([cast.cols, cast.rows, cast.events.map((one) => one.kind)], [100, 30, ["output", "size", "output", "mark"]]);
  assert.deepEqual(squeezed(cast.events, 2), [0.5, 2.5, 3.5, 3.5]);
  assert.deepEqual(squeezed(cast.events, Infinity), [0.5, 10, 11, 11]);
  const times = squeezed(cast.events, 2);
  assert.deepEqual([0, 0.5, 2.4, 2.5, 9].map((at) => countBy(times, at)), [0, 1, 1, 2, 4]);
  assert.deepEqual(parseCast("nothing"), { cols: 80, rows: 24, events: [] });
});
