// Every view of the page, and jobs that have something to show in each.

import assert from "node:assert/strict";

/** A job of every kind that a view shows in its own way. */
export async function variety(service) {
  const out = {};
  const make = async (key, spec) => { out[key] = await service.create({ name: key, ...spec }); };
  await make("succeeded", { script: "for i in $(seq 1 40); do printf '\\033[3%dmline %d\\033[0m\\n' $((i % 8)) $i; done; echo oops >&2", labels: { team: "web", env: "prod" } });
  await make("failed", { script: "exit 3" });
  await make("timed-out", { command: ["sleep", "30"], timeout_seconds: 0.2 });
  await make("not-found", { command: ["/no/such/program"] });
  for (const key of Object.keys(out)) await service.finished(out[key].id);
  await make("running", { script: "sleep 300 & sleep 300", labels: { team: "api" }, timeout_seconds: 3600 });
  await make("terminal", { command: ["sh"], pty: {}, env: { PS1: "> " }, stop: { signal: "SIGHUP" } });
  await make("recorded", { script: "for i in 1 2 3; do echo step $i; sleep 0.05; done", pty: { rows: 10, cols: 60 } });
  await make("input", { command: ["cat"], stdin: { mode: "open" } });
  await make("serving", { command: ["python3", "-c", "import socket,time; s=socket.create_server(('127.0.0.1',0)); print('up',flush=True); time.sleep(300)"], ready: { log: "up" } });
  await make("filed", { script: "mkdir out; echo hello >out/hello.txt; ln -s hello.txt out/link; echo note >note", workspace: { keep: "all" }, artifacts: { paths: ["out/*", "*.none"] } });
  await make("paused", { command: ["sleep", "300"] });
  await service.finished(out.recorded.id);
  await service.finished(out.filed.id);
  await service.api("POST", `/jobs/${out.paused.id}/pause`);
  await service.api("PUT", "/queues/render", { max_running: 1, max_queued: 10, rate: { starts: 10, per_seconds: 60 }, fair_by: { label: "team" } });
  await service.api("PUT", "/queues/closed", { paused: true, pause_reason: "release on monday" });
  await make("rendering", { command: ["sleep", "300"], queue: "render" });
  await make("waiting", { command: ["true"], queue: "render" });
  await make("held", { command: ["true"], queue: "closed" });
  await make("released-later", { command: ["true"], hold: true });
  await make("in-an-hour", { command: ["true"], run_at: new Date(Date.now() + 3_600_000).toISOString() });
  await make("depending", { command: ["true"], depends_on: [{ job: out.running.id }, { job: out.succeeded.id, on: "finished" }] });
  await make("retried", { script: "echo try $PROCESSION_ATTEMPT; exit 7", retry: { max_attempts: 3, backoff: { initial_seconds: 0, max_seconds: 0 } } });
  await service.finished(out.retried.id);
  const batch = async (body) => {
    const answer = await service.api("POST", "/batches", body);
    assert.equal(answer.status, 201, await answer.clone().text());
    return await answer.json();
  };
  out.batch = await batch({ name: "nightly", max_running: 1, jobs: [{ key: "fetch", command: ["true"] }, { key: "bad", command: ["false"] }, { key: "shard", repeat: 3, command: ["sleep", "300"], depends_on: [{ key: "fetch" }] }, { key: "join", command: ["true"], depends_on: [{ key: "shard" }] }] });
  out.ended = await batch({ name: "ended", labels: { team: "data" }, jobs: [{ key: "good", repeat: 4, command: ["true"] }, { key: "bad", command: ["false"] }] });
  await service.api("GET", `/batches/${out.ended.id}?wait=30`);
  for (const [name, body] of [["report", { cron: "30 2 * * *", time_zone: "Europe/Berlin", job: { script: "echo report" } }], ["stopped", { every_seconds: 3600, paused: true, job: { command: ["true"] } }]]) {
    const answer = await service.api("PUT", `/schedules/${name}`, body);
    assert.equal(answer.status, 201, await answer.clone().text());
  }
  const run = await (await service.api("POST", "/schedules/report/run", {}, { "Content-Type": "application/merge-patch+json" })).json();
  await service.finished(run.id);
  return out;
}

/** Every view with what has to be seen of it, once it is whole. */
export function views(jobs) {
  const job = (key, tab = "") => `jobs/${jobs[key].id}${tab === "" ? "" : `?tab=${tab}`}`;
  return [
    ["overview", "", "text=Running now"], ["jobs", "jobs", ".name >> text=rendering"], ["jobs, none", "jobs?name=nothing", "text=No job is"],
    ["queues", "queues", "tr >> text=render"], ["batches", "batches", "tr >> text=nightly"], ["batch", `batches/${jobs.batch.id}`, "tbody .name"], ["batch, ended", `batches/${jobs.ended.id}`, "text=Those that failed again"],
    ["schedules", "schedules", "tr >> text=report"], ["schedule", "schedules/report", "tbody .name"], ["schedule, paused", "schedules/stopped", "text=if it were not paused"], ["no batch", "batches/00000000-0000-7000-8000-000000000000", "text=Removed, or never there"],
    ["events", "events", "table, .empty"], ["run", "run", "text=Ready to run"], ["run, all", "run", "text=Ready to run", open],
    ["again", `run?again=${jobs.succeeded.id}`, "text=Nothing is changed"], ["access", "access", "text=Sessions"], ["checkup", "checkup", "text=Security"], ["settings", "settings", "text=Colours"],
    ["nowhere", "jobs/00000000-0000-7000-8000-000000000000", "text=Removed, or never there"],
    ["succeeded", job("succeeded"), ".lines .l >> nth=3"], ["failed", job("failed"), "text=exit code 3"], ["timed out", job("timed-out"), ".title .state"], ["not found", job("not-found"), ".title .state"],
    ["running", job("running"), ".title .state"], ["processes", job("running", "processes"), "table.procs tr >> nth=2"], ["spec", job("running", "spec"), "text=sleep 300"], ["events of a job", job("succeeded", "events"), "table"],
    ["terminal", job("terminal"), "text=you write"], ["recording", job("recorded", "recording"), ".player"], ["files", job("filed", "files"), "text=nothing matches *.none"], ["ports", job("serving", "processes"), "text=Listens on >> visible=true"], ["input", job("input", "input"), "text=End of input"], ["paused", job("paused"), "text=Resume"], ["waiting", job("waiting"), ".title .state"],
    ["held job", job("released-later"), "text=Held: it does not start"], ["job of later", job("in-an-hour"), "text=Not before"], ["dependencies", job("depending"), "text=has succeeded"], ["attempts", job("retried", "attempts"), "tr >> text=exit code 7"],
    ["dialog stop", job("running"), ".title .state", async (page) => { await page.getByRole("button", { name: "Stop", exact: true }).click(); await page.locator("dialog").waitFor(); }],
    ["columns", "jobs", ".name >> text=rendering", async (page) => { await page.getByRole("button", { name: "Columns" }).click(); await page.locator("[role=menuitemcheckbox]").first().waitFor(); }],
    ["dialog priority", "jobs", ".name >> text=rendering", async (page) => { await page.getByLabel("Select waiting").click(); await page.getByRole("button", { name: "Priority …" }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog token", "access", "text=Sessions", async (page) => { await page.getByRole("button", { name: "Token", exact: true }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog queue", "queues", "tr >> text=render", async (page) => { await page.getByRole("button", { name: "Settings of render" }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog pause", "queues", "tr >> text=render", async (page) => { await page.getByRole("button", { name: "Pause render" }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog schedule", "schedules", "tr >> text=report", async (page) => { await page.getByRole("button", { name: "Schedule", exact: true }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog of a batch", `batches/${jobs.batch.id}`, "tbody .name", async (page) => { await page.getByRole("button", { name: "Stop all" }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog go to", job("succeeded"), ".lines .l >> nth=3", async (page) => { await page.locator(".lines").focus(); await page.keyboard.press(":"); await page.locator("dialog").waitFor(); }],
    ["keys", "jobs", ".name >> text=rendering", async (page) => { await page.keyboard.press("?"); await page.locator("dialog").waitFor(); }],
    ["peek", "jobs", "tr >> text=succeeded", async (page) => { await page.getByRole("button", { name: "Last lines of succeeded" }).click({ force: true }); await page.locator(".drawer").waitFor(); }],
  ];
}

async function open(page) {
  await page.evaluate(() => { for (const part of document.querySelectorAll("details")) part.open = true; });
}

/** Opens a view, and does what is to be seen in it. */
export async function show(page, origin, [, path, ready, act]) {
  await page.goto(`${origin}/ui/${path}`);
  await page.locator(ready).first().waitFor();
  if (act) await act(page);
}
