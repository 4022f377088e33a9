// Sessions: how long they last, what ends them, and what they may.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service, until } from "../harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("who stays signed in is so in a browser that was closed, until the log-out", options, async () => {
  const visitor = await browser.visitor(service, { allowed: [/status of 401/] });
  const { page, context } = visitor;
  await page.goto(`${service.url}/ui/`);
  await page.getByLabel("Or a token").fill(service.token);
  await page.getByLabel("Stay signed in").check();
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".app").waitFor();
  const kept = await context.storageState();
  await visitor.leave();
  const later = await browser.visitor(service, { allowed: [/status of 401/], storageState: kept });
  await later.page.goto(`${service.url}/ui/access`);
  await later.page.getByRole("button", { name: "Log out" }).first().click();
  await later.page.getByLabel("Or a token").waitFor();
  await later.page.reload();
  await later.page.getByLabel("Or a token").waitFor();
  await later.leave();
});

test("a token signs in, a new tab is signed in too, and logging out reaches it", options, async () => {
  const visitor = await browser.visitor(service, { allowed: [/status of 401/, /WebSocket/] });
  const { page, context } = visitor;
  await page.goto(`${service.url}/ui/jobs`);
  await page.getByLabel("Or a token").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("does not know this token").first().waitFor();
  await page.getByLabel("Or a token").fill(service.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".listhead").waitFor();
  assert.ok(!(await page.evaluate(() => JSON.stringify({ ...sessionStorage, ...localStorage }))).includes(service.token), "the token itself is kept nowhere");
  assert.equal((await context.cookies()).length, 0);
  const second = await context.newPage();
  await second.goto(`${service.url}/ui/access`);
  await second.getByRole("button", { name: "Log out" }).first().click();
  await second.getByLabel("Or a token").waitFor();
  await page.getByLabel("Or a token").waitFor();
  await visitor.leave();
});

test("access that ends is a sign-in over the place where one is", options, async () => {
  const made = (await service.cli("token", "create", "--name", "short", "--scope", "operate")).trim().split("\n").at(-1);
  // The service looks at its file of tokens once a second.
  const isKnown = async () => (await fetch(`${service.url}/info`, { headers: { Authorization: `Bearer ${made}` } })).ok;
  await until(isKnown, "the new token");
  const job = await service.create({ script: "seq 1 5000; sleep 300", name: "kept-place" });
  await until(async () => (await service.job(job.id)).output.next_offset > 20_000, "its output");
  const visitor = await browser.visitor(service, { allowed: [/status of 401/, /WebSocket/] });
  const { page } = visitor;
  await page.goto(`${service.url}/ui/jobs/${job.id}#o4888`);
  await page.getByLabel("Or a token").fill(made);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".l.tg", { hasText: "1200" }).waitFor();
  await service.cli("token", "revoke", "short");
  await page.getByText("Your access has ended").waitFor({ timeout: 8000 });
  assert.ok(await page.locator(".l.tg", { hasText: "1200" }).isVisible());
  await page.getByLabel("Or a token").fill(service.token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".scrim").waitFor({ state: "detached" });
  assert.ok(await page.locator(".l.tg", { hasText: "1200" }).isVisible());
  await service.api("DELETE", `/jobs/${job.id}?force`);
  await visitor.leave();
});

test("who may only look is offered nothing else", options, async () => {
  const job = await service.create({ command: ["sleep", "300"], name: "looked-at", pty: {} });
  const visitor = await browser.visitor(service);
  const { page } = visitor;
  await page.goto(await service.wayIn("--scope", "read"));
  await page.locator(".app").waitFor();
  assert.equal(await page.getByRole("link", { name: "Run", exact: true }).count(), 0);
  await page.goto(`${service.url}/ui/jobs/${job.id}`);
  await page.getByText("You may look").waitFor();
  for (const name of ["Stop", "Again", "Pause", "Signal"]) assert.equal(await page.getByRole("button", { name, exact: true }).count(), 0, name);
  assert.equal(await page.getByRole("tab", { name: "Terminal" }).count(), 0);
  await service.api("DELETE", `/jobs/${job.id}?force`);
  await visitor.leave();
});
