// A job's terminal.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service, until } from "./harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

const screen = (page) => page.locator(".xterm-rows").innerText();

test("what is typed reaches the job, its size follows, and it goes on over a killed server", options, async () => {
  const job = await service.create({ command: ["sh"], pty: {}, env: { PS1: "> " }, stop: { signal: "SIGHUP" }, name: "shell" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`, { allowed: [/net::ERR_/, /WebSocket/] });
  const { page } = visitor;
  await page.getByText("you write").waitFor();
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("echo $((6*7))", { delay: 5 });
  await page.keyboard.press("Enter");
  await until(async () => /^42$/m.test(await screen(page)), "the answer");
  await page.keyboard.type("stty size", { delay: 5 });
  await page.keyboard.press("Enter");
  await until(async () => /^[0-9]+ [0-9]+$/m.test(await screen(page)), "the size");
  const [, rows, cols] = /^([0-9]+) ([0-9]+)$/m.exec(await screen(page));
  assert.ok(Number(rows) > 25 && Number(cols) > 81, `${rows} ${cols}`);
  await service.killServer();
  await page.getByText("you write").waitFor();
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("echo after $((40+2))", { delay: 5 });
  await page.keyboard.press("Enter");
  await until(async () => /^after 42$/m.test(await screen(page)), "the answer after the kill");
  const second = await visitor.context.newPage();
  await second.goto(`${service.url}/ui/jobs/${job.id}`);
  await second.getByText("you watch").waitFor();
  await until(async () => /after 42/.test(await screen(second)), "the same screen");
  await second.close();
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.press("Control+p");
  await page.keyboard.press("Control+q");
  await page.getByText("You have left").waitFor();
  assert.equal((await service.job(job.id)).state, "running");
  await service.api("DELETE", `/jobs/${job.id}?force`);
  await visitor.leave();
});

test("a full-screen program draws, is typed into and writes a file; who may only look sees a log", options, async () => {
  const file = join(service.dir, "written.txt");
  const job = await service.create({ command: ["vim", "-u", "NONE", "-n", file], pty: {}, stop: { signal: "SIGHUP" }, name: "vim" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await page.getByText("you write").waitFor();
  await until(async () => /^~/m.test(await screen(page)), "an empty file");
  const looker = await browser.visitor(service);
  await looker.page.goto(await service.wayIn("--scope", "read"));
  await looker.page.locator(".app").waitFor();
  await looker.page.goto(`${service.url}/ui/jobs/${job.id}`);
  await looker.page.locator(".lines .l").first().waitFor();
  assert.equal(await looker.page.locator(".xterm").count(), 0);
  await looker.leave();
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type("ihello from vim", { delay: 5 });
  await page.keyboard.press("Escape");
  await until(async () => /hello from vim/.test(await screen(page)), "what is typed");
  await page.keyboard.type(":wq", { delay: 5 });
  await page.keyboard.press("Enter");
  await page.locator(".title .state", { hasText: "Succeeded" }).waitFor();
  assert.equal(await readFile(file, "utf8"), "hello from vim\n");
  await visitor.leave();
});
