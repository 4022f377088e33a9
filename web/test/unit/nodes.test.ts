import assert from "node:assert/strict";
import { test } from "node:test";
import type { Node } from "../../src/api/model.ts";
import { result } from "../../src/state/words.ts";
import { labels, sentence, standing } from "../../src/views/nodes/nodes.ts";

const NODE: Node = { name: "n1", state: "connected", hub: false, draining: false, accepting: true, labels: { "procession/name": "n1", gpu: "a100" }, slots: 8, jobs: 2, weight: 3, version: "0.1.0", since: "2026-01-01T00:00:00Z", lost_at: null };

test("a node stands as one word, and what follows for its jobs", () => {
  const words = (node: Partial<Node>): string[] => { const { word, means } = standing({ ...NODE, ...node }); return [word, means]; };
  assert.deepEqual(words({}), ["Connected", ""]);
  assert.deepEqual(words({ draining: true, accepting: false }), ["Draining", "no new job; what runs goes on"]);
  assert.deepEqual(words({ draining: true, accepting: false, jobs: 0 }), ["Draining", "no new job"]);
  assert.deepEqual(words({ accepting: false }), ["Takes no jobs", "it says so itself"]);
  // That it is away is more than that it is drained.
  assert.deepEqual(words({ state: "unreachable", draining: true, accepting: false }), ["Unreachable", "its jobs run on, unseen"]);
});

test("the labels that somebody has given a node", () => {
  assert.deepEqual(labels(NODE), ["gpu=a100"]);
});

test("the cluster in a sentence", () => {
  assert.equal(sentence([NODE]), "one node, 3 of 8 slots taken");
  const away: Node = { ...NODE, state: "unreachable", draining: true };
  assert.equal(sentence([NODE, away, away, { ...NODE, draining: true }]), "4 nodes, 2 are unreachable, one is draining, 12 of 32 slots taken");
});

test("a job whose node is not heard says so", () => {
  const job = { state: "running" as const, state_reason: null, state_message: null, exit: null, termination: null, spawn_failure: null, started_at: null, finished_at: null, created_at: "" };
  assert.equal(result(job), "");
  assert.equal(result({ ...job, state_reason: "node_unreachable", state_message: "n1 is not heard since 12:00" }), "n1 is not heard since 12:00");
  assert.equal(result({ ...job, state: "lost", state_reason: "node_lost" }), "its node was lost");
});
