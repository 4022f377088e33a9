// Many tabs of one browser.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service } from "../harness.mjs";

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
