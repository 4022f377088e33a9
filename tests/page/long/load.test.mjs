// Much of it: a log of 1 GB, a fast writer, many jobs. What is printed is measured; what is asserted are bounds
// that hold on a slow machine as well.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service, until } from "../harness.mjs";
import { heap, lines, LOG_BYTES, makeLog, measure } from "../measure.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(["--max-running", "1200"]), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 20 * LIMIT };

/** The bytes at which the rows that are seen begin. */
async function seen(page) {
  return await page.evaluate(() => {
    const box = document.querySelector(".lines").getBoundingClientRect();
    return [...document.querySelectorAll(".lines .l")].filter((row) => row.getBoundingClientRect().top >= box.top - 1 && row.getBoundingClientRect().bottom <= box.bottom + 1).map((row) => row.dataset.o);
  });
}

test("1 GB opens at once, is jumped in, and costs no memory", options, async () => {
  const job = await makeLog(service, LOG_BYTES);
  const visitor = await browser.signedIn(service);
  const figures = await measure(visitor.page, service, job, 60);
  console.log(JSON.stringify(figures));
  // A page or a server that read all of it would take longer, even with nothing else to do.
  assert.ok(figures.first_lines_ms < 10_000, "first lines");
  assert.ok(figures.jump_p99_ms < 10_000, "jumps");
  assert.ok(figures.heap_bytes < 60e6, "heap");
  assert.ok(figures.nodes < 4000, "nodes");
  for (const [text, first] of [["1000000", 1_000_000], [":50%", null]]) {
    await visitor.page.keyboard.press(":");
    await visitor.page.getByLabel("Go to").fill(text.replace(":", ""));
    await visitor.page.keyboard.press("Enter");
    await visitor.page.locator("dialog").waitFor({ state: "detached" });
    if (first !== null) await until(async () => (await lines(visitor.page)).some((line) => line.startsWith(`${first} `)), `line ${first}`, 6 * LIMIT);
    else await until(async () => Math.abs(Number((await lines(visitor.page))[0].split(" ")[0]) / 10_000_000 - 0.5) < 0.02, "the middle");
  }
  await visitor.leave();
  await service.api("DELETE", `/jobs/${job.id}?purge&wait=60`);
});

test("10 MB/s for 20 s: the end is seen, scrolling up holds still, and the heap stays", options, async () => {
  const job = await service.create({ command: ["python3", "-c", "import sys,time\nline=b'x'*99+b'\\n'\nend=time.time()+25\nwhile time.time()<end:\n  t=time.time()\n  sys.stdout.buffer.write(line*10000); sys.stdout.buffer.flush()\n  time.sleep(max(0,0.1-(time.time()-t)))"], output: { max_bytes: 1_000_000_000 } });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await page.locator(".lines .l").first().waitFor();
  const offset = async () => (await service.job(job.id)).output.next_offset;
  await until(async () => (await offset()) > 20e6, "some output");
  const before = await heap(page);
  const box = await page.locator(".lines").boundingBox();
  await page.mouse.move(box.x + 200, box.y + 200);
  await page.mouse.wheel(0, -600);
  await page.locator(".fresh").waitFor();
  const held = await seen(page);
  const then = await offset();
  await until(async () => (await offset()) > then + 20e6, "more output");
  assert.deepEqual(await seen(page), held);
  await page.locator(".lines").focus();
  await page.keyboard.press("f");
  await page.locator(".fresh").waitFor({ state: "detached" });
  await service.finished(job.id);
  const after = await heap(page);
  console.log(JSON.stringify({ written: await offset(), heap_before: before, heap_after: after }));
  assert.ok(after < before + 25e6, `${before} → ${after}`);
  await visitor.leave();
});

/** Seconds of processor that a process has used. */
async function processor(pid) {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

test("1 000 jobs run and others come and go: the list is drawn a few times a second at most", options, async () => {
  const many = await (await service.api("POST", "/batches", { name: "many", jobs: [{ key: "many", repeat: 1000, command: ["sleep", "900"], labels: { load: "yes" } }] })).json();
  await until(async () => (await (await service.api("GET", `/batches/${many.id}`)).json()).counts.running === 1000, "1 000 running jobs", 10 * LIMIT);
  const visitor = await browser.signedIn(service, "jobs?state=running");
  const { page } = visitor;
  await page.locator("tbody tr").nth(40).waitFor();
  await page.evaluate(() => {
    globalThis.drawn = 0;
    new MutationObserver(() => { globalThis.drawn += 1; }).observe(document.querySelector("tbody"), { childList: true, subtree: true, characterData: true });
  });
  let asked = 0;
  page.on("request", () => { asked += 1; });
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  const busy = async () => (await session.send("Performance.getMetrics")).metrics.find((one) => one.name === "TaskDuration").value;
  const { server_pid: server } = await (await service.api("GET", "/info")).json();
  const before = [await busy(), await processor(server)];
  const from = performance.now();
  const end = from + 20_000;
  let made = 0;
  const work = async () => { while (performance.now() < end) { await service.create({ command: ["true"], labels: { load: "yes" } }); made += 1; } };
  await Promise.all(Array.from({ length: 8 }, work));
  const seconds = (performance.now() - from) / 1000;
  const drawn = await page.evaluate(() => globalThis.drawn);
  const share = (now, then) => Math.round(((now - then) / seconds) * 100) / 100;
  console.log(JSON.stringify({ jobs_per_second: Math.round(made / seconds), drawn_per_second: drawn / seconds, requests_per_second: asked / seconds, cores_of_page: share(await busy(), before[0]), cores_of_server: share(await processor(server), before[1]) }));
  // Clocks tick once a second as well, and a batch of changes is one or two callbacks.
  assert.ok(drawn / seconds < 12, `${drawn} in ${seconds} s`);
  assert.ok(asked / seconds < 16, `${asked} in ${seconds} s`);
  await service.api("DELETE", `/batches/${many.id}?force&wait=60`);
  await visitor.leave();
});
