// By the keyboard alone: no pointer is used in this file.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, rows, Service, until } from "../harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

/** Goes on by Tab until this has the focus. */
async function tabTo(page, locator, most = 60) {
  await locator.waitFor();
  for (let i = 0; i < most; i++) {
    if (await locator.evaluate((node) => node === document.activeElement)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`Tab does not lead to ${locator}`);
}

test("a job is run, followed, found in its list, looked at, stopped and run again", options, async () => {
  const visitor = await browser.signedIn(service);
  const { page } = visitor;
  const { keyboard } = page;
  await page.getByText("Nothing runs.").waitFor();
  await keyboard.press("n");
  await tabTo(page, page.getByLabel("Script", { exact: true }));
  await keyboard.type("seq 1 300; echo oops >&2; exec sleep 300");
  await tabTo(page, page.getByLabel("Name", { exact: true }));
  await keyboard.type("by-hand");
  await tabTo(page, page.getByLabel("Labels"));
  await keyboard.type("keys=all");
  await keyboard.press("Control+Enter");
  await page.locator("h1", { hasText: "by-hand" }).waitFor();
  await until(async () => (await rows(page)).includes("oops"), "its output");
  // The log: a stream, a line, the end, find, wrap.
  await keyboard.press("o");
  await page.getByRole("button", { name: "Out", exact: true, pressed: true }).waitFor();
  await keyboard.press("o");
  await until(async () => (await rows(page)).join() === "oops", "standard error alone");
  await keyboard.press("o");
  await page.getByRole("button", { name: "Both", pressed: true }).waitFor();
  await keyboard.press(":");
  await page.getByLabel("Go to").waitFor();
  await keyboard.type("100");
  await keyboard.press("Enter");
  await page.locator(".l.tg", { hasText: "100" }).waitFor();
  await keyboard.press("f");
  await page.getByRole("button", { name: "Follow", pressed: true }).waitFor();
  await tabTo(page, page.locator(".lines"));
  await keyboard.press("Home");
  await until(async () => (await rows(page))[0] === "1", "the beginning");
  await keyboard.press("Control+f");
  await keyboard.type("277");
  await page.locator(".find .hits", { hasText: "1 hit" }).waitFor();
  await keyboard.press("Enter");
  await page.locator(".hit.now").waitFor();
  await keyboard.press("Escape");
  await keyboard.press("Escape");
  // The list: filter, cursor, selection, peek.
  await keyboard.press("g");
  await keyboard.press("j");
  await page.locator("tr", { hasText: "by-hand" }).waitFor();
  await keyboard.press("l");
  await keyboard.type("keys=all");
  await keyboard.press("Enter");
  await page.locator(".chip", { hasText: "keys=all" }).waitFor();
  await keyboard.press("Escape");
  await page.locator("tr[data-id]", { hasText: "by-hand" }).waitFor();
  await keyboard.press("j");
  await page.locator("tr[data-cursor]", { hasText: "by-hand" }).waitFor();
  await keyboard.press("x");
  await page.getByText("1 selected").waitFor();
  await keyboard.press("x");
  await keyboard.press("Space");
  await page.locator(".drawer", { hasText: "oops" }).waitFor();
  await keyboard.press("Escape");
  await page.locator(".drawer").waitFor({ state: "detached" });
  await keyboard.press("Enter");
  await page.locator("h1", { hasText: "by-hand" }).waitFor();
  await keyboard.press("s");
  const dialog = page.locator("dialog");
  await tabTo(page, dialog.getByLabel("Reason"));
  await keyboard.type("by keys");
  await keyboard.press("Enter");
  await page.locator(".title .state", { hasText: "Canceled" }).waitFor();
  await page.getByText("by keys").first().waitFor();
  const { pathname } = new URL(page.url());
  await keyboard.press("r");
  await page.waitForURL((url) => url.pathname !== pathname);
  await page.locator(".title .state", { hasText: "Running" }).waitFor();
  for (const [tab, key] of [["Processes", "2"], ["Spec", "3"], ["Events", "4"], ["Output", "1"]]) {
    await keyboard.press(key);
    await page.getByRole("tab", { name: tab, selected: true }).waitFor();
  }
  // Tab comes round: nothing holds the focus.
  await tabTo(page, page.getByRole("link", { name: "Overview" }).first());
  await visitor.leave();
});

test("single keys that are switched off do nothing, and everything is still reached", options, async () => {
  const visitor = await browser.signedIn(service, "settings");
  const { page } = visitor;
  await tabTo(page, page.getByLabel("single keys act"));
  await page.keyboard.press("Space");
  assert.equal(await page.getByLabel("single keys act").isChecked(), false);
  await page.keyboard.press("Escape");
  for (const key of ["?", "n", "/"]) await page.keyboard.press(key);
  assert.equal(await page.locator("dialog").count(), 0);
  assert.equal(page.url(), `${service.url}/ui/settings`);
  await tabTo(page, page.getByRole("link", { name: "Run", exact: true }));
  await page.keyboard.press("Enter");
  await page.waitForURL(`${service.url}/ui/run`);
  await page.goto(`${service.url}/ui/jobs`);
  await page.locator("tbody tr").first().waitFor();
  await page.keyboard.press("s");
  assert.equal(await page.locator("dialog").count(), 0);
  const name = page.locator("tbody .name").first();
  await tabTo(page, name);
  await page.keyboard.press("Enter");
  await page.locator(".lines .l").first().waitFor();
  await visitor.leave();
});

test("what can be done with a job and with the service is done from the box at the top", options, async () => {
  const job = await service.create({ script: "echo here; exec sleep 300", name: "boxed", labels: { box: "yes" } });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  const { keyboard } = page;
  const say = async (words) => {
    await keyboard.press("/");
    await page.locator(".jump input:focus").waitFor();
    await keyboard.type(words);
  };
  await page.locator(".title .state", { hasText: "Running" }).waitFor();
  // All that can be done, and the way through it by arrows.
  await say(">");
  await page.locator(".jump .pop button", { hasText: "Pause boxed" }).waitFor();
  const all = await page.locator(".jump .pop button").allTextContents();
  for (const word of ["Stop boxed …", "Signal boxed …", "Again: rerun boxed", "Change name, labels, timeout of boxed …", "Copy the id of boxed", "Log out"]) assert.ok(all.includes(word), `${word}: ${all.join()}`);
  assert.ok(!all.some((word) => word.startsWith("Resume") || word.startsWith("Remove")), all.join());
  await keyboard.press("Escape");
  await say("pause");
  await page.locator(".jump .pop", { hasText: "Pause boxed" }).waitFor();
  await keyboard.press("Enter");
  await page.locator(".title .state", { hasText: "Paused" }).waitFor();
  await say("resume");
  await keyboard.press("Enter");
  await page.locator(".title .state", { hasText: "Running" }).waitFor();
  // A job whose name begins so comes first, and Enter waits until that is known.
  const named = await service.create({ command: ["true"], name: "stop-me" });
  await service.finished(named.id);
  let answer;
  const entered = new Promise((done) => { answer = done; });
  await page.route("**/jobs?name_prefix=stop*", async (route) => {
    await entered;
    await route.continue();
  });
  await say("stop");
  await keyboard.press("Enter");
  answer();
  await page.locator("h1", { hasText: "stop-me" }).waitFor();
  assert.equal(await page.locator("dialog").count(), 0);
  await page.goBack();
  await page.locator("h1", { hasText: "boxed" }).waitFor();
  await page.locator(".title .state", { hasText: "Running" }).waitFor();
  // What is asked about when its button is pressed is asked about here.
  await say("> stop b");
  await page.locator(".jump .pop button", { hasText: "Stop boxed …" }).waitFor();
  await keyboard.press("ArrowDown");
  await keyboard.press("Enter");
  await page.locator("dialog", { hasText: "Stop boxed?" }).waitFor();
  assert.equal((await service.job(job.id)).state, "running");
  await keyboard.press("Enter");
  await page.locator(".title .state", { hasText: "Canceled" }).waitFor();
  await say("rerun");
  await page.locator(".jump .pop", { hasText: "rerun boxed" }).waitFor();
  await keyboard.press("Enter");
  await page.waitForURL((url) => !url.pathname.endsWith(job.id));
  await page.locator(".title .state", { hasText: "Running" }).waitFor();
  const { jobs } = await (await service.api("GET", "/jobs?label_selector=box%3Dyes&state=running")).json();
  for (const one of jobs) await service.api("DELETE", `/jobs/${one.id}?force`);
  await page.unroute("**/jobs?name_prefix=stop*");
  await visitor.leave();
});

test("an administrator drains from the box; who may only look is offered nothing that would be refused", options, async () => {
  const job = await service.create({ command: ["true"], name: "looked-at" });
  await service.finished(job.id);
  const visitor = await browser.visitor(service);
  const { page } = visitor;
  await page.goto(await service.wayIn("--scope", "admin"));
  await page.locator(".app").waitFor();
  const box = page.locator(".jump input");
  await box.fill("drain");
  await page.locator(".jump .pop button", { hasText: "Drain the service" }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByText("Draining: no new job is taken").waitFor();
  await box.fill("drain");
  await page.locator(".jump .pop button", { hasText: "End the drain" }).waitFor();
  await page.keyboard.press("Enter");
  await page.getByText("Draining: no new job is taken").waitFor({ state: "detached" });
  await visitor.leave();
  const reader = await browser.visitor(service);
  await reader.page.goto(await service.wayIn("--scope", "read"));
  await reader.page.locator(".app").waitFor();
  await reader.page.goto(`${service.url}/ui/jobs/${job.id}`);
  await reader.page.locator("h1", { hasText: "looked-at" }).waitFor();
  await reader.page.locator(".jump input").fill(">");
  await reader.page.locator(".jump .pop button", { hasText: "Log out" }).waitFor();
  const offered = await reader.page.locator(".jump .pop button").allTextContents();
  assert.deepEqual(offered.sort(), ["Copy the id of looked-at", "Dark colours", "Keys and what they do", "Log out"]);
  await reader.leave();
});
