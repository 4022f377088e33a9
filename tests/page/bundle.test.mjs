// What is sent to a browser: built from its sources, small, complete, and from nowhere else.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { Browser, LIMIT, root, Service } from "./harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };
const dist = join(root, "web/dist");

test("the committed files are what the sources give, and name no other place", options, async () => {
  const made = await mkdtemp(join(tmpdir(), "procession-page-"));
  try {
    await promisify(execFile)("node", [join(root, "web/build.mjs"), made]);
    const names = (await readdir(dist)).sort();
    assert.deepEqual((await readdir(made)).sort(), names);
    for (const name of names) {
      const bytes = await readFile(join(dist, name));
      assert.ok(bytes.equals(await readFile(join(made, name))), name);
      if (name === "LICENSES.txt") continue;
      // Names of namespaces, the page's own rules for links, and examples in forms.
      for (const [address] of bytes.toString("utf8").matchAll(/https?:\/\/[a-z0-9.-]+/gi)) assert.match(address, /^https?:\/\/(www\.w3\.org|127\.0\.0\.1|[a-z.]*example\.?[a-z]*)$/i, `${name}: ${address}`);
    }
    assert.match(await readFile(join(dist, "LICENSES.txt"), "utf8"), /preact[^]*MIT/);
  } finally {
    await rm(made, { recursive: true, force: true });
  }
});

test("the first load is six requests and 75 kB at most, and the rest comes when it is opened", options, async () => {
  const visitor = await browser.visitor(service);
  const { page } = visitor;
  await page.goto(await service.wayIn());
  await page.locator(".app").waitFor();
  const fresh = await browser.visitor(service, { storageState: undefined });
  const loads = [];
  fresh.page.on("requestfinished", (request) => { if (new URL(request.url()).pathname.startsWith("/ui/")) loads.push(request); });
  await fresh.page.goto(await service.wayIn());
  await fresh.page.locator(".app").waitFor();
  const sizes = await Promise.all(loads.map(async (request) => (await request.sizes()).responseBodySize));
  const sum = sizes.reduce((total, one) => total + one, 0);
  // The browser may ask for the icon again, for the address that the page has in the end.
  const files = new Set(loads.map((one) => one.url()));
  assert.ok(files.size <= 6, [...files].join(" "));
  assert.ok(sum > 10_000 && sum <= 75_000, `${sum} bytes`);
  for (const request of loads.filter((one) => one.url().includes("/assets/") && /-[A-Z0-9]{8}\./.test(one.url()))) assert.match((await request.response()).headers()["cache-control"], /immutable/);
  await fresh.leave();
  await visitor.leave();
});
