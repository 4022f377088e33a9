// Every view by the rules of accessibility, in each theme, and on small screens.

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
  // The sign-in is for whom the service does not know yet, and one view is of a job that is not there.
  const visitor = await browser.visitor(service, { allowed: [/status of (401|404)/, /WebSocket/], ...options });
  await visitor.page.addInitScript({ content: source });
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

for (const [width, height, scale] of [[390, 844, 3], [320, 640, 2]]) {
  test(`on ${width} pixels nothing scrolls sideways, and every action is reached`, options, async () => {
    const visitor = await browser.visitor(service, { allowed: [/status of 404/, /WebSocket/], viewport: { width, height }, deviceScaleFactor: scale, hasTouch: true });
    const { page } = visitor;
    await page.goto(await service.wayIn("--scope", "admin"));
    await page.locator(".app").waitFor();
    const wrong = [];
    for (const view of views().filter(([name]) => name !== "peek" && name !== "keys")) {
      await show(page, service.url, view);
      const out = await page.evaluate(() => {
        const edge = document.documentElement.clientWidth;
        const hidden = (node) => {
          for (let at = node.parentElement; at; at = at.parentElement) if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(at).overflowX)) return true;
          return false;
        };
        const body = document.querySelector(".body");
        const far = [...document.querySelectorAll(".app *, dialog *")].filter((node) => node.getBoundingClientRect().right > edge + 1 && node.getBoundingClientRect().width > 0 && !hidden(node));
        const sideways = [document.documentElement, body, document.querySelector("dialog")].filter((node) => node && node.scrollWidth > node.clientWidth + 1);
        const small = [...document.querySelectorAll("button, a.btn, input, select")].filter((node) => {
          const { width, height } = node.getBoundingClientRect();
          return width > 0 && height > 0 && (width < 23.5 || height < 23.5) && node.type !== "checkbox" && node.type !== "range" && node.closest(".xterm, .spoken") === null;
        });
        return [...far.map((node) => `beyond the edge: ${node.outerHTML.slice(0, 120)}`), ...sideways.map((node) => `scrolls: ${node.className || node.tagName} ${node.scrollWidth} > ${node.clientWidth}`), ...small.map((node) => `small: ${node.outerHTML.slice(0, 120)}`)].slice(0, 6);
      });
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
