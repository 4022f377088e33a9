// A hub and a node: who has joined, which job is where, drained, lost and given up.

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Browser, LIMIT, rows, Service, until } from "../harness.mjs";
import { bringAxe, findings, misfits } from "../look.mjs";

let hub, browser;
const nodes = new Set();
before(async () => { [hub, browser] = await Promise.all([Service.start(["--cluster", "local", "--role", "api", "--node-name", "hub"]), Browser.start()]); });
after(async () => { await browser.stop(); await Promise.all([...nodes].map((node) => node.stop())); await hub.stop(); });

const options = { timeout: 4 * LIMIT };

/** A node with two slots, with a token that is in a file. */
async function joined(name, file, dir = null) {
  const node = await Service.start(["--join", hub.url, "--join-token-file", file, "--node-name", name, "--max-running", "2", "--on-shutdown", "stop"], dir);
  nodes.add(node);
  return node;
}

async function leave(node) {
  nodes.delete(node);
  await node.stop();
}

/** The hub, by an admin who has axe. */
async function admin(view, more = {}) {
  const visitor = await browser.visitor(hub, { allowed: [/status of 503/, /WebSocket/], ...more });
  await bringAxe(visitor.page);
  await visitor.page.goto(await hub.wayIn("--scope", "admin"));
  await visitor.page.locator(".app").waitFor();
  await visitor.page.goto(`${hub.url}/ui/${view}`);
  return visitor;
}

async function state(name) {
  const answer = await hub.api("GET", `/nodes/${name}`);
  return answer.status === 200 ? (await answer.json()).state : null;
}

test("a node joins with a token of the page, runs a job, is drained, goes away, and is given up", options, async () => {
  const visitor = await admin("nodes");
  const { page } = visitor;
  await page.getByText("No node has joined").waitFor();
  await page.getByText(`procession serve --join ${hub.url} --join-token-file FILE --node-name NAME`).waitFor();
  // A token for it, as an operator makes one.
  await page.goto(`${hub.url}/ui/access`);
  await page.getByRole("button", { name: "Token", exact: true }).click();
  await page.getByLabel("Name").fill("n1");
  await page.getByLabel("May").selectOption("runner");
  await page.getByRole("button", { name: "Make it" }).click();
  await page.getByText("Whoever has it may join as a node.").waitFor();
  const file = join(hub.dir, "n1.token");
  await writeFile(file, await page.getByLabel("Token", { exact: true }).textContent(), { mode: 0o600 });
  await page.getByRole("button", { name: "Done" }).click();
  const node = await joined("n1", file);
  await page.getByRole("link", { name: "Nodes" }).click();
  const row = page.locator("tr", { hasText: "n1" });
  await row.getByText("Connected").waitFor();
  await row.getByText("0 of 2").waitFor();
  await page.getByText("one node, 0 of 2 slots taken").waitFor();
  assert.equal(await row.getByRole("button", { name: "Give n1 up" }).count(), 0);
  // A job of the page is on it, and says so.
  await page.goto(`${hub.url}/ui/run`);
  await page.getByLabel("Script", { exact: true }).fill(`echo on a node; until test -e ${hub.dir}/more; do sleep 0.05; done; echo and more; exec sleep 300`);
  await page.getByLabel("Name").fill("far");
  await page.keyboard.press("Control+Enter");
  await until(async () => (await rows(page)).join() === "on a node", "its output, through the hub");
  await writeFile(join(hub.dir, "more"), "");
  await until(async () => (await rows(page)).join() === "on a node,and more", "what it writes while it is looked at");
  await page.locator(".cmdline").getByRole("link", { name: "n1" }).waitFor();
  const far = page.url().split("/").at(-1);
  await page.goto(`${hub.url}/ui/jobs`);
  await page.locator("tr", { hasText: "far" }).getByText("on n1").waitFor();
  // Drained: what runs goes on, and nothing new comes.
  await page.goto(`${hub.url}/ui/nodes`);
  await row.getByText("1 of 2").waitFor();
  await page.getByRole("button", { name: "Drain n1" }).click();
  await row.getByText("no new job; what runs goes on").waitFor();
  await page.getByText("one node, one is draining, 1 of 2 slots taken").waitFor();
  const waits = await hub.create({ command: ["sleep", "300"], name: "waits" });
  assert.equal((await hub.job(waits.id)).state, "queued");
  await page.getByRole("button", { name: "Give n1 jobs again" }).click();
  await row.getByText("2 of 2").waitFor();
  await row.getByText("Connected").waitFor();
  await until(async () => (await hub.job(waits.id)).state === "running", "its start");
  assert.equal((await hub.job(waits.id)).node, "n1");
  // Its machine fails: the jobs say so, and are lost once it is given up.
  nodes.delete(node);
  await node.crash();
  await row.getByText("Unreachable").waitFor();
  await row.getByText("jobs lost in").waitFor();
  await page.goto(`${hub.url}/ui/jobs/${far}`);
  await page.locator(".blocked", { hasText: "node" }).waitFor();
  await page.goto(`${hub.url}/ui/nodes`);
  await page.getByRole("button", { name: "Give n1 up" }).click();
  await page.getByText("Its 2 jobs are lost at once").waitFor();
  await page.locator("dialog").getByRole("button", { name: "Give it up" }).click();
  await page.getByText("No node has joined").waitFor();
  await page.goto(`${hub.url}/ui/jobs/${far}`);
  await page.locator(".title .state", { hasText: "Lost" }).waitFor();
  await page.getByText("its node was lost").first().waitFor();
  await visitor.leave();
  // Its jobs are found by it after their end, too.
  const after = await admin("jobs?node=n1&state=lost");
  await after.page.locator(".chip", { hasText: "n1" }).waitFor();
  await after.page.locator("tr", { hasText: "far" }).waitFor();
  await after.page.locator("tr", { hasText: "waits" }).waitFor();
  await after.page.goto(`${hub.url}/ui/jobs?node=hub`);
  await after.page.getByText("No job is like this").waitFor();
  await after.leave();
  // What it left is ended by itself.
  await leave(await joined("n1", file, node.dir));
});

test("the nodes by keys, on small screens, by axe, and for who may only look", options, async () => {
  const file = join(hub.dir, "n2.token");
  await writeFile(file, (await (await hub.api("POST", "/tokens", { name: "n2", scope: "runner" })).json()).token, { mode: 0o600 });
  const node = await joined("n2", file);
  await until(async () => (await state("n2")) === "connected", "the node");
  for (const [kind, look] of [["light", { colorScheme: "light" }], ["dark", { colorScheme: "dark" }], ["320 px", { viewport: { width: 320, height: 640 }, deviceScaleFactor: 2, hasTouch: true }]]) {
    const visitor = await admin("nodes", look);
    await visitor.page.getByRole("button", { name: "Drain n2" }).waitFor();
    assert.deepEqual(await findings(visitor.page), [], kind);
    if (look.viewport) assert.deepEqual(await misfits(visitor.page), [], kind);
    await visitor.leave();
  }
  const visitor = await admin("");
  const { page } = visitor;
  await page.getByRole("link", { name: "Nodes" }).waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("m");
  const drain = page.getByRole("button", { name: "Drain n2" });
  await drain.waitFor();
  for (let i = 0; i < 40 && !(await drain.evaluate((one) => one === document.activeElement)); i++) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  const again = page.getByRole("button", { name: "Give n2 jobs again" });
  await again.waitFor();
  assert.ok(await again.evaluate((one) => one === document.activeElement), "the focus stays");
  await page.keyboard.press("Enter");
  await drain.waitFor();
  await visitor.leave();
  const reader = await browser.visitor(hub);
  await reader.page.goto(await hub.wayIn("--scope", "read"));
  await reader.page.locator(".app").waitFor();
  await reader.page.getByRole("link", { name: "Nodes" }).click();
  await reader.page.locator("tr", { hasText: "n2" }).getByText("Connected").waitFor();
  assert.equal(await reader.page.locator("tbody button").count(), 0);
  await reader.leave();
  await leave(node);
  await until(async () => (await state("n2")) === "unreachable", "its end");
  assert.equal((await hub.api("DELETE", "/nodes/n2")).status, 204);
});
