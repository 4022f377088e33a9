// Who may only look can do nothing, by hand either.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { LIMIT, root, Service, until } from "../harness.mjs";

let service;
before(async () => { service = await Service.start(); });
after(async () => { await service.stop(); });

const options = { timeout: 4 * LIMIT };

/** Every operation that needs more than to look, as openapi.yaml has it. */
async function writes() {
  const out = [];
  let path = "", method = "";
  for (const line of (await readFile(join(root, "openapi.yaml"), "utf8")).split("\n")) {
    path = /^  (\/\S*):$/.exec(line)?.[1] ?? path;
    method = /^    (get|put|post|patch|delete):$/.exec(line)?.[1] ?? method;
    if (/^      security: \[\{bearer: \[(operate|admin)\]\}\]/.test(line)) out.push([method.toUpperCase(), path]);
  }
  return out;
}

test("with the scope read every operation that changes something is refused", options, async () => {
  const made = (await service.cli("token", "create", "--name", "looker", "--scope", "read")).trim().split("\n").at(-1);
  const ask = (method, path) => fetch(`${service.url}${path}`, { method, headers: { Authorization: `Bearer ${made}`, "Content-Type": path.includes("PATCH") ? "application/merge-patch+json" : "application/json" }, ...(method === "GET" || method === "DELETE" ? {} : { body: "{}" }) });
  await until(async () => (await ask("GET", "/jobs")).ok, "the new token");
  const job = await service.create({ command: ["sleep", "300"], name: "left-alone" });
  const all = await writes();
  assert.ok(all.length > 30, `${all.length} operations`);
  for (const [method, path] of all) {
    const answer = await ask(method, path.replace("/jobs/{id}", `/jobs/${job.id}`).replaceAll(/\{id\}/g, job.id).replaceAll(/\{name\}/g, "default"));
    assert.equal(answer.status, 403, `${method} ${path}: ${await answer.text()}`);
  }
  assert.equal((await service.job(job.id)).state, "running");
  await service.api("DELETE", `/jobs/${job.id}?force&wait=30`);
});
