// The processes of a job: as a tree, by what they use, and what is left of a lost job.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service, until } from "../harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

/** The parent of a process. */
async function parent(pid) {
  return Number((await readFile(`/proc/${pid}/stat`, "utf8")).replace(/^.*\) /s, "").split(" ")[1]);
}

const isThere = (pid) => readFile(`/proc/${pid}/stat`, "utf8").then((text) => !/\) Z /.test(text), () => false);

test("five processes are a tree, the busy one is seen to be, and a daemon is marked", options, async () => {
  const job = await service.create({ script: "sh -c 'while :; do :; done' & sleep 301 & (setsid sleep 302 >/dev/null 2>&1 &)\nsleep 303", name: "family" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}?tab=processes`);
  const { page } = visitor;
  const rows = page.locator("table.procs tbody tr");
  await until(async () => (await rows.count()) === 5, "five processes");
  const { processes } = await (await service.api("GET", `/jobs/${job.id}/processes`)).json();
  const text = (await rows.allTextContents()).join("\n");
  for (const { pid } of processes) assert.ok(text.includes(String(pid)), text);
  // Children are drawn below their parent; the daemon has left. The leader's script has all of these words, too.
  const of = (words) => rows.filter({ has: page.locator("td:first-child", { hasText: new RegExp(`^[├└│ ]*${words}`) }) });
  for (const sleeper of ["sleep 301", "sleep 303"]) assert.match(await of(sleeper).locator("td").first().textContent(), /^[├└] sleep/);
  await of("sleep 302").getByText("outside of the tree").waitFor();
  assert.equal(await page.getByText("outside of the tree").count(), 1);
  const use = (words) => of(words).locator("td").nth(3).textContent();
  await until(async () => /^[1-9][0-9]* %$/.test(await use("sh -c 'while")), "what the busy one uses");
  await until(async () => (await use("sleep 301")) === "0 %", "what a sleeping one uses");
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByRole("button", { name: "Kill at once" }).click();
  await page.locator(".title .state", { hasText: "Canceled" }).waitFor();
  await page.getByText("None of the job is left.").waitFor();
  for (const { pid } of processes) assert.ok(!(await isThere(pid)), `${pid} is left`);
  await visitor.leave();
});

test("what is left of a lost job is shown, and ended", options, async () => {
  const job = await service.create({ script: "sleep 304 & exec sleep 305", name: "orphan" });
  await until(async () => (await (await service.api("GET", `/jobs/${job.id}/processes`)).json()).processes.length === 2, "two processes");
  const { processes } = await (await service.api("GET", `/jobs/${job.id}/processes`)).json();
  const leader = (await service.job(job.id)).process.pid;
  const monitor = await parent(leader);
  await service.crash();
  process.kill(monitor, "SIGKILL");
  service = await Service.start([], service.dir);
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await page.locator(".title .state", { hasText: "Lost" }).waitFor();
  await page.getByRole("button", { name: "End what is left" }).click();
  await page.getByRole("button", { name: "Kill at once" }).click();
  await until(async () => (await Promise.all(processes.map(({ pid }) => isThere(pid)))).every((there) => !there), "the end of what was left");
  await visitor.leave();
});
