// Columns, priorities, standard error on the ruler, notices, templates beside commands, files, ports and readiness.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Browser, LIMIT, Service, until } from "../harness.mjs";
import { bringAxe, findings, misfits } from "../look.mjs";

let service, browser;
before(async () => { [service, browser] = await Promise.all([Service.start(["--max-running", "4"]), Browser.start()]); });
after(async () => { await browser.stop(); await service.stop(); });

const options = { timeout: 4 * LIMIT };

/** To the standard input of a job. */
async function write(job, text) {
  const answer = await fetch(`${service.url}/jobs/${job.id}/stdin`, { method: "POST", headers: { Authorization: `Bearer ${service.token}` }, body: text });
  assert.ok(answer.ok, await answer.text());
}

test("names and labels as long as they may be make no view wider, and nothing of them is too faint", options, async () => {
  const labels = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`label-${i}.of-a-team/with-${"x".repeat(30)}`, `value-${"v".repeat(50)}${i}`]));
  const job = await service.create({ script: "head -c 200000 /dev/urandom; seq 1 20000", name: "n".repeat(128), labels });
  await service.finished(job.id);
  const visitor = await browser.signedIn(service, "", { allowed: [/net::ERR_FAILED/] });
  const { page } = visitor;
  await bringAxe(page);
  // Its lines have no numbers: they are named by their bytes.
  await page.route("**/output/place?*", (route) => route.abort());
  for (const width of [1440, 800, 320]) {
    await page.setViewportSize({ width, height: 900 });
    for (const path of ["jobs", `jobs/${job.id}`, `jobs/${job.id}?tab=spec`, "events"]) {
      await page.goto(`${service.url}/ui/${path}`);
      await page.getByText("nnnn").first().waitFor({ state: "attached" });
      if (path.endsWith(job.id)) await page.locator(".l .g.unknown").first().waitFor();
      assert.equal(await page.evaluate(() => Math.max(document.scrollingElement.scrollWidth - innerWidth, document.querySelector(".main").scrollWidth - document.querySelector(".main").clientWidth)), 0, `${path} at ${width}`);
      assert.deepEqual(await findings(page), [], `${path} at ${width}`);
    }
  }
  await page.unrouteAll({ behavior: "wait" });
  await visitor.leave();
});

test("jobs of one creator are a list, from a job and by what is typed", options, async () => {
  const made = await (await service.api("POST", "/tokens", { name: "robot", scope: "operate" })).json();
  const answer = await service.api("POST", "/jobs?wait=30", { script: "echo 12345", name: "by-robot" }, { Authorization: `Bearer ${made.token}` });
  const job = await answer.json();
  await service.finished((await service.create({ command: ["true"], name: "by-default" })).id);
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await page.locator(".cmdline a", { hasText: "robot" }).click();
  await page.waitForURL(`${service.url}/ui/jobs?by=token%3Arobot`);
  await page.locator("tr", { hasText: "by-robot" }).waitFor();
  assert.equal(await page.locator("tbody tr").count(), 1);
  await page.getByRole("button", { name: "Without by token:robot" }).click();
  await page.locator("tr", { hasText: "by-default" }).waitFor();
  await page.getByLabel("Filter").fill("by:token:robot");
  await page.keyboard.press("Enter");
  await until(async () => (await page.locator("tbody tr").count()) === 1, "the list of one");
  const { output_bytes: kept } = await (await service.api("GET", "/info")).json();
  assert.ok(kept >= 6);
  await page.goto(`${service.url}/ui/`);
  await page.getByText(/[0-9.]+ (B|kB) of output kept/).waitFor();
  await visitor.leave();
});

test("columns of the list are chosen by keys, and stay chosen", options, async () => {
  const job = await service.create({ command: ["true"], name: "columned", priority: 7, queue: "side" });
  await service.finished(job.id);
  const visitor = await browser.signedIn(service, "jobs");
  const { page } = visitor;
  const heads = async () => (await page.locator("table.jobs th.wide:not(.w-check)").allTextContents()).join();
  await page.locator("tr", { hasText: "columned" }).waitFor();
  assert.equal(await heads(), "Created,Duration,Processor,Memory,Result,By");
  await page.getByRole("button", { name: "Columns" }).focus();
  await page.keyboard.press("Enter");
  const box = (name) => page.getByRole("menuitemcheckbox", { name });
  await until(async () => (await page.evaluate(() => document.activeElement.textContent)).includes("Created"), "the first box");
  await page.keyboard.press("Enter");
  await until(async () => (await box("Created").getAttribute("aria-checked")) === "false", "no column of times");
  for (let i = 0; i < 4; i++) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await until(async () => (await heads()) === "Duration,Processor,Memory,Queue,Priority,Result,By", "the columns");
  await page.keyboard.press("Escape");
  await page.getByRole("menu").waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => document.activeElement.textContent.trim()), "Columns");
  await page.reload();
  const row = page.locator("tr", { hasText: "columned" });
  await row.getByText("side", { exact: true }).waitFor();
  await row.getByText("7", { exact: true }).waitFor();
  await visitor.leave();
});

test("the priority of those that wait is set at once, and a wrong one is told at its field", options, async () => {
  await service.api("PUT", "/queues/shut", { paused: true });
  const waiting = [];
  for (const name of ["low", "middle"]) waiting.push(await service.create({ command: ["true"], name, queue: "shut" }));
  const ended = await service.create({ command: ["true"], name: "ended-one" });
  await service.finished(ended.id);
  const visitor = await browser.signedIn(service, "jobs");
  const { page } = visitor;
  await page.getByLabel("Select ended-one").click();
  await page.locator(".bulk").waitFor();
  assert.equal(await page.getByRole("button", { name: "Priority …" }).count(), 0);
  for (const { name } of waiting) await page.getByLabel(`Select ${name}`).click();
  await page.getByRole("button", { name: "Priority …" }).click();
  const dialog = page.locator("dialog");
  await dialog.getByText("low").waitFor();
  assert.equal(await dialog.getByText("ended-one").count(), 0);
  await dialog.getByLabel("Priority").fill("a lot");
  await dialog.locator(".field.wrong").waitFor();
  assert.ok(await dialog.getByRole("button", { name: /^Set the priority of 2/ }).isDisabled());
  await dialog.getByLabel("Priority").fill("-5");
  await dialog.getByRole("button", { name: /^Set the priority of 2/ }).click();
  await dialog.waitFor({ state: "detached" });
  for (const { id } of waiting) assert.equal((await service.job(id)).spec.priority, -5);
  assert.equal((await service.job(ended.id)).spec.priority, 0);
  for (const { id } of waiting) await service.api("DELETE", `/jobs/${id}`);
  await visitor.leave();
});

test("standard error is on the ruler, and a key goes to its next line, however far it is", options, async () => {
  const script = "seq 1 30000; echo first >&2; seq 1 60000; echo second >&2; seq 1 30000";
  const job = await service.create({ script });
  await service.finished(job.id);
  const quiet = await service.create({ script: "seq 1 1000" });
  await service.finished(quiet.id);
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await until(async () => (await page.locator(".ruler .err").count()) === 2, "two marks");
  const { first_offset: from, next_offset: to } = job.output.next_offset > 0 ? job.output : (await service.job(job.id)).output;
  const whole = await (await service.api("GET", `/jobs/${job.id}/output`, undefined, { Accept: "application/octet-stream" })).text();
  const wanted = ["first\n", "second\n"].map((line) => Math.floor((whole.indexOf(line) - from) / (to - from) * 300) / 3);
  const tops = await page.locator(".ruler .err").evaluateAll((all) => all.map((one) => Number.parseFloat(one.style.top)));
  wanted.forEach((top, i) => assert.ok(Math.abs(top - tops[i]) < 0.5, `${wanted} ${tops}`));
  await page.locator(".lines").focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("E");
  await page.locator(".l.tg", { hasText: "first" }).waitFor();
  await page.keyboard.press("E");
  await page.locator(".l.tg", { hasText: "second" }).waitFor();
  await page.keyboard.press("E");
  await page.getByText("No line of standard error below").waitFor();
  await page.getByRole("button", { name: "Out", exact: true }).click();
  await page.locator(".ruler .err").first().waitFor({ state: "detached" });
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(`${service.url}/ui/jobs/${quiet.id}`);
  await page.locator(".lines .l").first().waitFor();
  await page.locator(".status", { hasText: "Line" }).waitFor();
  assert.ok(!asked.some((url) => url.includes("/output/search")), "nothing is looked for where there is none");
  await visitor.leave();
});

test("standard error that comes while one looks is on the ruler as well", options, async () => {
  const job = await service.create({ script: "read x; echo oops >&2; sleep 300", stdin: { mode: "open" } });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await page.getByText("Nothing yet.").waitFor();
  await write(job, "go\n");
  await page.locator(".lines .l.e", { hasText: "oops" }).waitFor();
  await page.locator(".ruler .err").waitFor();
  await service.api("DELETE", `/jobs/${job.id}?force`);
  await visitor.leave();
});

test("what whoever operates the service should know is on the overview", options, async () => {
  const full = await Service.start(["--min-free-bytes", String(Number.MAX_SAFE_INTEGER)]);
  try {
    const visitor = await browser.visitor(full);
    const { page } = visitor;
    await bringAxe(page);
    await page.goto(await full.wayIn());
    await page.getByText("No room: less of the disk is free").waitFor();
    assert.equal(await page.getByText("Jobs without a user run as root.").count(), process.getuid() === 0 ? 1 : 0);
    assert.deepEqual(await findings(page), []);
    await page.setViewportSize({ width: 320, height: 640 });
    assert.deepEqual(await misfits(page), []);
    await visitor.leave();
  } finally {
    await full.stop();
  }
  const quiet = await Service.start(["--deny-root-jobs"]);
  try {
    const visitor = await browser.signedIn(quiet);
    await visitor.page.getByText("Running now").waitFor();
    assert.equal(await visitor.page.locator(".body .banner").count(), 0);
    await visitor.leave();
  } finally {
    await quiet.stop();
  }
});

const POLICY = `mode = "also"
[template.greet]
command = ["/bin/echo", "{word}"]
[template.greet.params]
word = { type = "pattern", pattern = "[a-z]+" }
`;

test("where a policy has templates beside commands both are offered, by keys as well", options, async () => {
  const file = join(service.dir, "also.toml");
  await writeFile(file, POLICY, { mode: 0o600 });
  const both = await Service.start(["--policy", file]);
  try {
    const visitor = await browser.visitor(both);
    const { page } = visitor;
    await bringAxe(page);
    await page.goto(await both.wayIn());
    await page.locator(".app").waitFor();
    await page.goto(`${both.url}/ui/run`);
    await page.getByLabel("Script", { exact: true }).waitFor();
    await page.getByRole("link", { name: "From a template …" }).focus();
    await page.keyboard.press("Enter");
    await page.getByLabel("word", { exact: true }).fill("hello");
    assert.equal(new URL(page.url()).searchParams.get("template"), "greet");
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      assert.deepEqual(await findings(page), []);
    }
    await page.setViewportSize({ width: 320, height: 640 });
    assert.deepEqual(await misfits(page), []);
    await page.setViewportSize({ width: 1440, height: 900 });
    await page.getByRole("link", { name: "A command of your own instead" }).click();
    await page.getByLabel("Script", { exact: true }).waitFor();
    await page.goBack();
    await page.getByLabel("word", { exact: true }).fill("hello");
    await page.keyboard.press("Control+Enter");
    await page.locator(".lines .l", { hasText: "hello" }).waitFor();
    await visitor.leave();
  } finally {
    await both.stop();
  }
});

test("events are told by every type, that of a warning among them", options, async () => {
  const job = await service.create({ command: ["sleep", "300"], name: "warned", timeout_seconds: 3600, timeout_warning: { before_seconds: 3599.9 } });
  const visitor = await browser.signedIn(service, "events");
  const { page } = visitor;
  await until(async () => (await service.job(job.id)).warned_at !== null, "the warning");
  await page.getByLabel("Type").selectOption("job.warned");
  const row = page.locator("table.events tbody tr");
  await row.filter({ hasText: "warned" }).first().waitFor();
  await until(async () => (await row.count()) === 1, "this event alone");
  const contract = await readFile(join(import.meta.dirname, "../../../openapi.yaml"), "utf8");
  const all = /EventType:\n\s+type: string\n\s+enum: \[([^\]]+)\]/.exec(contract)[1].split(", ");
  const offered = await page.getByLabel("Type").locator("option").evaluateAll((options) => options.map((one) => one.value).filter(Boolean));
  assert.deepEqual(offered.sort(), all.sort());
  await service.api("DELETE", `/jobs/${job.id}?force`);
  await visitor.leave();
});

test("files of a workspace are listed and saved, artifacts are named, and what matches nothing is told", options, async () => {
  const job = await service.create({ script: "mkdir -p out/deep; echo hello >out/deep/a.txt; echo x >note; read x", name: "filed", stdin: { mode: "open" }, artifacts: { paths: ["out/**", "*.none"] } });
  const visitor = await browser.signedIn(service, `jobs/${job.id}?tab=files`);
  const { page } = visitor;
  const row = (path) => page.locator("tbody tr").filter({ has: page.locator(`td[title="${path}"]`) });
  await row("note").waitFor();
  await row("out/deep/a.txt").getByText("artifact").waitFor();
  await page.getByText("artifacts are looked for at the end").waitFor();
  const save = async (act) => {
    const coming = page.waitForEvent("download");
    await act();
    const saved = await coming;
    return [saved.suggestedFilename(), await readFile(await saved.path())];
  };
  const [name, text] = await save(() => page.getByRole("button", { name: "Download out/deep/a.txt" }).click());
  assert.deepEqual([name, text.toString()], ["a.txt", "hello\n"]);
  await write(job, "end\n");
  await service.finished(job.id);
  await row("note").waitFor({ state: "detached" });
  await page.getByText("nothing matches *.none").waitFor();
  const [archive, bytes] = await save(async () => {
    await page.getByRole("button", { name: "Download all" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("menuitem", { name: "All, as zip" }).click();
  });
  assert.equal(archive, `${job.id}.zip`);
  assert.equal(bytes.subarray(0, 2).toString(), "PK");
  await visitor.leave();
});

test("a job says when it is ready, and on which ports it listens", options, async () => {
  const program = "import socket,sys\ns=socket.create_server(('127.0.0.1',0))\nsys.stdin.readline()\nprint('up',flush=True)\nsys.stdin.readline()";
  const job = await service.create({ command: ["python3", "-c", program], name: "serving", stdin: { mode: "open" }, ready: { log: "up", timeout_seconds: 600 } });
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await page.locator(".title .label", { hasText: "not ready yet" }).waitFor();
  await until(async () => (await (await service.api("GET", `/jobs/${job.id}/ports`)).json()).ports.length === 1, "a port");
  const [{ port, pid }] = (await (await service.api("GET", `/jobs/${job.id}/ports`)).json()).ports;
  const card = page.locator(".side .card", { hasText: "Listens on" });
  await card.getByText(String(port), { exact: true }).waitFor();
  await card.getByText(`127.0.0.1, PID ${pid}`).waitFor();
  await write(job, "go\n");
  await page.locator(".title .label", { hasText: /^ready$/ }).waitFor();
  await write(job, "end\n");
  await service.finished(job.id);
  await card.waitFor({ state: "detached" });
  await visitor.leave();
});

test("what ended is charts and a table whose rows lead to their jobs; pauses are in the time line; the output is a text in a tab", options, async () => {
  const job = await service.create({ script: "echo plain words; read line; exit 3", stdin: { mode: "open" }, name: "charted" });
  await until(async () => (await service.job(job.id)).output.next_offset > 0, "its output");
  const visitor = await browser.signedIn(service, `jobs/${job.id}`);
  const { page } = visitor;
  await page.locator(".timeline").waitFor();
  assert.equal(await page.locator(".timeline .fill-paused").count(), 0);
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator(".timeline .fill-paused").waitFor();
  await page.locator(".timeline .tp", { hasText: "paused for" }).waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.locator(".title .state", { hasText: "Running" }).waitFor();
  await write(job, "on\n");
  await page.locator(".title .state", { hasText: "Failed" }).waitFor();
  await page.getByRole("group", { name: /paused for/ }).waitFor();
  assert.equal(await page.locator(".timeline .fill-paused").count(), 1);
  // Elsewhere than in the page: nothing of it can act there.
  const opened = visitor.context.waitForEvent("page");
  await page.getByRole("button", { name: "Download" }).click();
  await page.getByRole("menuitem", { name: "As plain text, in a tab" }).click();
  const tab = await opened;
  await tab.getByText("plain words").waitFor();
  assert.equal(await tab.evaluate(() => document.contentType), "text/plain");
  assert.equal(await tab.evaluate(() => opener), null);
  await tab.close();
  await page.goto(`${service.url}/ui/`);
  for (const label of [/jobs ended$/, /^At most .* ran and .* waited/, /^Jobs that ended have used/]) await page.locator(`svg.bars`).and(page.getByLabel(label)).waitFor();
  await page.getByText("The same as a table").focus();
  await page.keyboard.press("Enter");
  await page.locator("details.folded a", { hasText: "failed" }).first().click();
  await page.locator("tr", { hasText: "charted" }).waitFor();
  await visitor.leave();
});
