// What is done to jobs besides running and stopping one, and the keys of the list.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, rows, Service, until } from "../harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("each mistake is at its field, checking creates nothing, and a secret is kept nowhere", options, async () => {
  const visitor = await browser.signedIn(service, "run", { allowed: [/status of 422/] });
  const { page } = visitor;
  const before = (await (await service.api("GET", "/jobs?page_size=1000")).json()).jobs.length;
  await page.getByLabel("Script", { exact: true }).fill("echo $K");
  await page.getByLabel("Directory").fill("not/absolute");
  await page.locator("summary", { hasText: "Limits" }).click();
  await page.getByLabel("Cores").fill("two");
  await page.getByRole("button", { name: "Only check" }).click();
  await page.locator(".field", { hasText: "Cores" }).getByText("a number such as 0.5 or 2").waitFor();
  await page.getByLabel("Cores").fill("");
  await page.getByRole("button", { name: "Only check" }).click();
  await page.locator(".field.wrong", { hasText: "Directory" }).locator(".err").waitFor();
  await page.getByLabel("Directory").fill("/tmp");
  await page.getByRole("button", { name: "Variable" }).click();
  await page.getByLabel("Name of the variable").fill("K");
  await page.getByLabel("secret").check();
  await page.getByLabel("Value of K").fill("hunter2-secret");
  await page.getByRole("button", { name: "Only check" }).click();
  await page.getByText("The service takes it as it is.").waitFor();
  const shown = await page.evaluate(() => document.body.innerText + location.href + JSON.stringify({ ...sessionStorage, ...localStorage }));
  assert.ok(!shown.includes("hunter2"));
  const after = (await (await service.api("GET", "/jobs?page_size=1000")).json()).jobs.length;
  assert.equal(after, before);
  await visitor.leave();
});

test("pause, resume, a signal, a longer timeout, and again with changes", options, async () => {
  const job = await service.create({ script: "trap 'echo caught' USR1; echo ready; while :; do sleep 0.1; done", name: "handled", timeout_seconds: 600, secret_env: { K: "s" } });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await until(async () => (await rows(page)).includes("ready"), "its output");
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator(".title .state", { hasText: "Paused" }).waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.locator(".title .state", { hasText: "Running" }).waitFor();
  await page.getByRole("button", { name: "Signal" }).click();
  await page.getByRole("menuitem", { name: "SIGUSR1" }).click();
  await until(async () => (await rows(page)).includes("caught"), "the signal");
  await page.getByRole("button", { name: "extend" }).click();
  await page.locator("#edit-timeout").fill("2 h");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await until(async () => (await service.job(job.id)).spec.timeout_seconds === 7200, "the timeout");
  await page.getByRole("button", { name: "More", exact: true }).click();
  await page.getByRole("menuitem", { name: "Again with changes" }).click();
  await page.getByLabel("Value of K").fill("again");
  await page.getByLabel("Name", { exact: true }).fill("changed");
  const sent = page.waitForRequest((request) => request.url().endsWith("/rerun"));
  await page.locator(".form button[type=submit]").click();
  assert.deepEqual((await sent).postDataJSON(), { name: "changed", secret_env: { K: "again" } });
  await page.locator("h1", { hasText: "changed" }).waitFor();
  for (const name of ["handled", "changed"]) {
    const { jobs } = await (await service.api("GET", `/jobs?name_prefix=${name}`)).json();
    for (const one of jobs) await service.api("DELETE", `/jobs/${one.id}?force&wait=30`);
  }
  await visitor.leave();
});

test("a stop of all that match hits those that were there", options, async () => {
  await service.api("POST", "/batches", { jobs: [{ key: "bulk", repeat: 120, command: ["true"], labels: { batch: "bulk" }, hold: true }] });
  const other = await service.create({ command: ["true"], name: "other", hold: true });
  const visitor = await browser.signedIn(service, "jobs?label=batch%3Dbulk", { allowed: [/409/] });
  const { page } = visitor;
  await page.getByLabel("Select this page").check();
  await page.getByRole("button", { name: "Select all 120" }).click();
  await page.getByText("120 selected").waitFor();
  const late = await service.create({ command: ["true"], name: "late", hold: true, labels: { batch: "bulk" } });
  await page.getByRole("button", { name: "Stop …" }).click();
  await page.getByText("Stop 120 jobs?").waitFor();
  const go = page.locator("dialog").getByRole("button", { name: "Stop 120" });
  await page.getByLabel("Type 120 to go on").fill("12");
  assert.ok(await go.isDisabled(), "the count has to be typed");
  await page.getByLabel("Type 120 to go on").fill("120");
  // Another job that was there has got the label: more than somebody was shown are not stopped.
  await service.api("PATCH", `/jobs/${other.id}`, { labels: { batch: "bulk" } });
  const asked = [];
  page.on("request", (request) => { if (request.method() === "POST" && new URL(request.url()).pathname.startsWith("/jobs/")) asked.push([new URL(request.url()).pathname, request.postDataJSON()?.expect]); });
  await go.click();
  await page.locator("dialog [role=alert]", { hasText: "121 jobs match and 120 were expected; nothing was done" }).waitFor();
  const { counts } = await (await service.api("GET", "/jobs/counts?label_selector=batch%3Dbulk")).json();
  assert.equal(counts.find((one) => one.state === "queued").count, 122);
  // One has ended meanwhile: fewer are.
  await service.api("PATCH", `/jobs/${other.id}`, { labels: { batch: null } });
  const [first] = (await (await service.api("GET", "/jobs?label_selector=batch%3Dbulk&order_by=created_at%20asc&page_size=1")).json()).jobs;
  await service.api("DELETE", `/jobs/${first.id}?force&wait=30`);
  await go.click();
  await page.locator("dialog").waitFor({ state: "detached" });
  assert.deepEqual(asked, [["/jobs/stop", 120], ["/jobs/stop", 120], ["/jobs/stop", 119]]);
  await until(async () => {
    const { jobs } = await (await service.api("GET", "/jobs?label_selector=batch%3Dbulk&state=queued,starting,running,stopping&page_size=1000")).json();
    return jobs.length === 1 && jobs[0].id === late.id;
  }, "the end of those and of no other");
  for (const one of [late, other]) await service.api("DELETE", `/jobs/${one.id}?force`);
  await visitor.leave();
});

test("by keys alone: down, open, stop, again", options, async () => {
  const job = await service.create({ command: ["sleep", "300"], name: "by-keys", labels: { keys: "only" } });
  const visitor = await browser.signedIn(service, "jobs?label=keys%3Donly");
  const { page } = visitor;
  await page.locator("tr", { hasText: "by-keys" }).waitFor();
  await page.keyboard.press("j");
  await page.locator("tr[data-cursor]").waitFor();
  await page.keyboard.press("Enter");
  await page.locator("h1", { hasText: "by-keys" }).waitFor();
  await page.keyboard.press("s");
  await page.locator("dialog").waitFor();
  await page.keyboard.press("Enter");
  await page.locator(".title .state", { hasText: "Canceled" }).waitFor();
  await page.keyboard.press("r");
  await page.waitForURL((url) => !url.pathname.endsWith(job.id));
  await page.locator(".title .state", { hasText: "Running" }).waitFor();
  const { jobs } = await (await service.api("GET", "/jobs?label_selector=keys%3Donly&state=running")).json();
  for (const one of jobs) await service.api("DELETE", `/jobs/${one.id}?force`);
  await visitor.leave();
});
