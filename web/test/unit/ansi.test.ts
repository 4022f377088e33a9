import assert from "node:assert/strict";
import { test } from "node:test";
import headless from "@xterm/headless";
import { after, apply, BOLD, deceptive, DIM, INVERSE, ITALIC, MAX_SPANS, PLAIN, plain, type Sgr, spans, STRIKE, target, UNDERLINE } from "../../src/log/ansi.ts";
import { random } from "./random.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (input: string | Uint8Array): string => spans(typeof input === "string" ? bytes(input) : input, PLAIN).map((span) => span.text).join("");

test("markup is text", () => {
  assert.deepEqual(spans(bytes("<img src=x onerror=alert(1)>"), PLAIN).map((span) => span.text), ["<img src=x onerror=alert(1)>"]);
});

test("what a terminal would obey is shown, but for colours", () => {
  assert.equal(text("a\x1b[31mb\x1b[0mc"), "abc");
  assert.equal(text("\x1b]52;c;cm0gLXJmIH4=\x07x"), "^[]52;c;cm0gLXJmIH4=^Gx");
  assert.equal(text("\x1b]0;title\x07x"), "^[]0;title^Gx");
  assert.equal(text("\x1b[2Jx"), "^[[2Jx");
  assert.equal(text("\x1bPq#0\x1b\\x"), "^[Pq#0^[\\x");
  assert.equal(text("\x1b[6n\x1b[c"), "^[[6n^[[c");
  assert.equal(text("a\x07"), "a^G");
});

test("a row shows its last state", () => {
  assert.equal(text("10%\r50%\r100%"), "100%");
  assert.equal(text("abc\rX"), "Xbc");
  assert.equal(text("abc\r\x1b[KX"), "X");
  assert.equal(text("abc\b\bX"), "aXc");
  assert.equal(text("abc\r"), "abc");
  assert.equal(spans(bytes("10%\r100%"), PLAIN, [], true).map((span) => span.text).join(""), "10%^M100%");
});

test("what hides or turns text is shown by its number", () => {
  assert.equal(text("user\u202enimda"), "user<U+202E>nimda");
  assert.equal(text("a\u200bb\ufeff\u{e0041}"), "a<U+200B>b<U+FEFF><U+E0041>");
  assert.equal(text(Uint8Array.of(0, 0xff, 0xc0, 0x80, 97)), "\\x00\\xff\\xc0\\x80a");
  assert.equal(text(Uint8Array.of(0xed, 0xa0, 0x80)), "\\xed\\xa0\\x80", "half a surrogate pair");
  assert.equal(text(Uint8Array.of(0xf4, 0x90, 0x80, 0x80)), "\\xf4\\x90\\x80\\x80", "beyond the last character");
  assert.ok(deceptive(0x2066) && deceptive(0x85) && !deceptive(0xe9) && !deceptive(0x1f600));
});

test("a pile of marks stays in its row", () => {
  assert.ok(text(`a${"\u0301".repeat(1000)}b`).length < 20);
});

test("a hundred thousand changes of colour are at most 512 spans, and no letter is lost", () => {
  const many = Array.from({ length: 3000 }, (_, i) => `\x1b[3${i % 8}mx`).join("");
  const made = spans(bytes(many), PLAIN);
  assert.ok(made.length <= MAX_SPANS);
  assert.equal(made.map((span) => span.text).join(""), "x".repeat(3000));
});

test("marks cut spans at the right letters, also behind other characters and colours", () => {
  const row = bytes("äö \x1b[31mWARN\x1b[0m x");
  const from = 2 + 2 + 1 + 5;
  const made = spans(row, PLAIN, [{ from, to: from + 4 }]);
  assert.deepEqual(made.filter((span) => span.mark === 0).map((span) => span.text), ["WARN"]);
});

test("links are of http and https, and nothing else", () => {
  assert.equal(target("https://example.org/a"), "https://example.org/a");
  for (const bad of ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "https:// x", "ftp://a/b", "JAVASCRIPT:alert(1)//http://a", "vbscript:x"]) assert.equal(target(bad), null, bad);
  const osc = (url: string): (string | null)[] => spans(bytes(`\x1b]8;;${url}\x07words\x1b]8;;\x07`), PLAIN).map((span) => span.href);
  assert.deepEqual(osc("https://example.org/"), ["https://example.org/"]);
  assert.deepEqual(osc("javascript:alert(1)"), [null]);
});

test("plain text for the clipboard has no escapes", () => {
  assert.equal(plain(bytes("\x1b[1;32mok\x1b[0m done\x1b]0;t\x07")), "ok done");
});

const CODES = [0, 1, 2, 3, 4, 7, 9, 22, 23, 24, 27, 29, 30, 31, 37, 39, 40, 44, 47, 49, 90, 97, 100, 107];

test("random colours give the cells of a real terminal", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const next = random(seed);
    let input = "";
    for (let i = 0; i < 40; i++) {
      const kind = next(6);
      if (kind === 0) input += `\x1b[38;5;${next(256)}m`;
      else if (kind === 1) input += `\x1b[48;2;${next(256)};${next(256)};${next(256)}m`;
      else if (kind < 4) input += `\x1b[${Array.from({ length: 1 + next(3) }, () => CODES[next(CODES.length)]).join(";")}m`;
      input += String.fromCharCode(97 + next(26));
      if (next(12) === 0) input += "\r";
    }
    const terminal = new headless.Terminal({ cols: 200, rows: 2, allowProposedApi: true });
    await new Promise<void>((resolve) => terminal.write(input, resolve));
    const line = terminal.buffer.active.getLine(0)!;
    const ours = spans(bytes(input), PLAIN).flatMap((span) => [...span.text].map((letter) => ({ letter, sgr: span.sgr })));
    ours.forEach(({ letter, sgr }, column) => {
      const cell = line.getCell(column)!;
      assert.equal(letter, cell.getChars(), `seed ${seed} column ${column}`);
      assert.deepEqual(told(sgr), real(cell), `seed ${seed} column ${column} ${letter}`);
    });
    terminal.dispose();
  }
});

type Cell = NonNullable<ReturnType<NonNullable<ReturnType<InstanceType<typeof headless.Terminal>["buffer"]["active"]["getLine"]>>["getCell"]>>;

function real(cell: Cell): unknown {
  const colour = (isDefault: boolean, isRgb: boolean, value: number): unknown => (isDefault ? null : isRgb ? [value >> 16, (value >> 8) & 255, value & 255] : value);
  return {
    fg: colour(cell.isFgDefault(), cell.isFgRGB(), cell.getFgColor()), bg: colour(cell.isBgDefault(), cell.isBgRGB(), cell.getBgColor()),
    bold: cell.isBold() !== 0, dim: cell.isDim() !== 0, italic: cell.isItalic() !== 0, underline: cell.isUnderline() !== 0, inverse: cell.isInverse() !== 0, strike: cell.isStrikethrough() !== 0,
  };
}

function told({ fg, bg, flags }: Sgr): unknown {
  return { fg: fg as unknown, bg: bg as unknown, bold: (flags & BOLD) !== 0, dim: (flags & DIM) !== 0, italic: (flags & ITALIC) !== 0, underline: (flags & UNDERLINE) !== 0, inverse: (flags & INVERSE) !== 0, strike: (flags & STRIKE) !== 0 };
}

test("the colours behind a row are those that its bytes lead to", () => {
  assert.deepEqual(after(bytes("a\x1b[1;31mb"), PLAIN), { fg: 1, bg: null, flags: BOLD });
  assert.deepEqual(apply(PLAIN, "38:2::1:2:3"), { fg: [1, 2, 3], bg: null, flags: 0 });
  assert.equal(apply(PLAIN, "?25"), PLAIN);
  assert.equal(after(bytes("a\x1b[31"), PLAIN), PLAIN);
});
