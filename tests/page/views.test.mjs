// Every view: by the rules of accessibility, in each theme, on small screens, and by keys alone.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { show, variety, views as all } from "./gallery.mjs";
import { axe, Browser, LIMIT, Service, until } from "./harness.mjs";

let service, guarded, browser, jobs, source;

const POLICY = `[template.backup]
command = ["/bin/echo", "--level", "{level}", "{target}", "{mode}"]
[template.backup.params]
level = { type = "integer", min = 0, max = 9 }
target = { type = "path", beneath = "/tmp" }
mode = { type = "enum", values = ["full", "part"] }
[template.greet]
command = ["/bin/echo", "{word}"]
[template.greet.params]
word = { type = "pattern", pattern = "[a-z]+" }
`;

before(async () => {
  source = await readFile(axe, "utf8");
  [service, browser] = await Promise.all([Service.start(["--max-running", "8"]), Browser.start()]);
  guarded = await Service.start(["--policy", await policy()]);
  jobs = await variety(service);
});
after(async () => { await browser.stop(); await service.stop(); await guarded.stop(); });

const options = { timeout: 8 * LIMIT };

async function policy() {
  const file = join(service.dir, "policy.toml");
  await writeFile(file, POLICY, { mode: 0o600 });
  return file;
}

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
          return width > 0 && height > 0 && (width < 23.5 || height < 23.5) && node.type !== "checkbox" && node.type !== "range" && node.closest(".xterm") === null;
        });
        return [...far.map((node) => `beyond the edge: ${node.outerHTML.slice(0, 120)}`), ...sideways.map((node) => `scrolls: ${node.className || node.tagName} ${node.scrollWidth} > ${node.clientWidth}`), ...small.map((node) => `small: ${node.outerHTML.slice(0, 120)}`)].slice(0, 6);
      });
      wrong.push(...out.map((one) => `${view[0]}: ${one}`));
    }
    assert.deepEqual(wrong, []);
    await page.goto(`${service.url}/ui/settings`);
    for (const name of ["Queues", "Access, log out", "Check-up"]) await page.getByRole("link", { name }).waitFor();
    await page.goto(`${service.url}/ui/jobs/${jobs.running.id}`);
    await page.getByRole("button", { name: "All actions" }).click();
    for (const name of ["Again", "Again with changes …", "Pause", "Signal …", "Name, labels, timeout …", "Remove record and output …"]) await page.getByRole("menuitem", { name, exact: true }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Stop", exact: true }).waitFor();
    await visitor.leave();
  });
}

test("queues: bars, pause with a reason, resume, and settings", options, async () => {
  const visitor = await browser.visitor(service, { allowed: [/status of 422/] });
  const { page } = visitor;
  await page.goto(await service.wayIn("--scope", "admin"));
  await page.locator(".app").waitFor();
  await page.getByRole("link", { name: /^Queues/ }).click();
  const row = page.locator("tr", { hasText: "render" });
  await row.getByText("1 of 1", { exact: true }).waitFor();
  await row.getByText("1 of 10", { exact: true }).waitFor();
  await row.getByText("at most 10 starts a minute").waitFor();
  await page.locator("tr", { hasText: "closed" }).getByText("release on monday").waitFor();
  await page.getByRole("button", { name: "Pause render" }).click();
  await page.getByLabel("Reason").fill("a look at the disks");
  await page.locator("dialog").getByRole("button", { name: "Pause" }).click();
  await row.getByText("a look at the disks").waitFor();
  assert.equal((await (await service.api("GET", "/queues/render")).json()).pause_reason, "a look at the disks");
  await page.getByRole("button", { name: "Resume render" }).click();
  await page.getByRole("button", { name: "Pause render" }).waitFor();
  await page.getByRole("button", { name: "Settings of render" }).click();
  await page.getByLabel("Most running").fill("0");
  await page.locator("dialog").getByRole("button", { name: "Set", exact: true }).click();
  await page.locator(".field.wrong", { hasText: "Most running" }).locator(".err").waitFor();
  await page.getByLabel("Most running").fill("3");
  await page.locator("dialog").getByRole("button", { name: "Set", exact: true }).click();
  await page.locator("dialog").waitFor({ state: "detached" });
  const set = await (await service.api("GET", "/queues/render")).json();
  assert.deepEqual([set.max_running, set.rate, set.fair_by], [3, { starts: 10, per_seconds: 60 }, { label: "team" }]);
  await service.api("PATCH", "/queues/render", { max_running: 1 }, { "Content-Type": "application/merge-patch+json" });
  await visitor.leave();
});

test("a policy: its templates with typed parameters, mistakes at their fields, and nothing else is offered", options, async () => {
  const visitor = await browser.signedIn(guarded, "run", { allowed: [/status of 422/] });
  const { page } = visitor;
  await page.getByLabel("Template").waitFor();
  assert.equal(await page.getByLabel("Script").count(), 0);
  await page.getByLabel("level", { exact: true }).fill("12");
  await page.getByRole("button", { name: "Only check" }).click();
  await page.locator(".field.wrong", { hasText: "mode" }).getByText("choose one").waitFor();
  await page.getByLabel("mode", { exact: true }).selectOption("full");
  await page.getByLabel("target", { exact: true }).fill("/etc/passwd");
  await page.getByRole("button", { name: "Only check" }).click();
  await page.locator(".field.wrong", { hasText: "level" }).getByText("from 0 to 9").waitFor();
  await page.locator(".field.wrong", { hasText: "target" }).locator(".err").waitFor();
  await page.getByLabel("level", { exact: true }).fill("3");
  await page.getByLabel("target", { exact: true }).fill("/tmp/site");
  await page.getByText("/bin/echo --level 3 /tmp/site full").first().waitFor();
  await page.getByRole("button", { name: "Only check" }).click();
  await page.getByText("The service takes it as it is.").waitFor();
  await page.keyboard.press("Control+Enter");
  await page.locator(".title .state", { hasText: "Succeeded" }).waitFor();
  await until(async () => (await page.locator(".lines .l .x").allTextContents()).join() === "--level 3 /tmp/site full", "its output");
  await page.goto(`${guarded.url}/ui/run?template=greet`);
  await page.getByLabel("word", { exact: true }).waitFor();
  await visitor.leave();
});

test("tokens are made, shown once and revoked; findings are shown", options, async () => {
  const visitor = await browser.visitor(service, { allowed: [/status of 409/] });
  const { page } = visitor;
  await page.goto(await service.wayIn("--scope", "admin"));
  await page.locator(".app").waitFor();
  await page.goto(`${service.url}/ui/access`);
  await page.getByRole("button", { name: "Token", exact: true }).click();
  await page.getByLabel("Name").fill("robot");
  await page.getByLabel("For").fill("1 h");
  await page.getByRole("button", { name: "Make it" }).click();
  const token = (await page.getByLabel("Token", { exact: true }).textContent()).trim();
  const ask = async () => (await fetch(`${service.url}/jobs`, { headers: { Authorization: `Bearer ${token}` } })).status;
  assert.equal(await ask(), 200);
  await page.getByRole("button", { name: "Done" }).click();
  const row = page.locator("tr", { hasText: "robot" });
  await row.getByText("operate").waitFor();
  assert.ok(!(await page.content()).includes(token));
  await page.getByRole("button", { name: "Token", exact: true }).click();
  await page.getByLabel("Name").fill("robot");
  await page.getByRole("button", { name: "Make it" }).click();
  await page.locator(".field.wrong", { hasText: "Name" }).getByText("there is a token robot already").waitFor();
  await page.keyboard.press("Escape");
  await row.getByRole("button", { name: "Revoke" }).click();
  await page.locator("dialog").getByRole("button", { name: "Revoke" }).click();
  await row.waitFor({ state: "detached" });
  assert.equal(await ask(), 401);
  await page.goto(`${service.url}/ui/checkup`);
  await page.locator(".finding", { hasText: "bearer token" }).getByText("Good").waitFor();
  await visitor.leave();
});

test("a recording is played, sought in and downloaded", options, async () => {
  const visitor = await browser.signedIn(service, `jobs/${jobs.recorded.id}?tab=recording`);
  const { page } = visitor;
  const screen = () => page.locator(".xterm-rows").innerText();
  await page.getByText("pauses are cut").waitFor();
  const place = page.getByLabel("Place in the recording");
  await place.focus();
  await page.keyboard.press("End");
  await until(async () => /step 3/.test(await screen()), "the end");
  await page.keyboard.press("Home");
  await until(async () => !/step 3/.test(await screen()), "the beginning");
  await page.getByRole("button", { name: "Play" }).click();
  await page.getByText("the end", { exact: true }).waitFor();
  await until(async () => /step 3/.test(await screen()), "the end again");
  const coming = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download the recording" }).click();
  const saved = await coming;
  assert.equal(saved.suggestedFilename(), "recorded.cast");
  const text = await readFile(await saved.path(), "utf8");
  assert.equal(JSON.parse(text.split("\n")[0]).width, 60);
  await visitor.leave();
});
