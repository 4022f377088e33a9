// What the page costs while nobody touches it, and how soon it answers somebody who does.

import { readFile } from "node:fs/promises";
import { heap, percentile } from "./measure.mjs";

/** Resident memory of the service's own two processes, and their processor time in ms. */
async function use(service) {
  const { server_pid: server, supervisor_pid: supervisor } = await (await service.api("GET", "/info")).json();
  let [rss, cpu] = [0, 0];
  for (const pid of [server, supervisor]) {
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    rss += Number(/VmRSS:\s+([0-9]+) kB/.exec(status)[1]) * 1024;
    const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).replace(/^.*\) /, "").split(" ");
    // Hundredths of a second.
    cpu += (Number(fields[11]) + Number(fields[12])) * 10;
  }
  return { rss, cpu };
}

/** What a page asks for, hears and draws in so long, untouched. */
async function untouched(page, seconds) {
  const tools = await page.context().newCDPSession(page);
  await tools.send("Performance.enable");
  await tools.send("Network.enable");
  const seen = { requests: 0, bytes: 0 };
  tools.on("Network.requestWillBeSent", () => { seen.requests += 1; });
  tools.on("Network.dataReceived", ({ encodedDataLength, dataLength }) => { seen.bytes += encodedDataLength || dataLength; });
  for (const way of ["Received", "Sent"]) tools.on(`Network.webSocketFrame${way}`, ({ response }) => { seen.bytes += response.payloadData.length; });
  const metrics = async () => Object.fromEntries((await tools.send("Performance.getMetrics")).metrics.map(({ name, value }) => [name, value]));
  const before = await metrics();
  // That is the time which is measured.
  await new Promise((done) => setTimeout(done, seconds * 1000));
  const after = await metrics();
  await tools.detach();
  const minute = (number) => (number * 60) / seconds;
  return { requests: minute(seen.requests), bytes: minute(seen.bytes), layouts: minute(after.LayoutCount - before.LayoutCount), busy_ms: minute((after.TaskDuration - before.TaskDuration) * 1000) };
}

/** Nothing has been asked for since a while: what an open page fetches at first is there. */
async function settled(page) {
  await page.waitForLoadState("networkidle");
}

/** Ten open pages that nobody touches: each of them, and the service beneath. The service should have done nothing before. */
export async function quiet(browser, service, seconds) {
  for (let i = 0; i < 60; i++) await service.finished((await service.create({ command: ["true"], name: `n${i}` })).id);
  const visitor = await browser.signedIn(service, "jobs");
  await visitor.page.locator("tbody tr").first().waitFor();
  await settled(visitor.page);
  const one = await use(service);
  const pages = [visitor.page];
  for (let i = 1; i < 10; i++) {
    const page = await visitor.context.newPage();
    await page.goto(`${service.url}/ui/jobs`);
    await page.locator("tbody tr").first().waitFor();
    await settled(page);
    pages.push(page);
  }
  const heaps = [];
  for (const page of pages) heaps.push(await heap(page));
  const before = await use(service);
  const looked = await untouched(pages[0], seconds);
  const after = await use(service);
  await visitor.leave();
  return {
    quiet_seconds: seconds, quiet_requests: Math.round(looked.requests), quiet_bytes: Math.round(looked.bytes), quiet_layouts: Math.round(looked.layouts), quiet_busy_ms: Math.round(looked.busy_ms),
    page_heap_bytes: Math.round(percentile(heaps, 0.5)), ten_rss_bytes: after.rss, page_rss_bytes: Math.round((after.rss - one.rss) / 9), ten_cpu_ms: Math.round(((after.cpu - before.cpu) * 60) / seconds),
  };
}

/** From a key to the frame that shows what it did: in the list of jobs and in a log, so many of each. */
export async function keys(visitor, service, job, times) {
  const { page } = visitor;
  const out = {};
  const places = [["list", `${service.url}/ui/jobs`, "tbody tr", ["j", "k"]], ["log", `${service.url}/ui/jobs/${job.id}`, ".lines .l", ["PageUp", "PageDown"]]];
  for (const [name, address, there, [one, other]] of places) {
    await page.goto(address);
    await page.locator(there).first().waitFor();
    if (name === "log") await page.locator(".lines").focus();
    await page.evaluate(() => {
      globalThis.pressed = [];
      document.addEventListener("keydown", ({ timeStamp }) => requestAnimationFrame(() => {
        // The task behind the frame: it has been painted.
        const channel = new MessageChannel();
        channel.port1.onmessage = () => {
          channel.port1.close();
          globalThis.pressed.push(performance.now() - timeStamp);
        };
        channel.port2.postMessage(null);
      }), true);
    });
    for (let i = 0; i < times; i++) {
      await page.keyboard.press(i % 4 < 2 ? one : other);
      await page.waitForFunction((count) => globalThis.pressed.length > count, i);
    }
    const pressed = await page.evaluate(() => globalThis.pressed);
    out[`key_${name}_p75_ms`] = Math.round(percentile(pressed, 0.75));
    out[`key_${name}_max_ms`] = Math.round(Math.max(...pressed));
  }
  return { key_times: times, ...out };
}
