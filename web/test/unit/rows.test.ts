import assert from "node:assert/strict";
import { test } from "node:test";
import { CUT, type Piece, type Row, RowBuilder, rowAt } from "../../src/log/rows.ts";
import { random } from "./random.ts";

const AT = "2026-01-31T12:00:00.000000Z";
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const piece = (offset: number, content: Uint8Array, stream: Piece["stream"] = "stdout"): Piece => ({ offset, stream, at: AT, bytes: content });
const shape = (rows: Row[]): string[] => rows.map((row) => `${row.offset}-${row.end} ${row.stream} ${row.closed} ${new TextDecoder().decode(row.bytes)}`);

test("lines are rows, the last one is open", () => {
  const builder = new RowBuilder(0, true);
  builder.push(piece(0, bytes("one\n\ntwo")));
  assert.deepEqual(shape(builder.all()), ["0-4 stdout true one", "4-5 stdout true ", "5-8 stdout false two"]);
  builder.push(piece(8, bytes("!\n")));
  assert.deepEqual(shape(builder.all()).at(-1), "5-10 stdout true two!");
});

test("a change of stream begins a row, and only where both are shown", () => {
  const pieces = [piece(0, bytes("out")), piece(3, bytes("err\n"), "stderr"), piece(7, bytes("put\n"))];
  const mixed = new RowBuilder(0, true);
  for (const one of pieces) mixed.push(one);
  assert.deepEqual(shape(mixed.all()), ["0-3 stdout false out", "3-7 stderr true err", "7-11 stdout true put"]);
  const single = new RowBuilder(0, true, false);
  single.push(pieces[0]!);
  single.push(pieces[2]!);
  assert.deepEqual(shape(single.all()), ["0-11 stdout true output"]);
});

test("a gap is a row of its own and ends the one before", () => {
  const builder = new RowBuilder(0, true);
  builder.gap(0, 100);
  builder.push(piece(100, bytes("a")));
  builder.gap(101, 200);
  builder.gap(200, 300);
  assert.deepEqual(builder.all().map((row) => `${row.kind} ${row.from}-${row.end}`), ["gap 0-100", "line 100-101", "gap 101-300"]);
});

interface Log {
  pieces: Piece[];
  length: number;
}

/** A log of short and very long lines of both streams, some with colours. */
function log(seed: number): Log {
  const next = random(seed);
  const pieces: Piece[] = [];
  let offset = 0;
  for (let i = 0; i < 60; i++) {
    const kind = next(10);
    const length = kind === 0 ? 3 * CUT + next(2 * CUT) : kind === 1 ? CUT - 2 + next(4) : next(200);
    const content = new Uint8Array(length + 1).fill(97 + next(26));
    content[length] = 10;
    if (length > 6 && next(4) === 0) content.set(bytes("\x1b[31m"), 0);
    if (next(6) === 0) content[length] = 98;
    pieces.push(piece(offset, content, next(5) === 0 ? "stderr" : "stdout"));
    offset += content.length;
  }
  return { pieces, length: offset };
}

function rows({ pieces }: Log, from: number, known: boolean, sizes: () => number): Row[] {
  const builder = new RowBuilder(from, known);
  for (const one of pieces) {
    let at = Math.max(0, from - one.offset);
    while (at < one.bytes.length) {
      const size = Math.max(1, sizes());
      builder.push({ ...one, offset: one.offset + at, bytes: one.bytes.subarray(at, at + size) });
      at += size;
    }
  }
  return builder.all();
}

test("any cut of the same bytes gives the same rows", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const made = log(seed);
    const whole = rows(made, 0, true, () => 1 << 30);
    const next = random(seed + 1000);
    assert.deepEqual(shape(rows(made, 0, true, () => next(3000))), shape(whole), `seed ${seed}`);
    assert.deepEqual(rows(made, 0, true, () => next(3000)).map((row) => row.sgr), whole.map((row) => row.sgr), `seed ${seed}`);
    assert.equal(whole.reduce((sum, row) => sum + row.end - row.offset, 0), made.length);
  }
});

test("rows are the same from whichever multiple one begins, 8 KiB later", () => {
  for (let seed = 1; seed <= 40; seed++) {
    const made = log(seed);
    const whole = shape(rows(made, 0, true, () => 1 << 30));
    for (let from = CUT; from + 3 * CUT < made.length; from += CUT) {
      const later = rows(made, from, false, () => 1 << 30);
      const seen = shape(later.slice(rowAt(later, from + CUT - 1) + 1));
      assert.deepEqual(seen, whole.slice(whole.length - seen.length), `seed ${seed} from ${from}`);
      assert.ok(seen.length > 0);
    }
  }
});

test("no row is longer than two cuts", () => {
  for (let seed = 1; seed <= 40; seed++) for (const row of rows(log(seed), 0, true, () => 1 << 30)) assert.ok(row.end - row.offset <= 2 * CUT);
});

test("a row is found by any offset in it", () => {
  const all = rows(log(7), 0, true, () => 1 << 30);
  all.forEach((row, i) => {
    assert.equal(rowAt(all, row.offset), i);
    assert.equal(rowAt(all, row.end - 1), i);
  });
  assert.equal(rowAt([], 5), -1);
});
