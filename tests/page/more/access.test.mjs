// Who may only look can do nothing, by hand either; and the page under another name.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Browser, LIMIT, root, rows, Service, until } from "../harness.mjs";

let service;
before(async () => { service = await Service.start(["--allowed-host", "jobs.example", "--cluster", "local", "--node-name", "hub"]); });
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

test("under a name that is allowed the page works, under another it is refused", options, async () => {
  const browser = await Browser.start(["--host-resolver-rules=MAP jobs.example 127.0.0.1, MAP evil.example 127.0.0.1"]);
  try {
    const { port } = new URL(service.url);
    const url = `http://jobs.example:${port}`;
    const visitor = await browser.visitor({ url }, { allowed: [/status of 401/, /Cross-Origin-Opener-Policy header has been ignored/] });
    const { page } = visitor;
    await page.goto(`${url}/ui/run`);
    await page.getByLabel("Or a token").fill(service.token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByLabel("Script", { exact: true }).fill("echo by name");
    await page.keyboard.press("Control+Enter");
    await until(async () => (await rows(page)).join() === "by name", "its output");
    await page.locator(".live.live").waitFor();
    await visitor.leave();
    const other = await browser.visitor({ url: `http://evil.example:${port}` }, { allowed: [/status of 421/] });
    assert.equal((await other.page.goto(`http://evil.example:${port}/ui/`)).status(), 421);
    await other.leave();
  } finally {
    await browser.stop();
  }
});
