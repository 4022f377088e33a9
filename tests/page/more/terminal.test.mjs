// A terminal on a screen that is touched.

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
