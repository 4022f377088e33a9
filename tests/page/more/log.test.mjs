// A log that is followed, and one that has dropped its beginning.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, LIMIT, rows, seen, Service, until } from "../harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("what the limit of the output has dropped is a row, also while somebody looks at it", options, async () => {
  const job = await service.create({ script: "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); echo line $i; done; echo begun; while :; do i=$((i+1)); echo line $i; sleep 0.01; done", output: { max_bytes: 100_000 }, name: "dropping" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await until(async () => (await rows(page)).some((row) => /^line 40[0-9]{3}$/.test(row)), "output that goes on");
  await page.locator(".lines").focus();
  await page.keyboard.press("Home");
  await page.locator(".gap", { hasText: /dropped by the limit of the output; lines are counted from here/ }).waitFor();
  const first = (await service.job(job.id)).output.first_offset;
  assert.ok(first > 100_000, `${first}`);
  // The place is dropped below the reader: the oldest that is kept takes its place, without an error.
  await until(async () => (await service.job(job.id)).output.first_offset > first, "more is dropped", 3 * LIMIT);
  await page.locator(".lines").focus();
  await page.keyboard.press("f");
  const at = Number(/[0-9]+/.exec((await rows(page)).at(-1))[0]);
  await until(async () => Number(/[0-9]+/.exec((await rows(page)).at(-1))[0]) > at, "the end");
  await service.api("DELETE", `/jobs/${job.id}?force&wait=30`);
  await visitor.leave();
});

test("following: the end is seen as it comes, scrolling up holds still, a key goes on", options, async () => {
  const job = await service.create({ script: "i=0; while :; do i=$((i+1)); echo $i; [ $i -gt 200 ] && sleep 0.05; done" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await until(async () => Number((await seen(page)).at(-1)) > 210, "output that goes on");
  const box = await page.locator(".lines").boundingBox();
  await page.mouse.move(box.x + 200, box.y + 200);
  await page.mouse.wheel(0, -600);
  await page.locator(".fresh").waitFor();
  const before = await seen(page);
  const job1 = await service.job(job.id);
  await until(async () => (await service.job(job.id)).output.next_offset > job1.output.next_offset + 40, "more output");
  assert.deepEqual(await seen(page), before);
  await page.locator(".lines").focus();
  await page.keyboard.press("f");
  await until(async () => Number((await seen(page)).at(-1)) > Number(before.at(-1)), "the end");
  await page.locator(".fresh").waitFor({ state: "detached" });
  await service.api("DELETE", `/jobs/${job.id}?force`);
  await visitor.leave();
});
