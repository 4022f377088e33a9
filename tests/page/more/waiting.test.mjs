// What waits: batches, schedules, held and later jobs, dependencies, attempts.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, rows, Service, until } from "../harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("a batch: its counters and jobs, by state, stopped as a whole, and what failed again", options, async () => {
  const body = { name: "nightly", jobs: [{ key: "fetch", command: ["true"] }, { key: "bad", command: ["false"] }, { key: "shard", repeat: 3, command: ["sleep", "300"], depends_on: [{ key: "fetch" }] }, { key: "join", command: ["true"], depends_on: [{ key: "shard" }] }] };
  const batch = await (await service.api("POST", "/batches", body)).json();
  const visitor = await browser.signedIn(service, "batches");
  const { page } = visitor;
  const row = page.locator("tr", { hasText: "nightly" });
  await row.getByText("2 of 6 ended, 1 failed, 3 running").waitFor();
  await row.getByRole("link", { name: "nightly" }).click();
  assert.equal(page.url(), `${service.url}/ui/batches/${batch.id}`);
  const counters = page.getByRole("navigation", { name: "Its jobs by state" });
  await counters.getByRole("link", { name: "Running 3" }).waitFor();
  await until(async () => (await page.locator("tbody tr td:nth-child(3)").allTextContents()).join() === "fetch,bad,shard,shard,shard,join", "its jobs in their order");
  await counters.getByRole("link", { name: "Failed 1" }).click();
  await until(async () => (await page.locator("tbody tr").count()) === 1, "the one that failed");
  assert.equal(page.url(), `${service.url}/ui/batches/${batch.id}?state=failed`);
  await page.locator("tbody tr .name").click();
  await page.getByText("of the batch").waitFor();
  await page.goBack();
  await page.getByRole("button", { name: "Stop all" }).click();
  await page.getByLabel("Reason").fill("not tonight");
  await page.locator("dialog").getByRole("button", { name: "Stop all" }).click();
  await page.locator(".title .state", { hasText: "Failed" }).waitFor();
  const { jobs } = await (await service.api("GET", `/jobs?batch=${batch.id}`)).json();
  assert.equal(jobs.find((job) => job.batch.key === "shard").termination.reason, "not tonight");
  await page.getByRole("button", { name: "Those that failed again" }).click();
  await page.getByText("again of").waitFor();
  const again = page.url().split("/").at(-1);
  assert.notEqual(again, batch.id);
  // All but the one that has succeeded.
  await counters.getByRole("link", { name: "All 5" }).waitFor();
  await page.goto(`${service.url}/ui/events`);
  const event = page.locator("tr", { hasText: "batch created" }).first();
  await event.getByRole("link").click();
  await page.waitForURL(`${service.url}/ui/batches/${again}`);
  await service.api("DELETE", `/batches/${again}?force&wait=30`);
  await visitor.leave();
});

test("a schedule is made with a look at its times, runs, is paused, changed and removed", options, async () => {
  const visitor = await browser.signedIn(service, "schedules", { allowed: [/status of (412|422)/] });
  const { page } = visitor;
  await page.getByText("No schedule").waitFor();
  await page.getByRole("button", { name: "Schedule", exact: true }).click();
  const dialog = page.locator("dialog");
  await dialog.getByLabel("Name").fill("report");
  await dialog.getByRole("button", { name: "Make it" }).click();
  await dialog.locator(".field.wrong", { hasText: "Times" }).getByText("five fields").waitFor();
  await dialog.getByLabel("Times", { exact: true }).fill("30 2 * * 8");
  await dialog.getByLabel("Time zone").fill("Europe/Berlin");
  await dialog.getByLabel("Script").fill("echo report");
  await dialog.getByRole("button", { name: "Its next times" }).click();
  await dialog.locator(".field.wrong", { hasText: "Times" }).locator(".err").waitFor();
  await dialog.getByLabel("Times", { exact: true }).fill("30 2 * * *");
  await dialog.getByRole("button", { name: "Its next times" }).click();
  await until(async () => (await dialog.getByRole("status").textContent()).split("·").length === 5, "five times");
  await dialog.getByRole("button", { name: "Make it" }).click();
  await page.waitForURL(`${service.url}/ui/schedules/report`);
  await page.getByText("30 2 * * *, Europe/Berlin").waitFor();
  await page.getByText("It has made no job that is kept.").waitFor();
  await page.getByRole("button", { name: "Run now" }).click();
  await page.locator(".title .state", { hasText: "Succeeded" }).waitFor();
  await until(async () => (await rows(page)).join() === "report", "its output");
  await page.locator(".cmdline").getByRole("link", { name: "report" }).click();
  await page.locator("tr", { hasText: "Succeeded" }).waitFor();
  await page.getByRole("button", { name: "Pause", exact: true }).click();
  await page.getByText("if it were not paused").waitFor();
  await page.getByRole("button", { name: "Change …" }).click();
  await dialog.getByRole("button", { name: "Every", exact: true }).click();
  await dialog.getByLabel("Every", { exact: true }).fill("90 min");
  await dialog.getByLabel("When its last job has not ended").selectOption("replace");
  await dialog.getByRole("button", { name: "Change", exact: true }).click();
  await page.getByRole("heading", { name: "every 1 h 30 min" }).waitFor();
  const set = await (await service.api("GET", "/schedules/report")).json();
  assert.deepEqual([set.cron, set.every_seconds, set.overlap, set.paused, set.job.script], [null, 5400, "replace", true, "echo report"]);
  await page.goto(`${service.url}/ui/schedules`);
  await page.getByRole("button", { name: "Resume report" }).click();
  await page.getByRole("button", { name: "Pause report" }).waitFor();
  await page.goto(`${service.url}/ui/schedules/report`);
  await page.getByRole("button", { name: "Remove …" }).click();
  await dialog.getByRole("button", { name: "Remove" }).click();
  await page.getByText("No schedule").waitFor();
  await visitor.leave();
});

test("a held job is released, a later one says when, and a dependency is named and waited for", options, async () => {
  const held = await service.create({ command: ["true"], name: "held", hold: true });
  const later = await service.create({ command: ["true"], name: "later", run_at: new Date(Date.now() + 3_600_000).toISOString() });
  const waits = await service.create({ command: ["true"], name: "waits", depends_on: [{ job: held.id }] });
  const visitor = await browser.signedIn(service, `jobs/${later.id}`);
  const { page } = visitor;
  const box = page.getByRole("group", { name: "What it waits for" });
  await box.getByText(/^Not before .*, in (59 min|1 h)/).waitFor();
  await page.goto(`${service.url}/ui/jobs/${waits.id}`);
  await box.getByRole("link", { name: "held" }).waitFor();
  const second = await visitor.context.newPage();
  await second.goto(`${service.url}/ui/jobs/${held.id}`);
  await second.getByRole("button", { name: "Release" }).click();
  await second.locator(".title .state", { hasText: "Succeeded" }).waitFor();
  await page.bringToFront();
  await page.locator(".title .state", { hasText: "Succeeded" }).waitFor();
  await box.getByText("It started once").waitFor();
  await service.api("DELETE", `/jobs/${later.id}?force&wait=30`);
  await visitor.leave();
});

test("attempts: each with its end and its output, and the pause before the next is cut short", options, async () => {
  const job = await service.create({ script: "echo try $PROCESSION_ATTEMPT; exit 7", name: "retried", retry: { max_attempts: 2, backoff: { initial_seconds: 3600, max_seconds: 3600 } } });
  const visitor = await browser.signedIn(service, `jobs/${job.id}?tab=attempts`);
  const { page } = visitor;
  await page.locator("tr", { hasText: "exit code 7" }).waitFor();
  await page.getByText(/^Attempt 2 of 2 at/).waitFor();
  await page.getByRole("button", { name: "Try now" }).click();
  await page.locator(".title .state", { hasText: "Failed" }).waitFor();
  await until(async () => (await page.locator("tr", { hasText: "exit code 7" }).count()) === 2, "the second attempt");
  const second = (await service.job(job.id)).attempts[1];
  await page.locator("tr", { hasText: "exit code 7" }).first().getByRole("link").click();
  await page.waitForURL(`${service.url}/ui/jobs/${job.id}#o${second.first_offset}`);
  await page.locator(".l.tg", { hasText: "try 2" }).waitFor();
  await visitor.leave();
});
