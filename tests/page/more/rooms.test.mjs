// Queues, templates of a policy, tokens, findings and recordings.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { variety } from "../gallery.mjs";
import { Browser, LIMIT, Service, until } from "../harness.mjs";

let service, guarded, browser, jobs;

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
  [service, browser] = await Promise.all([Service.start(["--max-running", "8"]), Browser.start()]);
  guarded = await Service.start(["--policy", await policy()]);
  jobs = await variety(service);
});
after(async () => { await browser.stop(); await service.stop(); await guarded.stop(); });

const options = { timeout: 4 * LIMIT };

async function policy() {
  const file = join(service.dir, "policy.toml");
  await writeFile(file, POLICY, { mode: 0o600 });
  return file;
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
