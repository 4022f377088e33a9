// Pictures of every view for people to look at, below target/views: node tests/page/shots.mjs [PART OF A NAME]

import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { show, variety, views } from "./gallery.mjs";
import { Browser, Service } from "./harness.mjs";

const folder = resolve(import.meta.dirname, "../../target/views");
const wanted = process.argv[2] ?? "";
const [service, browser] = await Promise.all([Service.start(["--max-running", "8"]), Browser.start()]);
await mkdir(folder, { recursive: true });
try {
  const jobs = await variety(service);
  for (const [kind, options] of [["light", { colorScheme: "light" }], ["dark", { colorScheme: "dark" }], ["narrow", { viewport: { width: 390, height: 844 }, hasTouch: true }]]) {
    const visitor = await browser.visitor(service, { allowed: [/./], ...options });
    const { page } = visitor;
    page.setDefaultTimeout(8000);
    await page.goto(await service.wayIn("--scope", "admin"));
    await page.locator(".app").waitFor();
    for (const view of views(jobs)) {
      if (!`${view[0]} ${kind}`.includes(wanted)) continue;
      await show(page, service.url, view).catch((error) => console.log(`${view[0]} ${kind}: ${error.message.split("\n")[0]}`));
      await page.waitForLoadState("networkidle").catch(() => undefined);
      await page.screenshot({ path: join(folder, `${view[0].replaceAll(/[^a-z]+/g, "-")}-${kind}.png`) });
    }
    await visitor.context.close();
  }
} finally {
  await browser.stop();
  await service.stop();
}
