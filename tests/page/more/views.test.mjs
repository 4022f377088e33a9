// Views by the rules of accessibility, with forced colours.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { show, variety, views as all } from "../gallery.mjs";
import { axe, Browser, LIMIT, Service } from "../harness.mjs";

let service, browser, jobs, source;

before(async () => {
  source = await readFile(axe, "utf8");
  [service, browser] = await Promise.all([Service.start(["--max-running", "8"]), Browser.start()]);
  jobs = await variety(service);
});
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 8 * LIMIT };

const views = () => all(jobs);

async function findings(page) {
  return await page.evaluate(async (text) => {
    // A script of the test, not of the page: the policy of the page does not hold for it.
    const { violations } = await globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
    return violations.map((one) => `${one.id}: ${one.nodes.slice(0, 4).map((node) => `${node.html.slice(0, 160)} ${node.any.map((check) => check.message).join(" ").slice(0, 200)}`).join("\n    ")}`);
  });
}

/** A tab that has axe before any script of the page runs. */
async function examiner(options) {
  const visitor = await browser.visitor(service, { allowed: [/status of 404/, /WebSocket/], ...options });
  await visitor.page.addInitScript({ content: source });
  return visitor;
}

test("forced colours and reduced motion: every state has its shape and word, and axe finds nothing", options, async () => {
  const visitor = await examiner({ forcedColors: "active", reducedMotion: "reduce" });
  const { page } = visitor;
  await page.goto(await service.wayIn("--scope", "admin"));
  await page.locator(".app").waitFor();
  const wrong = [];
  for (const view of views().filter(([name]) => ["overview", "jobs", "queues", "succeeded", "run", "checkup"].includes(name))) {
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
