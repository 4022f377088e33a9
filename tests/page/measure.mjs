// How a large log is in the browser: when lines are seen, how long jumps take, and what it costs.

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

/** Opens the log of a job and jumps in it, by the address, to random places. */
export async function measure(page, service, job, jumps) {
  await page.goto(`${service.url}/ui/jobs`);
  await page.locator("tr", { hasText: "large" }).waitFor();
  const from = performance.now();
  await page.locator("tr a", { hasText: "large" }).first().click();
  await page.locator(".lines .l .x").first().waitFor();
  const first = performance.now() - from;
  const size = job.output.next_offset;
  // Within the page: what is measured is not the way to this process and back.
  const times = await page.evaluate(async ({ size, jumps }) => {
    const seen = () => document.querySelector(".lines .l.tg") !== null;
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

