// The pictures of README and docs: a real service with real jobs, in a real browser. `make pictures`.

import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Browser, Service, until } from "./harness.mjs";

const folder = resolve(import.meta.dirname, "../../docs/pictures");
const BUILD = `for step in configure compile link; do echo "\\033[36m==>\\033[0m $step"; for n in $(seq 1 9); do echo "  [$n/9] $step part-$n.c"; done; done; echo "warning: part-7.c:42: unused variable 'rest'" >&2; echo "\\033[32mdone\\033[0m in 3.1 s"`;

const service = await Service.start(["--max-running", "6"]);
const browser = await Browser.start();
await mkdir(folder, { recursive: true });
try {
  const ended = [];
  for (const spec of [
    { script: BUILD, name: "build-site", labels: { team: "web" } },
    { script: "seq 1 200; exit 1", name: "test-api", labels: { team: "api" } },
    { command: ["sleep", "30"], name: "slow-report", timeout_seconds: 0.5 },
    { script: "echo backup of /srv; exit 0", name: "backup", labels: { team: "ops" } },
    { script: BUILD, name: "build-docs", labels: { team: "web" } },
  ]) ended.push(await service.create(spec));
  for (const job of ended) await service.finished(job.id);
  await service.create({ command: ["sleep", "300"], name: "dev-server", labels: { team: "web" } });
  await service.create({ script: "while :; do seq 1 20000 >/dev/null; sleep 0.2; done", name: "queue-worker", labels: { team: "api" } });
  await service.create({ command: ["sh"], pty: {}, name: "shell" });
  const shown = await service.create({ script: `${BUILD}; while :; do seq 1 9000 >/dev/null; sleep 0.3; done`, name: "release", labels: { team: "web" } });
  await until(async () => (await service.job(shown.id)).output.next_offset > 600, "its output");
  for (const colorScheme of ["light", "dark"]) {
    const visitor = await browser.signedIn(service, "", { colorScheme, viewport: { width: 1280, height: 760 } });
    const { page } = visitor;
    for (const [name, path, ready] of [["overview", "", "td .use"], ["jobs", "jobs", "td .use"], ["job", `jobs/${shown.id}`, ".side .spark polyline >> nth=1"]]) {
      await page.goto(`${service.url}/ui/${path}`);
      await page.locator(ready).first().waitFor();
      await page.waitForLoadState("networkidle").catch(() => {});
      await page.screenshot({ path: join(folder, `${name}-${colorScheme}.png`) });
    }
    await visitor.leave();
  }
} finally {
  await browser.stop();
  await service.stop();
}
