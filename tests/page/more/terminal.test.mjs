// A terminal on a screen that is touched, and standard input without a terminal.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service, until } from "../harness.mjs";
import { bringAxe, findings, misfits } from "../look.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("keys that a screen keyboard has not are a bar: Tab, arrows, Ctrl with a letter", options, async () => {
  // Bytes as they come; Ctrl-C is one of them.
  const job = await service.create({ script: "stty raw -echo; exec od -An -v -tx1 -w1", pty: {}, name: "bytes", stop: { signal: "SIGHUP" } });
  const visitor = await browser.visitor(service, { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  const { page } = visitor;
  await bringAxe(page);
  await page.goto(await service.wayIn());
  await page.locator(".app").waitFor();
  await page.goto(`${service.url}/ui/jobs/${job.id}`);
  await page.getByText("you write").waitFor();
  const bar = page.getByRole("group", { name: "Keys" });
  await bar.waitFor();
  const keys = ["Esc", "Tab", "Left", "Up"];
  for (const name of keys) await bar.getByRole("button", { name, exact: true }).tap();
  await bar.getByRole("button", { name: "Ctrl", exact: true }).tap();
  await bar.getByRole("button", { name: "Ctrl", exact: true, pressed: true }).waitFor();
  await page.keyboard.type("cx");
  await bar.getByRole("button", { name: "Ctrl", exact: true, pressed: false }).waitFor();
  const bytes = async () => (await (await service.api("GET", `/jobs/${job.id}/output`)).text()).trim().split(/\s+/).join(" ");
  await until(async () => (await bytes()) === "1b 09 1b 5b 44 1b 5b 41 03 78", "the bytes of the keys");
  for (const button of await bar.getByRole("button").all()) {
    const { width, height } = await button.boundingBox();
    assert.ok(width >= 40 && height >= 40, `${width} × ${height}`);
  }
  assert.deepEqual([await findings(page), await misfits(page)], [[], []]);
  await visitor.leave();
  const plain = await browser.signedIn(service, `jobs/${job.id}`);
  await plain.page.locator(".xterm").waitFor();
  assert.equal(await plain.page.locator(".keybar").isVisible(), false);
  await plain.leave();
});

test("an open standard input takes lines, a file and an end, each once also where an answer is lost", options, async () => {
  const job = await service.create({ command: ["cat"], stdin: { mode: "open" }, name: "cat" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}?tab=input`, { allowed: [/net::ERR_/, /status of 409/, /WebSocket/] });
  const { page } = visitor;
  // What the service has done of the first write with bytes is not told to the page.
  let lost = 0;
  await page.route((url) => url.pathname.endsWith("/stdin"), async (route) => {
    if (route.request().postData() === null || lost > 0) return route.continue();
    lost += 1;
    await route.fetch();
    return route.abort("connectionreset");
  });
  await page.getByLabel("Standard input").fill("hello");
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByText("written, 6 B").waitFor();
  assert.equal(lost, 1);
  await page.locator("input[type=file]").setInputFiles({ name: "words.txt", mimeType: "text/plain", buffer: Buffer.from("from a file\n") });
  await page.getByText("words.txt, 12 B").waitFor();
  await service.killServer();
  await page.getByLabel("Standard input").fill("after the kill");
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByText("written, 15 B").waitFor();
  await page.getByRole("button", { name: "End of input" }).click();
  assert.equal((await service.finished(job.id)).exit.code, 0);
  const output = await (await service.api("GET", `/jobs/${job.id}/output`)).text();
  assert.equal(output, "hello\nfrom a file\nafter the kill\n");
  await visitor.leave();
});
