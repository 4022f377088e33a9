// The pictures of README and docs: a real service with jobs of some minutes, in a real browser. `make pictures`, or
// node tests/page/pictures.mjs [FOLDER] [MINUTES]; as root the overview says so, so better not as root.

import assert from "node:assert/strict";
import { mkdir, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Browser, Service, until } from "./harness.mjs";

const folder = resolve(process.argv[2] ?? join(import.meta.dirname, "../../docs/pictures"));
const minutes = Number(process.argv[3] ?? 10);
/** The most bytes of a picture. */
const MOST = 250_000;

const BUILD = `for step in configure compile link; do printf '\\033[36m==>\\033[0m %s\\n' $step; for n in $(seq 1 9); do echo "  [$n/9] $step part-$n.c"; seq 1 20000 >/dev/null; done; done; echo "warning: part-7.c:42: unused variable 'rest'" >&2; printf '\\033[32mdone\\033[0m in 3.1 s\\n'`;
const INDEX = `worker() { n=0; while :; do n=$((n+1)); printf '[w%d] indexed \\033[34m/srv/archive/2019/0%d/%04d.warc.zst\\033[0m  %d docs\\n' $1 $((n % 9 + 1)) $n $((n * 37 % 1400)); [ $((n % 17)) = 5 ] && echo "WARN shard $1: connection reset by peer, attempt 2 of 5" >&2; seq 1 6000 >/dev/null; sleep 0.$((1 + $1)); done; }; echo 'see https://docs.example.org/reindex'; for w in 1 2 3; do worker $w & done; wait`;

/** What comes again and again: who, which job, and at every so many. */
const WORK = [
  [2, "ci", (n) => ({ script: BUILD, name: n % 4 === 0 ? "build-docs" : "build-site", labels: { team: "web" }, timeout_seconds: 600 })],
  [3, "ci", (n) => ({ script: `seq 1 200; seq 1 200000 >/dev/null; exit ${n % 9 === 0 ? 1 : 0}`, name: "test-api", labels: { team: "api" } })],
  [5, "cron", () => ({ script: "echo backup of /srv; sleep 1", name: "backup", labels: { team: "ops" } })],
  [7, "ops", (n) => ({ command: ["sleep", n % 2 === 0 ? "20" : "1"], name: "crawl-news", labels: { team: "data", batch: "crawl" }, timeout_seconds: 2 })],
];

const service = await Service.start(["--max-running", "8"]);
const browser = await Browser.start();
await mkdir(folder, { recursive: true });
const tokens = {};
for (const name of ["ops", "ci", "cron"]) tokens[name] = (await (await service.api("POST", "/tokens", { name, scope: "operate" })).json()).token;
const create = async (who, spec) => {
  const answer = await service.api("POST", "/jobs", spec, { Authorization: `Bearer ${tokens[who]}` });
  assert.equal(answer.status, 201, await answer.clone().text());
  return await answer.json();
};
try {
  const shown = await create("ops", { script: INDEX, name: "reindex-archive", labels: { team: "data" }, timeout_seconds: 21_600 });
  await create("ops", { script: "while :; do seq 1 900000 >/dev/null; sleep 0.1; done", name: "queue-worker", labels: { team: "api" } });
  const end = Date.now() + minutes * 60_000;
  for (let n = 1; n < 8 || Date.now() < end; n++) {
    let last;
    for (const [every, who, spec] of WORK) if (n % every === 0) last = await create(who, spec(n));
    // The next ones come when these have ended.
    if (last) await service.finished(last.id);
    else await new Promise((done) => setTimeout(done, 1500));
  }
  // On the first page of the list.
  await create("ops", { command: ["sleep", "7200"], name: "dev-server", labels: { team: "web" } });
  await create("ops", { command: ["sh"], pty: {}, name: "shell" });
  await create("ci", { script: "for n in $(seq 1 400); do echo ok $n; seq 1 200000 >/dev/null; sleep 0.3; done", name: "pytest-api", labels: { team: "api", pr: "1184" }, timeout_seconds: 360 });
  const paused = await create("ops", { command: ["sleep", "7200"], name: "train-embeddings", labels: { team: "data" } });
  await until(async () => (await service.job(paused.id)).state === "running", "its start");
  await service.api("POST", `/jobs/${paused.id}/pause`);
  await until(async () => (await service.job(shown.id)).output.next_offset > 6000, "its output");
  const { token } = await (await service.api("POST", "/session", { token: tokens.ops, browser: "pictures" })).json();
  for (const colorScheme of ["light", "dark"]) {
    const visitor = await browser.visitor(service, { colorScheme, viewport: { width: 1280, height: 760 } });
    const { page } = visitor;
    await visitor.context.addInitScript((text) => sessionStorage.setItem("procession.session", text), token);
    for (const [name, path, ready] of [["overview", "", "td .use"], ["jobs", "jobs", "td .use"], ["job", `jobs/${shown.id}`, ".side .spark polyline >> nth=1"]]) {
      await page.goto(`${service.url}/ui/${path}`);
      await page.locator(ready).first().waitFor();
      if (name === "job") {
        await page.getByLabel("Find in the whole output").fill("WARN");
        await page.getByText("all of the log").waitFor();
        // A chart needs some looks.
        await until(async () => (await page.locator(".side .spark polyline").first().getAttribute("points")).split(" ").length > 7, "the charts");
      } else await page.waitForLoadState("networkidle").catch(() => undefined);
      const path_ = join(folder, `${name}-${colorScheme}.png`);
      await page.screenshot({ path: path_ });
      assert.ok((await stat(path_)).size <= MOST, path_);
    }
    await visitor.leave();
  }
} finally {
  await browser.stop();
  await service.stop();
}
