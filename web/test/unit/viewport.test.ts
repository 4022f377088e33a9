import assert from "node:assert/strict";
import { test } from "node:test";
import { ROW } from "../../src/log/place.ts";
import { LogSource } from "../../src/log/source.ts";
import { Viewport } from "../../src/log/viewport.ts";

/** A log of numbers whose windows come when they are let go. */
function log(lines: number): { port: Viewport; draw: () => string[]; settle: () => Promise<void>; length: number; asked: { from: number; limit: number }[] } {
  const asked: { from: number; limit: number }[] = [];
  const content = new TextEncoder().encode(Array.from({ length: lines }, (_, i) => `${i}\n`).join(""));
  const source = new LogSource("all", async (from, limit) => {
    asked.push({ from, limit });
    const part = content.subarray(from, from + limit);
    const records: string[] = [];
    for (let at = 0; at < part.length; at += 32768) records.push(JSON.stringify({ type: "output", offset: from + at, stream: "stdout", at: "2026-01-31T12:00:00.000000Z", text: new TextDecoder().decode(part.subarray(at, at + 32768)) }));
    return { first: 0, next: from + part.length, complete: false, body: new Response(records.join("\n")).body! };
  }, null, () => undefined);
  const port = new Viewport(source, () => undefined);
  port.height = 20 * ROW;
  source.extent(0, content.length, true);
  /** The rows that are in view after one drawing. */
  const draw = (): string[] => {
    const { rows } = port.rows();
    const top = port.settle(rows.map(() => ROW));
    return rows.map((row, i) => [new TextDecoder().decode(row.bytes), top + i * ROW] as const).filter(([, y]) => y > -ROW && y < port.height).map(([text]) => text);
  };
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) {
      draw();
      await new Promise((done) => setTimeout(done));
    }
  };
  return { port, draw, settle, length: content.length, asked };
}

test("the end is followed, and a jump to where nothing is yet arrives", async () => {
  const { port, draw, settle } = log(400_000);
  await settle();
  assert.equal(draw().at(-1), "399999");
  port.toStart();
  assert.equal(draw().at(-1), "399999", "what is there stays until there is better");
  await settle();
  assert.equal(draw()[0], "0");
  // What is beside the place is here already, and the place is not.
  port.jump(2 * 262_144 + 5000);
  draw();
  await settle();
  const first = Number(draw()[0]);
  assert.ok(first > 88_000 && first < 92_000, `${first}`);
  port.toEnd();
  await settle();
  assert.equal(draw().at(-1), "399999");
});

test("scrolling goes by pixels over the borders of windows, and stops at the ends", async () => {
  const { port, draw, settle, length } = log(200_000);
  port.jump(262_144 - 40);
  await settle();
  const before = Number(draw()[0]);
  for (let i = 0; i < 100; i++) {
    port.scrollBy(ROW);
    await settle();
  }
  assert.equal(Number(draw()[0]), before + 100);
  for (let i = 0; i < 10; i++) {
    port.scrollBy(-10 * ROW);
    await settle();
  }
  assert.equal(Number(draw()[0]), before);
  port.toStart();
  await settle();
  port.scrollBy(-1000);
  assert.equal(draw()[0], "0");
  port.jump(length - 1);
  await settle();
  assert.equal(draw().at(-1), "199999", "the end is not left empty");
  port.scrollBy(50);
  assert.ok(port.follow);
});

test("scrolling up lets go of the end, and scrolling down to it takes it again", async () => {
  const { port, draw, settle } = log(1000);
  await settle();
  port.scrollBy(-3 * ROW);
  assert.ok(!port.follow);
  await settle();
  assert.equal(draw().at(-1), "996");
  port.scrollBy(3 * ROW);
  assert.ok(port.follow);
});

test("what fits is not scrolled", async () => {
  const { port, draw, settle } = log(3);
  await settle();
  port.scrollBy(-100);
  assert.ok(port.follow);
  assert.deepEqual(draw(), ["0", "1", "2"]);
});

test("of a writer that is faster than the page the newest rows that are here are seen, and scrolling up lets go of them", async () => {
  const LINE = 128;
  const text = (from: number, to: number): string => Array.from({ length: (to - from) / LINE }, (_, i) => `${String(from / LINE + i).padStart(LINE - 1, "0")}\n`).join("");
  const source: LogSource = new LogSource("all", async (from, limit) => {
    // While a window is read the end moves on by four.
    source.extent(0, source.next + (1 << 20), false);
    const begin = Math.floor(from / LINE) * LINE;
    const record = { type: "output", offset: begin, stream: "stdout", at: "2026-01-31T12:00:00.000000Z", text: text(begin, begin + Math.floor(Math.min(limit, source.next - begin) / LINE) * LINE) };
    return { first: 0, next: source.next, complete: false, body: new Response(JSON.stringify(record)).body! };
  }, null, () => undefined);
  const port = new Viewport(source, () => undefined);
  port.height = 20 * ROW;
  source.extent(0, 5 << 20, false);
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) {
      const { rows } = port.rows();
      port.settle(rows.map(() => ROW));
      await new Promise((done) => setTimeout(done));
    }
  };
  await settle();
  const first = port.anchor.offset;
  await settle();
  assert.ok(first > 0 && port.anchor.offset > first, `${first}, ${port.anchor.offset}`);
  port.scrollBy(-5 * ROW);
  assert.equal(port.follow, false);
  const held = port.anchor.offset;
  await settle();
  assert.equal(port.anchor.offset, held);
});

test("what is drawn while somebody jumps does not move the place that is jumped to", async () => {
  const { port, draw, settle } = log(400_000);
  await settle();
  const { rows } = port.rows();
  port.jump(1_000_000);
  port.settle(rows.map(() => ROW));
  assert.equal(port.anchor.offset, 1_000_000);
  await settle();
  assert.ok(Math.abs(Number(draw()[0]) * 6.9 - 1_000_000) < 100_000, draw()[0]);
});

test("a jump waits for little, and what is around it comes once somebody stays", async () => {
  const { port, draw, settle, asked } = log(400_000);
  await settle();
  for (const [offset, far] of [[1_000_000, 2 * ROW], [2_000_123, 0], [0, 0]] as const) {
    asked.length = 0;
    port.jump(offset);
    await settle();
    assert.ok(asked.length >= 1 && asked[0]!.limit <= 48 << 10, JSON.stringify(asked));
    const [first = ""] = draw();
    const rows = draw();
    assert.ok(rows.length >= 20, `${rows.length} rows`);
    rows.forEach((text, i) => assert.equal(Number(text), Number(first) + i));
    // It is looked at: the same rows, and more of them above and below.
    const end = Date.now() + 30_000;
    while (port.visible.rows.length < 60 && Date.now() < end) await settle();
    assert.ok(port.visible.rows.length >= 60, `${port.visible.rows.length} rows`);
    assert.deepEqual(draw(), rows);
    port.scrollBy(far);
    assert.equal(Number(draw()[0]), Number(first) + far / ROW);
  }
});

test("a colour that began far before a jump is there once somebody stays", async () => {
  const content = new TextEncoder().encode(`${"plain\n".repeat(30_000)}\u001b[31m${"red\n".repeat(30_000)}`);
  const source = new LogSource("all", async (from, limit) => {
    const text = new TextDecoder().decode(content.subarray(from, from + limit));
    return { first: 0, next: Math.min(content.length, from + limit), complete: true, body: new Response(JSON.stringify({ type: "output", offset: from, stream: "stdout", at: "2026-01-31T12:00:00.000000Z", text })).body! };
  }, null, () => undefined);
  const port = new Viewport(source, () => undefined);
  port.height = 20 * ROW;
  source.extent(0, content.length, true);
  port.jump(180_005 + 40_000);
  const colour = async (): Promise<unknown> => {
    port.settle(port.rows().rows.map(() => ROW));
    await new Promise((done) => setTimeout(done));
    return port.visible.rows[5]?.sgr.fg;
  };
  const end = Date.now() + 30_000;
  while ((await colour()) !== 1 && Date.now() < end);
  port.close();
  assert.equal(await colour(), 1);
});

test("a jump waits for one place alone, and lets go of what is being fetched for another", async () => {
  const asked: [number, AbortSignal][] = [];
  const source = new LogSource("all", (from, _, signal) => {
    asked.push([from, signal]);
    return new Promise(() => undefined);
  }, null, () => undefined);
  const port = new Viewport(source, () => undefined);
  source.extent(0, 100 << 20, true);
  for (const offset of [50 << 20, 20 << 20, 70 << 20]) {
    port.jump(offset);
    port.rows();
  }
  port.close();
  assert.deepEqual(asked.map(([from, signal]) => [from, signal.aborted]), [50, 20, 70].map((at) => [(at << 20) - (16 << 10), at !== 70]));
});
