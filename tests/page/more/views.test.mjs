// Every view by the rules of accessibility, in each theme, and on small screens.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { show, variety, views as all } from "../gallery.mjs";
import { Browser, LIMIT, Service } from "../harness.mjs";
import { bringAxe, findings, misfits } from "../look.mjs";

let service, browser, jobs;

before(async () => {
  [service, browser] = await Promise.all([Service.start(["--max-running", "8"]), Browser.start()]);
  jobs = await variety(service);
});
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 8 * LIMIT };

const views = () => all(jobs);

/** A tab that has axe before any script of the page runs. */
async function examiner(options) {
  // The sign-in is for whom the service does not know yet, and one view is of a job that is not there.
  const visitor = await browser.visitor(service, { allowed: [/status of (401|404)/, /WebSocket/], ...options });
  await bringAxe(visitor.page);
  return visitor;
}

for (const theme of ["light", "dark"]) {
  test(`no finding of axe in any view, ${theme}`, options, async () => {
    const visitor = await examiner({ colorScheme: theme });
    const { page } = visitor;
    await page.goto(`${service.url}/ui/signin`);
    await page.getByLabel("Or a token").waitFor();
    const wrong = (await findings(page)).map((one) => `sign in: ${one}`);
    await page.goto(await service.wayIn("--scope", "admin"));
    await page.locator(".app").waitFor();
    for (const view of views()) {
      await show(page, service.url, view);
      wrong.push(...(await findings(page)).map((one) => `${view[0]}: ${one}`));
    }
    assert.deepEqual(wrong, []);
    await visitor.leave();
  });
}

test("forced colours and reduced motion: every state has its shape and word, and axe finds nothing", options, async () => {
  const visitor = await examiner({ forcedColors: "active", reducedMotion: "reduce" });
  const { page } = visitor;
  await page.goto(await service.wayIn("--scope", "admin"));
  await page.locator(".app").waitFor();
  const wrong = [];
  for (const view of views().filter(([name]) => ["overview", "jobs", "queues", "batches", "batch", "schedule", "succeeded", "run", "checkup"].includes(name))) {
    await show(page, service.url, view);
    wrong.push(...(await findings(page)).map((one) => `${view[0]}: ${one}`));
  }
  assert.deepEqual(wrong, []);
  await show(page, service.url, views()[1]);
  const states = await page.locator("tbody .state").evaluateAll((all) => all.map((one) => ({ word: one.textContent.trim(), shape: one.querySelector("svg") !== null })));
  assert.ok(states.length > 8 && states.every(({ word, shape }) => word !== "" && shape), JSON.stringify(states));
  const moving = await page.evaluate(() => document.getAnimations().length);
  assert.equal(moving, 0);
  await visitor.leave();
});

/** What a small screen does not offer. */
const WIDE = new Set(["peek", "keys", "columns", "dialog priority"]);

for (const [width, height, scale] of [[390, 844, 3], [320, 640, 2]]) {
  test(`on ${width} pixels nothing scrolls sideways, and every action is reached`, options, async () => {
    const visitor = await browser.visitor(service, { allowed: [/status of 404/, /WebSocket/], viewport: { width, height }, deviceScaleFactor: scale, hasTouch: true });
    const { page } = visitor;
    await page.goto(await service.wayIn("--scope", "admin"));
    await page.locator(".app").waitFor();
    const wrong = [];
    for (const view of views().filter(([name]) => !WIDE.has(name))) {
      await show(page, service.url, view);
      const out = await misfits(page);
      wrong.push(...out.map((one) => `${view[0]}: ${one}`));
    }
    assert.deepEqual(wrong, []);
    await page.goto(`${service.url}/ui/settings`);
    const more = page.getByRole("navigation", { name: "More" });
    for (const name of ["Batches", "Schedules", "Access, log out", "Check-up"]) await more.getByRole("link", { name }).waitFor();
    await page.goto(`${service.url}/ui/jobs/${jobs.running.id}`);
    await page.getByRole("button", { name: "All actions" }).click();
    for (const name of ["Again", "Again with changes …", "Pause", "Signal …", "Name, labels, timeout …", "Remove record and output …"]) await page.getByRole("menuitem", { name, exact: true }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Stop", exact: true }).waitFor();
    await visitor.leave();
  });
}
