import assert from "node:assert/strict";
import { test } from "node:test";
import { contrast, readable, rgb, type Rgb } from "../../src/log/colours.ts";
import { Hits } from "../../src/log/find.ts";
import { disguised, parts } from "../../src/log/links.ts";
import { fraction, move, offsetAt, parseGoto, parseHash, ROW } from "../../src/log/place.ts";
import { lines, record } from "../../src/log/records.ts";
import type { Row } from "../../src/log/rows.ts";
import { since } from "../../src/log/time.ts";
import { PLAIN } from "../../src/log/ansi.ts";
import { around, LogSource } from "../../src/log/source.ts";

test("links end where the sentence goes on", () => {
  const hrefs = (text: string): (string | null)[] => parts(text).map((part) => part.href);
  assert.deepEqual(hrefs("see https://a.example/b."), [null, "https://a.example/b", null]);
  assert.deepEqual(parts("(https://a.example/b_(c))")[1], { text: "https://a.example/b_(c)", href: "https://a.example/b_(c)" });
  assert.deepEqual(hrefs("javascript://a.example/%0aalert(1)"), [null]);
  assert.deepEqual(hrefs("nothing"), [null]);
  assert.equal(parts("a https://a.example/x b https://b.example/ c").map((part) => part.text).join(""), "a https://a.example/x b https://b.example/ c");
});

test("words that name another host are noticed", () => {
  assert.ok(disguised("https://bank.example/login", "https://evil.example/"));
  assert.ok(disguised("bank.example", "https://evil.example/"));
  assert.ok(!disguised("https://a.example/x", "https://a.example/y"));
  assert.ok(!disguised("click here", "https://evil.example/"));
});

test("a place is where it was put, for logs of any size", () => {
  for (const next of [1, 421_052 * ROW, 1e9, 1e13]) {
    const extent = { first: 0, next };
    for (const part of [0, 0.25, 0.5, 1]) assert.ok(Math.abs(fraction(offsetAt(part, extent), extent) - part) < 1e-6 || next === 1);
  }
  assert.equal(offsetAt(1, { first: 0, next: 0 }), 0);
  assert.equal(fraction(5, { first: 10, next: 10 }), 0);
});

test("the anchor moves by rows of different heights, and not beyond the ends", () => {
  const height = (i: number): number => [10, 30, 20][i]!;
  assert.deepEqual(move(0, 0, 15, 3, height), { index: 1, cut: 5 });
  assert.deepEqual(move(2, 5, -40, 3, height), { index: 0, cut: 5 });
  assert.deepEqual(move(0, 0, -5, 3, height), { index: 0, cut: -5 });
  assert.deepEqual(move(0, 0, 500, 3, height).index, 2);
});

test("what can be typed into go to", () => {
  const day = new Date(2026, 0, 31, 9, 0, 0);
  assert.deepEqual(parseGoto("12 345", day), { kind: "line", line: 12345 });
  assert.deepEqual(parseGoto("b1017442903", day), { kind: "byte", offset: 1017442903 });
  assert.deepEqual(parseGoto("50%", day), { kind: "part", part: 0.5 });
  assert.deepEqual(parseGoto("14:02", day), { kind: "time", at: new Date(2026, 0, 31, 14, 2, 0).toISOString() });
  for (const bad of ["", "x", "101%", "25:00", "-1"]) assert.equal(parseGoto(bad, day), null, bad);
});

test("addresses of rows", () => {
  assert.deepEqual(parseHash("#o12"), { from: 12, to: 12 });
  assert.deepEqual(parseHash("#o20-o12"), { from: 12, to: 20 });
  for (const bad of ["", "#o", "#x12", "#o12-13", "#o12<script>"]) assert.equal(parseHash(bad), null);
});

test("records are bytes again", () => {
  const one = record('{"type":"output","offset":3,"stream":"stderr","at":"x","base64":"/wA="}');
  assert.ok(one.kind === "output" && one.piece.bytes[0] === 255 && one.piece.bytes[1] === 0 && one.piece.stream === "stderr");
  const two = record('{"type":"output","offset":0,"stream":"stdout","at":"x","text":"ä"}');
  assert.ok(two.kind === "output" && two.piece.bytes.length === 2);
  assert.deepEqual(record('{"type":"later"}'), { kind: "other" });
});

test("lines come whole however the body is cut", async () => {
  const bytes = new TextEncoder().encode('{"a":"ä"}\n{"b":2}\n\n{"c":3}');
  for (let size = 1; size < 8; size++) {
    const body = new ReadableStream<Uint8Array>({ start(control) { for (let i = 0; i < bytes.length; i += size) control.enqueue(bytes.slice(i, i + size)); control.close(); } });
    const out: string[] = [];
    for await (const line of lines(body)) out.push(line);
    assert.deepEqual(out, ['{"a":"ä"}', '{"b":2}', '{"c":3}']);
  }
});

test("hits: next, previous, around the ends, and those within a row", () => {
  const hits = new Hits();
  for (const offset of [5, 20, 33]) hits.push({ offset, length: 4, line: null });
  assert.equal(hits.step(0, 1), 0);
  assert.equal(hits.step(5, 1), 1);
  assert.equal(hits.step(33, 1), 0);
  assert.equal(hits.step(5, -1), 2);
  assert.equal(new Hits().step(0, 1), -1);
  const row = { offset: 22, end: 40 } as Row;
  assert.deepEqual(hits.within(row), { marks: [{ from: -2, to: 2 }, { from: 11, to: 15 }], first: 1 });
  assert.deepEqual(hits.ruler(0, 40, 4), [0, 2, 3]);
});

test("times since a moment", () => {
  assert.equal(since("2026-01-31T12:00:00.000100Z", "2026-01-31T12:00:01.234200Z"), "+1.234");
  assert.equal(since("2026-01-31T12:00:00Z", "2026-01-31T13:02:03Z"), "+1:02:03");
});

test("colours can be read on both grounds", () => {
  for (let index = 16; index < 256; index++) {
    assert.ok(contrast(readable(rgb(index), true), [18, 19, 23] as Rgb) >= 3, `${index} dark`);
    assert.ok(contrast(readable(rgb(index), false), [255, 255, 255] as Rgb) >= 3, `${index} light`);
  }
});

/** A service that has these bytes. */
function serve(content: Uint8Array, asked: number[]) {
  return async (from: number, limit: number) => {
    asked.push(from);
    const part = content.subarray(from, from + limit);
    const records: string[] = [];
    for (let at = 0; at < part.length; at += 32768) records.push(JSON.stringify({ type: "output", offset: from + at, stream: "stdout", at: "2026-01-31T12:00:00.000000Z", text: new TextDecoder().decode(part.subarray(at, at + 32768)) }));
    return { first: 0, next: from + part.length, complete: from + part.length >= content.length, body: new Response(records.join("\n")).body! };
  };
}

test("windows are put together to the whole log, from any place, and no row is missing or double", async () => {
  const content = new TextEncoder().encode(Array.from({ length: 200_000 }, (_, i) => `line ${i}\n`).join(""));
  const source = new LogSource("all", serve(content, []), null, () => undefined);
  source.extent(0, content.length, true);
  for (const offset of [0, content.length - 1, 1_000_000, 262_144, 262_143, 1_234_567]) {
    const index = source.indexOf(offset);
    for (const near of [index - 1, index, index + 1]) if (near >= 0 && near <= source.lastIndex) await source.loaded(near);
    const visible = around(source, offset, 50, 50);
    const anchor = visible.rows[visible.anchor]!;
    assert.ok(anchor.offset <= offset && offset < anchor.end, `${offset}`);
    visible.rows.forEach((row, i) => {
      if (i > 0) assert.equal(row.offset, visible.rows[i - 1]!.end);
    });
    assert.equal(visible.atEnd, visible.rows.at(-1)!.end === content.length);
    assert.equal(visible.atStart, visible.rows[0]!.offset === 0);
  }
});

test("the end that grows is read on, not again", async () => {
  const content = new TextEncoder().encode("0123456789\n".repeat(30_000));
  const asked: number[] = [];
  let length = 40_005;
  const source = new LogSource("all", (from, limit) => serve(content.subarray(0, length), asked)(from, limit), null, () => undefined);
  source.extent(0, length, false);
  await source.loaded(0);
  length = 60_000;
  source.extent(0, length, false);
  await source.loaded(0);
  assert.deepEqual(asked, [0, 40_005]);
  const rows = source.window(0).rows;
  assert.equal(new TextDecoder().decode(rows[3637]!.bytes), "0123456789");
  assert.deepEqual(rows[5]!.sgr, PLAIN);
  assert.equal(source.lineAt(0), 1);
});
