// The list, the form, stopping and running again.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, rows, Service, until } from "./harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("a script is run, its output follows, it ends with its exit code, and the list agrees", options, async () => {
  const visitor = await browser.signedIn(service, "run");
  const { page, context } = visitor;
  const list = await context.newPage();
  await list.goto(`${service.url}/ui/jobs`);
  await list.getByText("No job yet").waitFor();
  const overview = await context.newPage();
  await overview.goto(`${service.url}/ui/`);
  await overview.getByText("Nothing runs.").waitFor();
  await page.getByLabel("Script", { exact: true }).fill("for i in 1 2 3; do echo line $i; sleep 0.3; done; exit 3");
  await page.getByLabel("Name").fill("first");
  await page.getByLabel("Labels").fill("team=web env=prod");
  await page.keyboard.press("Control+Enter");
  await page.locator("h1", { hasText: "first" }).waitFor();
  await until(async () => (await rows(page)).join() === "line 1,line 2,line 3", "three lines");
  await page.locator(".title .state", { hasText: "Failed" }).waitFor();
  await page.getByText("exit code 3").first().waitFor();
  await list.locator("tr", { hasText: "first" }).locator(".state", { hasText: "Failed" }).waitFor();
  await list.locator(".label", { hasText: "team=web" }).waitFor();
  await overview.bringToFront();
  await overview.locator(".needs li", { hasText: "first" }).getByText("exit code 3").waitFor();
  await visitor.leave();
});

test("a stop with grace and reason; one that does not listen is killed; its reason is shown", options, async () => {
  const job = await service.create({ script: "trap '' TERM; echo ready; while :; do sleep 0.1; done", name: "stubborn" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await until(async () => (await rows(page)).includes("ready"), "its output");
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByLabel("Grace").fill("120 s");
  await page.getByLabel("Reason").fill("superseded");
  await page.locator("dialog").getByRole("button", { name: "Stop" }).click();
  await page.locator(".title .state", { hasText: "Stopping" }).waitFor();
  // A process that no signal ends cannot be made here; what the service would say of one is put into its answer.
  const blocked = { pid: 8123, state: "D", uid: 0, name: "rsync" };
  await page.route(`${service.url}/jobs/${job.id}`, async (route) => {
    if (route.request().method() !== "GET") return route.continue();
    const answer = await route.fetch();
    return route.fulfill({ response: answer, json: { ...(await answer.json()), blocked_by: [blocked] } });
  });
  await page.reload();
  await page.getByText("PID 8123 rsync is in state D, waiting for a disk or a network file system").waitFor();
  // One that is on its way is waited for.
  await page.unrouteAll({ behavior: "wait" });
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByRole("button", { name: "Kill at once" }).click();
  await page.locator(".title .state", { hasText: "Canceled" }).waitFor();
  await page.getByText("superseded").first().waitFor();
  assert.equal((await service.finished(job.id)).termination.reason, "superseded");
  await visitor.leave();
});

test("filters are in the address; new jobs wait; pages go on", options, async () => {
  for (let i = 0; i < 12; i++) await Promise.all(Array.from({ length: 10 }, (_, j) => service.create({ command: ["true"], name: `page-${i}-${j}`, labels: { batch: "pages" } })));
  const visitor = await browser.signedIn(service, "jobs");
  const { page } = visitor;
  const names = () => page.locator("tbody .name").allTextContents();
  await page.getByLabel("Filter").fill("batch=pages");
  await page.keyboard.press("Enter");
  await page.locator(".chip", { hasText: "batch=pages" }).waitFor();
  await until(async () => (await names()).every((name) => name.startsWith("page-")), "the filter");
  await page.getByRole("link", { name: /^Succeeded/ }).click();
  await page.locator(".tabs a[aria-current]", { hasText: "Succeeded" }).locator("b", { hasText: "120" }).waitFor();
  assert.equal(page.url(), `${service.url}/ui/jobs?state=succeeded&label=batch%3Dpages`);
  await until(async () => (await names()).length === 50, "the first page");
  const first = await names();
  await page.reload();
  await page.locator(".chip", { hasText: "batch=pages" }).waitFor();
  await until(async () => (await names()).join() === first.join(), "the same list after a reload");
  await service.create({ command: ["true"], name: "page-new", labels: { batch: "pages" } });
  await page.getByRole("button", { name: "1 new" }).waitFor();
  assert.deepEqual(await names(), first, "nothing moves");
  await page.getByRole("button", { name: "1 new" }).click();
  await until(async () => (await names())[0] === "page-new", "the new one");
  await page.getByRole("button", { name: "Next 50" }).click();
  await until(async () => !(await names()).includes("page-new"), "the second page");
  await page.goBack();
  await until(async () => (await names())[0] === "page-new", "the first page");
  await page.goBack();
  await page.locator(".tabs a[aria-current]", { hasText: "All" }).waitFor();
  await visitor.leave();
});

test("2 500 jobs: filters by label, name and time are the same by reload, back, forward and in another tab", options, async () => {
  const made = await service.api("POST", "/batches", { jobs: [{ key: "many", repeat: 2500, command: ["true"], name: "many", labels: { batch: "many" }, hold: true }] });
  assert.equal(made.status, 201, await made.clone().text());
  const batch = await made.json();
  const visitor = await browser.signedIn(service, "jobs");
  const { page, context } = visitor;
  const filter = page.getByLabel("Filter");
  for (const [text, chip] of [["batch=many", "batch=many"], ["name:many", "many…"], ["since:1h", "since"]]) {
    await filter.fill(text);
    await page.keyboard.press("Enter");
    await page.locator(".chip", { hasText: chip }).first().waitFor();
  }
  const all = (view) => view.locator(".tabs a[aria-current] b", { hasText: /^2.500$/ });
  await all(page).waitFor();
  assert.ok((await page.locator("tbody tr").count()) <= 200, "the page holds no more than it shows");
  const address = page.url();
  const chips = await page.locator(".chip").allTextContents();
  await page.reload();
  await all(page).waitFor();
  assert.deepEqual(await page.locator(".chip").allTextContents(), chips);
  await page.goBack();
  await until(async () => (await page.locator(".chip").count()) === 2, "one filter less");
  await page.goForward();
  await until(async () => (await page.locator(".chip").count()) === 3, "all of them");
  assert.equal(page.url(), address);
  const other = await context.newPage();
  await other.goto(address);
  await all(other).waitFor();
  assert.deepEqual(await other.locator(".chip").allTextContents(), chips);
  await other.close();
  // New rows wait, and the one below the pointer stays where it is.
  const row = page.locator("tbody tr").nth(5);
  await row.hover();
  const [id, before] = [await row.getAttribute("data-id"), await row.boundingBox()];
  for (let i = 0; i < 12; i++) await service.create({ command: ["true"], name: `many-${i}`, labels: { batch: "many" } });
  await page.getByRole("button", { name: "12 new" }).waitFor();
  assert.deepEqual(await page.locator(`tr[data-id="${id}"]`).boundingBox(), before);
  await service.api("DELETE", `/batches/${batch.id}?force&purge`);
  await visitor.leave();
});
