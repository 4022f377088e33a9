// Much of it: a log of 1 GB, a fast writer, many tabs, many jobs. What is printed is measured; what is asserted are bounds
// that hold on a slow machine as well.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service, until } from "../harness.mjs";
import { heap, lines, LOG_BYTES, makeLog, measure } from "../measure.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(["--max-running", "1200"]), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 20 * LIMIT };

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

test("hundreds of jobs that come and go: the list is drawn a few times a second at most", options, async () => {
  await Promise.all(Array.from({ length: 300 }, (_, i) => service.create({ command: ["sleep", "300"], name: `many-${i}`, labels: { load: "yes" } })));
  const visitor = await browser.signedIn(service, "jobs?state=running");
  const { page } = visitor;
  await page.locator("tbody tr").nth(40).waitFor();
  await page.evaluate(() => {
    globalThis.drawn = 0;
    new MutationObserver(() => { globalThis.drawn += 1; }).observe(document.querySelector("tbody"), { childList: true, subtree: true, characterData: true });
  });
  let asked = 0;
  page.on("request", () => { asked += 1; });
  const from = performance.now();
  const end = from + 10_000;
  let made = 0;
  const work = async () => { while (performance.now() < end) { await service.create({ command: ["true"], labels: { load: "yes" } }); made += 1; } };
  await Promise.all(Array.from({ length: 8 }, work));
  const seconds = (performance.now() - from) / 1000;
  const drawn = await page.evaluate(() => globalThis.drawn);
  console.log(JSON.stringify({ jobs_per_second: Math.round(made / seconds), drawn_per_second: drawn / seconds, requests_per_second: asked / seconds }));
  // Clocks tick once a second as well, and a batch of changes is one or two callbacks.
  assert.ok(drawn / seconds < 12, `${drawn} in ${seconds} s`);
  assert.ok(asked / seconds < 16, `${asked} in ${seconds} s`);
  await service.api("POST", "/jobs/stop", { label_selector: "load=yes", force: true });
  await visitor.leave();
});

