// The log: looking, finding, following, and what hostile jobs write.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Browser, isFilled, LIMIT, root, rows, seen, Service, until } from "./harness.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

test("both streams and one; places by line, byte and part; links to a line; downloads byte for byte", options, async () => {
  const job = await service.create({ script: "seq 1 200000; echo oops >&2; seq 200001 200010", name: "a-log" });
  await service.finished(job.id);
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await until(async () => (await seen(page)).includes("200010"), "the end");
  await page.getByRole("button", { name: "Err", exact: true }).click();
  await until(async () => (await rows(page)).join() === "oops", "standard error alone");
  await page.getByRole("button", { name: "Out", exact: true }).click();
  await until(async () => (await seen(page)).at(-1) === "200010", "standard output alone");
  await page.getByRole("button", { name: "Both" }).click();
  await page.locator(".lines").focus();
  await page.keyboard.press("Home");
  await until(async () => (await seen(page))[0] === "1", "the beginning");
  const whole = await (await service.api("GET", `/jobs/${job.id}/output`, undefined, { Accept: "application/octet-stream" })).text();
  const offset = whole.indexOf("\n123456\n") + 1;
  await page.goto(`${service.url}/ui/jobs/${job.id}#o${offset}`);
  await page.locator(".l.tg", { hasText: "123456" }).waitFor();
  await page.locator(".l.tg .g", { hasText: /^123.456$/ }).waitFor();
  await page.locator(".lines").focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("End");
  await until(async () => (await seen(page)).includes("200010"), "the end again");
  for (const [item, wanted] of [["Both streams", whole], ["Standard error", "oops\n"]]) {
    await page.getByRole("button", { name: "Download" }).click();
    const coming = page.waitForEvent("download");
    await page.getByRole("menuitem", { name: item, exact: true }).click();
    const saved = await coming;
    assert.match(saved.suggestedFilename(), /^a-log(\.stderr)?\.log$/);
    assert.equal(await readFile(await saved.path(), "utf8"), wanted);
  }
  await visitor.leave();
});

test("lines are wrapped, have times, and those that are marked are a link and a download", options, async () => {
  const long = "w".repeat(600);
  const job = await service.create({ script: `seq 1 50; echo ${long}; seq 52 100`, name: "marked" });
  await service.finished(job.id);
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  const wide = page.locator(".lines .l", { hasText: long });
  await wide.waitFor({ state: "attached" });
  await page.getByRole("button", { name: "Go to …" }).click();
  await page.getByLabel("Go to").fill("somewhere");
  await page.keyboard.press("Enter");
  await page.locator("dialog .field.wrong").waitFor();
  await page.getByLabel("Go to").fill("49");
  await page.keyboard.press("Enter");
  await page.locator(".l.tg", { hasText: /^49/ }).waitFor();
  const height = async () => (await wide.boundingBox()).height;
  assert.equal(await height(), 19);
  await page.getByRole("button", { name: "Wrap lines" }).click();
  await until(async () => (await height()) > 30, "several lines of one");
  await page.getByRole("button", { name: "Wrap lines" }).click();
  await page.keyboard.press("t");
  await page.locator(".lines .l .t", { hasText: /^[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}$/ }).first().waitFor();
  await page.keyboard.press("t");
  await page.locator(".lines .l .t", { hasText: /^\+[0-9.]+$/ }).first().waitFor();
  const number = (line) => page.locator(".lines .l .g").filter({ hasText: new RegExp(`^${line}$`) });
  await number(48).click();
  await number(50).click({ modifiers: ["Shift"] });
  await until(async () => (await page.locator(".l.tg").count()) === 3, "three lines");
  const whole = await (await service.api("GET", `/jobs/${job.id}/output`, undefined, { Accept: "application/octet-stream" })).text();
  const from = whole.indexOf("48\n");
  assert.equal(new URL(page.url()).hash, `#o${from}-o${from + 6}`);
  await page.getByRole("button", { name: "Download" }).click();
  const coming = page.waitForEvent("download");
  await page.getByRole("menuitem", { name: "The marked lines" }).click();
  const saved = await coming;
  assert.equal(saved.suggestedFilename(), "marked.lines.log");
  assert.equal(await readFile(await saved.path(), "utf8"), "48\n49\n50\n");
  await page.reload();
  await until(async () => (await page.locator(".l.tg .x").allTextContents()).join() === "48,49,50", "the same three lines");
  await visitor.leave();
});

test("a place in the middle is gone to by line, and copying gives the text alone", options, async () => {
  const job = await service.create({ script: "seq 1 100000", name: "places" });
  await service.finished(job.id);
  const visitor = await browser.visitor(service);
  const { page, context } = visitor;
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: service.url });
  await page.goto(await service.wayIn("places"));
  await until(async () => (await seen(page)).includes("100000"), "the end");
  const answer = await (await service.api("GET", `/jobs/${job.id}/output/place?line=54321`)).json();
  assert.equal(answer.line, 54321);
  await page.goto(`${service.url}/ui/jobs/${job.id}#o${answer.offset}`);
  await page.locator(".l.tg", { hasText: "54321" }).waitFor();
  await page.keyboard.press("t");
  const text = await page.evaluate(() => {
    const selection = getSelection();
    selection.removeAllRanges();
    const range = document.createRange();
    const all = [...document.querySelectorAll(".lines .l")];
    const at = all.findIndex((row) => row.classList.contains("tg"));
    range.setStartBefore(all[at]);
    range.setEndAfter(all[at + 2]);
    selection.addRange(range);
    return selection.toString();
  });
  assert.deepEqual(text.trim().split(/\s+/), ["54321", "54322", "54323"]);
  await visitor.leave();
});

test("find: none, one, many, a regular expression, a wrong one, and a hit in a line of 100 kB", options, async () => {
  const job = await service.create({ script: "i=0; while [ $i -lt 10432 ]; do echo \"needle $i\"; i=$((i+1)); done; head -c 99000 /dev/zero | tr '\\0' x; echo FarAway" });
  await service.finished(job.id);
  const visitor = await browser.signedIn(service, `jobs/${job.id}`, { allowed: [/status of 400/] });
  const { page } = visitor;
  const box = page.getByLabel("Find in the whole output");
  const hits = page.locator(".find .hits");
  await page.locator(".lines .l").first().waitFor();
  await page.locator(".lines").focus();
  await page.keyboard.press("Control+f");
  await box.fill("nowhere");
  await hits.filter({ hasText: "0 hits · all of the log" }).waitFor();
  await box.fill("needle");
  await hits.filter({ hasText: /^10.432 hits · all of the log$/ }).waitFor();
  await page.keyboard.press("Enter");
  await page.locator(".hit.now").waitFor();
  await box.fill("faraway");
  await hits.filter({ hasText: "1 hit · all of the log" }).waitFor();
  await page.keyboard.press("Enter");
  await page.locator(".hit.now", { hasText: "FarAway" }).waitFor();
  await page.getByLabel("Same case").click();
  await hits.filter({ hasText: "0 hits" }).waitFor();
  await page.getByLabel("Regular expression").click();
  await box.fill("needle 1043[01]$");
  await hits.filter({ hasText: "2 hits" }).waitFor();
  await box.fill("(");
  await page.locator(".find .hits.bad").waitFor();
  await box.press("Escape");
  await until(async () => (await page.locator(".hit").count()) === 0, "no search");
  await visitor.leave();
});

test("find while the job writes: hits come with the output, and Escape ends the search", options, async () => {
  const job = await service.create({ script: "i=0; while :; do i=$((i+1)); echo needle $i; echo hay; sleep 0.02; done" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  const box = page.getByLabel("Find in the whole output");
  const hits = async () => Number((/^([0-9\u202f]+) hits?/.exec(await page.locator(".find .hits").textContent()) ?? ["", "0"])[1].replaceAll("\u202f", ""));
  await until(async () => (await seen(page)).some((line) => /^needle [0-9]{2}/.test(line)), "some output");
  await box.fill("needle");
  await until(async () => (await hits()) >= 20, "hits");
  // What is written after the search has ended is found as well.
  const [then, written] = [await hits(), (await service.job(job.id)).output.next_offset];
  await until(async () => (await service.job(job.id)).output.next_offset > written + 2000 && (await hits()) > then + 40, "hits in what came later");
  await page.locator(".lines .hit").first().waitFor();
  // A search of a large log is still being read by the service when Escape comes.
  const large = await service.create({ script: "yes abcdefghijklmnopqrstuvwxyz | head -c 60000000", output: { max_bytes: 100_000_000 } });
  await service.finished(large.id);
  await page.goto(`${service.url}/ui/jobs/${large.id}`);
  await page.locator(".lines .l").first().waitFor();
  const ended = page.waitForEvent("requestfailed", (request) => request.url().includes("/output/search"));
  const begun = page.waitForRequest((request) => request.url().includes("/output/search"));
  await page.getByLabel("Regular expression").click();
  await box.fill("(a|b|c|d)+[x-z]{3,9}never");
  await begun;
  await box.press("Escape");
  assert.match((await ended).failure().errorText, /ABORTED/);
  await until(async () => (await page.locator(".find .hits").textContent()) === "", "no search");
  await service.api("DELETE", `/jobs/${job.id}?force`);
  await visitor.leave();
});

test("a killed server: the log goes on, nothing is missing or double, and a job that is sent meanwhile comes once", options, async () => {
  const job = await service.create({ script: "for i in $(seq 1 400); do echo $i; sleep 0.02; done" });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`, { allowed: [/net::ERR_/, /WebSocket/, /status of 401/] });
  const { page } = visitor;
  await until(async () => Number((await seen(page)).at(-1)) > 50, "output");
  await service.killServer();
  await service.finished(job.id);
  await until(async () => (await seen(page)).at(-1) === "400", "the rest");
  await page.locator(".lines").focus();
  await page.keyboard.press("Home");
  await until(async () => (await seen(page))[0] === "1", "the beginning");
  const all = new Set();
  for (let i = 0; i < 60 && !all.has("400"); i++) {
    await until(async () => (await seen(page)).at(-1) === "400" || isFilled(page), "a whole page");
    const now = (await seen(page)).map(Number);
    now.forEach((number, at) => { if (at > 0) assert.equal(number, now[at - 1] + 1); });
    for (const number of now) all.add(String(number));
    if (all.has("400")) break;
    await page.keyboard.press("PageDown");
    await until(async () => (await seen(page))[0] !== String(now[0]), "the next page");
  }
  assert.equal(all.size, 400);
  await page.goto(`${service.url}/ui/run`);
  await page.getByLabel("Script", { exact: true }).fill("true");
  await page.getByLabel("Name").fill("sent-once");
  const { server_pid: pid } = await (await service.api("GET", "/info")).json();
  process.kill(pid, "SIGKILL");
  await page.locator(".form button[type=submit]").click();
  await page.locator("h1", { hasText: "sent-once" }).waitFor();
  const { jobs } = await (await service.api("GET", "/jobs?name_prefix=sent-once")).json();
  assert.equal(jobs.length, 1);
  await visitor.leave();
});

/** What jobs may write that is meant for whoever looks. */
const HOSTILE = [
  "<img src=x onerror=alert(1)><script>alert(2)</script>",
  "\x1b]0;owned\x07\x1b]52;c;cm0gLXJmIH4=\x07",
  "\x1b]8;;javascript:alert(3)\x07click\x1b]8;;\x07 javascript:alert(4) data:text/html,<script>alert(5)</script>",
  "\x1b]8;;http://evil.example/\x07https://bank.example/\x1b]8;;\x07",
  "\x1b[2J\x1b[H\x1b[10000;10000H\x1b[?1049h\x1bc",
  "user\u202enimda \u2066\u2067 a\u200bb \u{e0041}\u{e0042}",
  `a${"\u0301".repeat(1000)}b`,
  Array.from({ length: 2000 }, (_, i) => `\x1b[3${i % 8}mx`).join(""),
  "\x00\x01\x7f",
];

test("hostile output and names are words: no dialog, no request, no other title, and nothing beside the log changes", options, async () => {
  const base64 = Buffer.concat([Buffer.from(HOSTILE.join("\n")), Buffer.from([0xff, 0xfe, 0xc0, 0x80, 10])]).toString("base64");
  const spec = (data) => ({ script: "cat; sleep 300", stdin: { mode: "data", base64: data }, name: "<img src=x onerror=alert(9)>", labels: { a: "b" }, env: { A: "<script>alert(8)</script>" } });
  const hostile = await service.create(spec(base64));
  const visitor = await browser.signedIn(service, `jobs/${hostile.id}`);
  const { page } = visitor;
  await page.locator(".lines .l", { hasText: "<img src=x onerror=alert(1)>" }).waitFor();
  await page.locator(".lines .l", { hasText: "user<U+202E>nimda" }).waitFor();
  assert.equal(await page.title(), "<img src=x onerror=alert(9)> · Procession");
  const hrefs = await page.locator(".lines .x a").evaluateAll((links) => links.map((link) => [link.href, link.rel, link.target]));
  for (const [href, rel, target] of hrefs) {
    assert.match(href, /^https?:/);
    assert.equal(rel, "noopener noreferrer nofollow");
    assert.equal(target, "_blank");
  }
  assert.equal(await page.evaluate(() => document.querySelectorAll(".lines img, .lines script, .lines iframe, .lines style").length), 0);
  const outside = await page.evaluate(() => {
    const box = document.querySelector(".lines").getBoundingClientRect();
    return [...document.querySelectorAll(".lines .l")].every((row) => {
      const x = row.querySelector(".x").getBoundingClientRect();
      return x.left >= box.left && x.right <= box.right && row.getBoundingClientRect().height === 19;
    });
  });
  assert.ok(outside, "no row reaches out of its place");
  for (const path of ["jobs", "", "events", `jobs/${hostile.id}?tab=spec`, `jobs/${hostile.id}?tab=events`, `run?again=${hostile.id}`]) {
    await page.goto(`${service.url}/ui/${path}`);
    await page.getByText("<img src=x onerror=alert(9)>").first().waitFor({ state: "attached" }).catch(() => undefined);
    assert.equal(await page.evaluate(() => document.querySelectorAll("img, #app script, iframe").length), 0, path);
  }
  await service.api("DELETE", `/jobs/${hostile.id}?force`);
  await visitor.leave();
});

/** How far two pictures are from each other, in the colour that differs most: of 255. */
async function distance(page, ...images) {
  return page.evaluate(async (images) => {
    const [one, other] = await Promise.all(images.map(async (image) => {
      const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${image}`)).blob());
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      return context.getImageData(0, 0, bitmap.width, bitmap.height);
    }));
    if (one.width !== other.width || one.height !== other.height) return 255;
    return one.data.reduce((most, value, at) => Math.max(most, Math.abs(value - other.data[at])), 0);
  }, images.map((image) => image.toString("base64")));
}

/** The page of a job without its lines, at one moment; `change` makes other output of what the service has. */
async function picture(service, id, change) {
  const visitor = await browser.visitor(service);
  const { page } = visitor;
  await page.clock.setFixedTime(AT);
  await page.route((url) => url.pathname === `/jobs/${id}/output`, async (route) => {
    const answer = await route.fetch();
    const records = (await answer.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line)).map((one) => (one.type === "output" ? change(one) : one));
    return route.fulfill({ response: answer, body: records.map((one) => `${JSON.stringify(one)}\n`).join("") });
  });
  await page.goto(await service.wayIn());
  await page.locator(".app").waitFor();
  await page.goto(`${service.url}/ui/jobs/${id}`);
  await page.locator(".lines .l").first().waitFor();
  await page.locator(".live.live").waitFor();
  await page.locator(".foot b").waitFor();
  await page.locator(".status", { hasText: "Line 1" }).waitFor();
  const text = (await rows(page)).join("\n");
  const image = await page.screenshot({ mask: [page.locator(".lines")], animations: "disabled", caret: "hide" });
  await visitor.leave();
  return { text, image };
}

const AT = Date.now();

test("beside the log the picture of a hostile job is that of a harmless one, pixel for pixel", options, async () => {
  const base64 = Buffer.concat([Buffer.from(HOSTILE.join("\n")), Buffer.from([0xff, 0xfe, 0xc0, 0x80, 10])]).toString("base64");
  const job = await service.create({ script: "cat", stdin: { mode: "data", base64 }, name: "pictured" });
  await service.finished(job.id);
  const length = (one) => (one.text !== undefined ? Buffer.byteLength(one.text) : Buffer.from(one.base64, "base64").length);
  const hostile = await picture(service, job.id, (one) => one);
  const harmless = await picture(service, job.id, (one) => ({ ...one, base64: undefined, text: `${"x".repeat(length(one) - 1)}\n` }));
  assert.match(hostile.text, /onerror/);
  assert.match(harmless.text, /^x+/);
  // The edges of round corners are not painted alike twice, by one step of 255.
  const blank = await browser.visitor(service);
  const apart = await distance(blank.page, hostile.image, harmless.image);
  await blank.leave();
  if (apart > 2) {
    for (const [name, { image }] of Object.entries({ hostile, harmless })) await writeFile(join(root, `target/${name}.png`), image);
    assert.fail(`the pictures differ by ${apart}: target/hostile.png, target/harmless.png`);
  }
});
