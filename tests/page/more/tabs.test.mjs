// Many tabs of one browser.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service, until } from "../harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("20 tabs are live, and another one loads", options, async () => {
  const visitor = await browser.signedIn(service);
  const pages = [];
  for (let i = 0; i < 20; i++) {
    const page = await visitor.context.newPage();
    await page.goto(`${service.url}/ui/${i % 2 === 0 ? "jobs?name=tabs" : "events"}`);
    pages.push(page);
  }
  await Promise.all(pages.map((page) => page.locator(".live.live").waitFor()));
  const from = performance.now();
  const page = await visitor.context.newPage();
  await page.goto(`${service.url}/ui/jobs`);
  await page.locator(".listhead").waitFor();
  const took = performance.now() - from;
  console.log(JSON.stringify({ tab_21_ms: Math.round(took) }));
  assert.ok(took < 8000, `${took} ms`);
  const job = await service.create({ command: ["sleep", "300"], name: "tabs" });
  // What is seen hears of it by itself; a hidden tab looks when it is shown.
  await pages[0].bringToFront();
  await pages[0].locator("tr", { hasText: "tabs" }).waitFor();
  await service.api("DELETE", `/jobs/${job.id}?force&wait=30`);
  await visitor.leave();
});

test("a bell tells of the end of a job in a hidden tab, and of no other", options, async () => {
  const visitor = await browser.signedIn(service);
  const { context, page } = visitor;
  await context.grantPermissions(["notifications"], { origin: service.url });
  // A browser without a screen shows none; what the page asks for is kept.
  await context.addInitScript(() => {
    globalThis.told = [];
    globalThis.Notification = class {
      static permission = "granted";
      static async requestPermission() { return "granted"; }
      constructor(title, { body }) { globalThis.told.push(`${title} (${body})`); }
    };
  });
  const hide = (hidden) => page.evaluate((is) => {
    Object.defineProperty(document, "hidden", { value: is, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  const told = () => page.evaluate(() => globalThis.told);
  const [quiet, rung] = await Promise.all(["quiet", "rung"].map((name) => service.create({ script: "read word; exit 3", stdin: { mode: "open" }, name })));
  const end = async (job) => {
    const headers = { Authorization: `Bearer ${service.token}`, "Content-Type": "application/octet-stream" };
    assert.equal((await fetch(`${service.url}/jobs/${job.id}/stdin`, { method: "POST", headers, body: "go\n" })).status, 204);
    await service.finished(job.id);
  };
  await page.goto(`${service.url}/ui/jobs/${quiet.id}`);
  await page.getByText("Live", { exact: true }).waitFor();
  await hide(true);
  await end(quiet);
  await hide(false);
  await page.locator(".title .state", { hasText: "Failed" }).waitFor();
  assert.deepEqual(await told(), []);
  await page.goto(`${service.url}/ui/jobs/${rung.id}`);
  await page.getByText("Live", { exact: true }).waitFor();
  const bell = page.getByRole("button", { name: "Notify me when it ends" });
  await bell.waitFor();
  await page.keyboard.press("b");
  await page.getByRole("button", { name: "Notify me when it ends", pressed: true }).waitFor();
  await page.keyboard.press("b");
  await page.getByRole("button", { name: "Notify me when it ends", pressed: false }).waitFor();
  await bell.click();
  await page.getByRole("button", { name: "Notify me when it ends", pressed: true }).waitFor();
  await hide(true);
  await end(rung);
  await until(async () => (await told()).length > 0, "a notification");
  assert.deepEqual(await told(), ["rung: failed (exit code 3)"]);
  assert.equal(await bell.count(), 0);
  await visitor.leave();
});
