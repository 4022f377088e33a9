// Getting in, and being kept out.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Browser, LIMIT, PROGRAM, Service, until } from "./harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("a code signs in once, and leaves the address at once", options, async () => {
  const visitor = await browser.visitor(service, { allowed: [/status of 401/] });
  const address = await service.wayIn();
  await visitor.page.goto(address);
  await visitor.page.locator(".app").waitFor();
  assert.equal(visitor.page.url(), `${service.url}/ui/`);
  assert.ok(!(await visitor.page.evaluate(() => JSON.stringify(history.state) + location.hash)).includes("code"));
  const other = await browser.visitor(service, { allowed: [/status of 401/] });
  await other.page.goto(address);
  await other.page.getByText("This code was used, or is too old").first().waitFor();
  assert.ok(!other.page.url().includes("code"));
  await other.leave();
  await visitor.leave();
});

test("a first start on a terminal prints the way in, which signs in", options, async () => {
  const dir = await mkdtemp(join(tmpdir(), "procession-page-"));
  const command = `exec ${PROGRAM} serve --listen 127.0.0.1:0 --state-dir ${dir}`;
  const terminal = spawn("script", ["-qefc", command, "/dev/null"], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    let printed = "";
    terminal.stdout.on("data", (text) => { printed += text; });
    await until(async () => /http\S+#code=\S+/.test(printed), "the address");
    const [address] = /http\S+#code=\S+/.exec(printed);
    const visitor = await browser.visitor({ url: new URL(address).origin });
    await visitor.page.goto(address);
    await visitor.page.locator(".app").waitFor();
    assert.ok(!visitor.page.url().includes("#"));
    await visitor.leave();
  } finally {
    terminal.kill("SIGTERM");
    if (terminal.exitCode === null && terminal.signalCode === null) await once(terminal, "exit");
    await rm(dir, { recursive: true, force: true });
  }
});

test("a job is opened by its name", options, async () => {
  const job = await service.create({ command: ["true"], name: "by-name" });
  const visitor = await browser.visitor(service);
  await visitor.page.goto(await service.wayIn("by-name"));
  await visitor.page.locator("h1", { hasText: "by-name" }).waitFor();
  assert.equal(visitor.page.url(), `${service.url}/ui/jobs/${job.id}`);
  await visitor.leave();
});
