// Every view of the page, and jobs that have something to show in each.

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
  await make("paused", { command: ["sleep", "300"] });
  await service.finished(out.recorded.id);
  await service.api("POST", `/jobs/${out.paused.id}/pause`);
  await service.api("PUT", "/queues/render", { max_running: 1, max_queued: 10, rate: { starts: 10, per_seconds: 60 }, fair_by: { label: "team" } });
  await service.api("PUT", "/queues/closed", { paused: true, pause_reason: "release on monday" });
  await make("rendering", { command: ["sleep", "300"], queue: "render" });
  await make("waiting", { command: ["true"], queue: "render" });
  await make("held", { command: ["true"], queue: "closed" });
  return out;
}

/** Every view with what has to be seen of it, once it is whole. */
export function views(jobs) {
  const job = (key, tab = "") => `jobs/${jobs[key].id}${tab === "" ? "" : `?tab=${tab}`}`;
  return [
    ["overview", "", "text=Running now"], ["jobs", "jobs", "tr >> text=held"], ["jobs, none", "jobs?name=nothing", "text=No job is"],
    ["queues", "queues", "tr >> text=render"], ["events", "events", "table, .empty"], ["run", "run", "text=Ready to run"], ["run, all", "run", "text=Ready to run", open],
    ["again", `run?again=${jobs.succeeded.id}`, "text=Nothing is changed"], ["access", "access", "text=Sessions"], ["checkup", "checkup", "text=Security"], ["settings", "settings", "text=Colours"],
    ["nowhere", "jobs/00000000-0000-7000-8000-000000000000", "text=Removed, or never there"],
    ["succeeded", job("succeeded"), ".lines .l >> nth=3"], ["failed", job("failed"), "text=exit code 3"], ["timed out", job("timed-out"), ".title .state"], ["not found", job("not-found"), ".title .state"],
    ["running", job("running"), ".title .state"], ["processes", job("running", "processes"), "table.procs tr >> nth=2"], ["spec", job("running", "spec"), "text=sleep 300"], ["events of a job", job("succeeded", "events"), "table"],
    ["terminal", job("terminal"), "text=you write"], ["recording", job("recorded", "recording"), ".player"], ["input", job("input", "input"), "text=End of input"], ["paused", job("paused"), "text=Resume"], ["waiting", job("waiting"), ".title .state"],
    ["dialog stop", job("running"), ".title .state", async (page) => { await page.getByRole("button", { name: "Stop", exact: true }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog token", "access", "text=Sessions", async (page) => { await page.getByRole("button", { name: "Token", exact: true }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog queue", "queues", "tr >> text=render", async (page) => { await page.getByRole("button", { name: "Settings of render" }).click(); await page.locator("dialog").waitFor(); }],
    ["dialog pause", "queues", "tr >> text=render", async (page) => { await page.getByRole("button", { name: "Pause render" }).click(); await page.locator("dialog").waitFor(); }],
    ["keys", "jobs", "tr >> text=held", async (page) => { await page.keyboard.press("?"); await page.locator("dialog").waitFor(); }],
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
