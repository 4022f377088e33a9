// How fast the page is: its first load, a large log in it, output that comes, and a server that is killed.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { root, until } from "./harness.mjs";

/** As much as the design is about: 10.5 million lines. */
export const LOG_BYTES = 1_000_000_000;

/** A job whose output is `bytes` of numbered lines. */
export async function makeLog(service, bytes) {
  const script = `awk 'BEGIN { for (i = 1; n < ${bytes}; i++) { line = i " ${"abcdefghij".repeat(9)}"; n += length(line) + 1; print line } }'`;
  const job = await service.create({ script, name: "large", output: { max_bytes: 2 * bytes } });
  for (;;) {
    const seen = await service.job(job.id, "?wait=60");
    if (seen.finished_at) return seen;
  }
}

/** The lines that are seen. */
export async function lines(page) {
  return await page.locator(".lines .l .x").allTextContents();
}

export function percentile(values, part) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
}

/** Bytes of the heap after what is not needed has gone. */
export async function heap(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  await session.detach();
  return usedSize;
}

/** From a click on a job in the list to the frame that shows lines of its log, within the page: the way to this process and back is not of it. */
async function firstLines(page, service) {
  await page.goto(`${service.url}/ui/jobs?name=large`);
  const name = page.locator("tr a", { hasText: "large" }).first();
  await name.waitFor();
  await page.evaluate(() => {
    globalThis.first = new Promise((done) => document.addEventListener("click", ({ timeStamp }) => {
      const look = () => {
        if (document.querySelector(".lines .l .x") === null) return requestAnimationFrame(look);
        const channel = new MessageChannel();
        channel.port1.onmessage = () => { channel.port1.close(); done(performance.now() - timeStamp); };
        channel.port2.postMessage(null);
      };
      requestAnimationFrame(look);
    }, { capture: true, once: true }));
  });
  await name.click();
  return await page.evaluate(() => globalThis.first);
}

/** Opens the log of a job five times, and jumps in it, by the address, to random places. */
export async function measure(page, service, job, jumps) {
  const firsts = [];
  for (let i = 0; i < 5; i++) firsts.push(await firstLines(page, service));
  const first = percentile(firsts, 0.5);
  const size = job.output.next_offset;
  // Within the page: what is measured is not the way to this process and back. It ends when the frame that has the
  // line has been painted: the task behind it comes after that.
  const times = await page.evaluate(async ({ size, jumps }) => {
    const seen = () => document.querySelector(".lines .l.tg") !== null;
    const painted = () => new Promise((done) => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => { channel.port1.close(); done(); };
      channel.port2.postMessage(null);
    });
    const out = [];
    for (let i = 0; i < jumps; i++) {
      const offset = Math.floor(Math.random() * size);
      const from = performance.now();
      location.hash = `#o${offset}`;
      const mine = location.hash;
      await new Promise((done, failed) => {
        const look = () => {
          const target = document.querySelector(".lines .l.tg");
          const at = target ? Number(target.dataset.o ?? NaN) : NaN;
          if (location.hash !== mine) return failed(new Error("the address has changed"));
          if (seen() && (Number.isNaN(at) || Math.abs(at - offset) <= 8192)) return done();
          if (performance.now() - from > 20_000) return failed(new Error(`no jump to ${offset}`));
          requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
      });
      await painted();
      out.push(performance.now() - from);
    }
    return out;
  }, { size, jumps });
  const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
  return {
    bytes: size, first_lines_ms: Math.round(first), jumps, jump_p50_ms: Math.round(percentile(times, 0.5)), jump_p99_ms: Math.round(percentile(times, 0.99)), jump_max_ms: Math.round(Math.max(...times)),
    heap_bytes: await heap(page), nodes,
  };
}


/** The page from nothing to a list of jobs, in browsers that know nothing of it but their session; and the size of all of it. */
export async function firstLoad(browser, service, rounds) {
  const job = await service.create({ command: ["true"], name: "listed" });
  await service.finished(job.id);
  const entrant = await browser.signedIn(service);
  const kept = await entrant.page.evaluate(() => ({ ...sessionStorage }));
  await entrant.leave();
  const [paints, lists, loads] = [[], [], []];
  for (let i = 0; i < rounds; i++) {
    const visitor = await browser.visitor(service);
    const { page } = visitor;
    await visitor.context.addInitScript((all) => {
      for (const [key, value] of Object.entries(all)) sessionStorage.setItem(key, value);
      globalThis.listed = null;
      new MutationObserver(() => { if (document.querySelector("tbody tr")) globalThis.listed ??= performance.now(); }).observe(document, { childList: true, subtree: true });
    }, kept);
    const files = new Map();
    page.on("requestfinished", (request) => { if (new URL(request.url()).pathname.startsWith("/ui/")) files.set(request.url(), request.sizes()); });
    await page.goto(`${service.url}/ui/jobs`);
    await page.locator("tbody tr").first().waitFor();
    const paint = () => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null);
    await until(async () => (await paint()) !== null, "the first paint");
    paints.push(await paint());
    lists.push(await page.evaluate(() => globalThis.listed));
    const sizes = await Promise.all(files.values());
    loads.push({ requests: files.size, bytes: sizes.reduce((sum, one) => sum + one.responseBodySize, 0) });
    await visitor.leave();
  }
  const names = (await readdir(join(root, "web/dist"))).filter((name) => name !== "LICENSES.txt");
  const whole = await Promise.all(names.map(async (name) => {
    const answer = await fetch(`${service.url}/ui/${name === "index.html" ? "" : `assets/${name}`}`, { headers: { "Accept-Encoding": "gzip" } });
    await answer.arrayBuffer();
    if (!answer.ok) throw new Error(`${name}: ${answer.status}; the program has another page than web/dist`);
    return Number(answer.headers.get("content-length"));
  }));
  return {
    load_bytes: Math.max(...loads.map((one) => one.bytes)), load_requests: Math.max(...loads.map((one) => one.requests)), all_bytes: whole.reduce((sum, one) => sum + one, 0),
    paint_ms: Math.round(percentile(paints, 0.5)), list_ms: Math.round(percentile(lists, 0.5)),
  };
}

/** A search over a whole log: when its first hit comes, and the end. */
export async function find(service, job, words) {
  const from = performance.now();
  const answer = await service.api("GET", `/jobs/${job.id}/output/search?q=${encodeURIComponent(words)}`);
  let [first, text] = [null, ""];
  for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
    text = (text + part).slice(-4096);
    if (first === null && text.includes('"match"')) first = performance.now() - from;
  }
  return { find_first_ms: Math.round(first), find_all_ms: Math.round(performance.now() - from), find_hits: Number(/"matches":([0-9]+)/.exec(text)?.[1]) };
}

/** Prints so many lines, twenty a second; each is the moment at which it was printed. */
async function makeClock(service, lines) {
  const program = `import time\nfor i in range(${lines}):\n  print("at %.3f" % (time.time() * 1000), flush=True)\n  time.sleep(0.05)`;
  return await service.create({ command: ["python3", "-c", program], name: "clock" });
}

/** From now on the page keeps which lines it has shown, at which bytes of the log, and how long each was under way. */
async function watchClock(page) {
  await page.evaluate(() => {
    globalThis.shown = new Map();
    globalThis.delays = new Map();
    let isFirst = true;
    const look = () => {
      const at = performance.timeOrigin + performance.now();
      for (const row of document.querySelectorAll(".lines .l")) {
        const text = row.querySelector(".x")?.textContent ?? "";
        if (!text.startsWith("at ")) continue;
        globalThis.shown.set(row.dataset.o, text);
        if (!globalThis.delays.has(text)) globalThis.delays.set(text, isFirst ? null : at - Number(text.slice(3)));
      }
      isFirst = false;
      requestAnimationFrame(look);
    };
    look();
  });
}

/** How long a line is under way from its printing to the screen. */
export async function printedToSeen(visitor, service, lines) {
  const { page } = visitor;
  const job = await makeClock(service, lines);
  await page.goto(`${service.url}/ui/jobs/${job.id}`);
  await page.locator(".lines .l").first().waitFor();
  await watchClock(page);
  await service.finished(job.id);
  await page.getByText("Succeeded").first().waitFor();
  const delays = (await page.evaluate(() => [...globalThis.delays.values()])).filter((one) => one !== null);
  return { seen_lines: delays.length, seen_p50_ms: Math.round(percentile(delays, 0.5)), seen_p99_ms: Math.round(percentile(delays, 0.99)) };
}

/** The server is killed under a page that follows: when a line is seen that was printed after that, and what is missing or double. */
export async function killed(visitor, service, lines) {
  const { page } = visitor;
  const job = await makeClock(service, lines);
  await page.goto(`${service.url}/ui/jobs/${job.id}`);
  await page.locator(".lines .l").first().waitFor();
  await watchClock(page);
  await until(async () => (await page.evaluate(() => globalThis.delays.size)) > 20, "output");
  const { server_pid: pid } = await (await service.api("GET", "/info")).json();
  const at = Date.now();
  process.kill(pid, "SIGKILL");
  const after = (moment) => [...globalThis.delays].find(([text, delay]) => delay !== null && Number(text.slice(3)) > moment);
  await until(async () => (await page.evaluate(after, at)) !== undefined, "output after the kill");
  const [text, delay] = await page.evaluate(after, at);
  await until(async () => (await service.job(job.id).catch(() => ({}))).finished_at != null, "its end");
  const truth = await (await service.api("GET", `/jobs/${job.id}/output/stdout`)).text();
  const last = truth.trim().split("\n").at(-1);
  await until(async () => (await page.evaluate((one) => globalThis.delays.has(one), last)), "the last line");
  // What rushed by is looked at once more.
  await page.locator(".lines").focus();
  await page.keyboard.press("Home");
  const has = (one) => page.evaluate((words) => [...document.querySelectorAll(".lines .l .x")].some((row) => row.textContent === words), one);
  await until(() => has(truth.split("\n")[0]), "the beginning");
  while (!(await has(last))) {
    const before = await screen(page);
    await page.keyboard.press("PageDown");
    await until(async () => (await screen(page)) !== before, "the next lines");
  }
  const shown = await page.evaluate(() => [...globalThis.shown]);
  const all = shown.sort(([one], [other]) => Number(one) - Number(other)).map(([, line]) => `${line}\n`).join("");
  return { back_ms: Math.round(Number(text.slice(3)) + delay - at), lost_bytes: Math.max(0, truth.length - all.length), double_bytes: Math.max(0, all.length - truth.length), same_bytes: all === truth };
}

async function screen(page) {
  return (await lines(page)).join("\n");
}
