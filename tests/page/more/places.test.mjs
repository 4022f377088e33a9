// The page in other places: below a path of a proxy, without tokens, over TLS; and what it says when the service cannot.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { makeAuthority } from "../authority.mjs";
import { Browser, LIMIT, rows, Service, until } from "../harness.mjs";
import { Reverse } from "../proxies.mjs";
import { Proxy } from "../proxy.mjs";

let browser;
before(async () => { browser = await Browser.start(); });
after(async () => { await browser.stop(); });

const options = { timeout: 4 * LIMIT };

const PROXIES = { "a proxy": (service) => Proxy.start(service.url, "/tools/procession/"), nginx: Reverse.nginx, Caddy: Reverse.caddy };

for (const [name, before] of Object.entries(PROXIES)) test(`below a path that ${name} strips: run, follow, download, and use a terminal`, options, async () => {
  const service = await Service.start();
  const proxy = await before(service);
  try {
    const visitor = await browser.visitor({ url: proxy.url });
    const { page } = visitor;
    const way = (await service.wayIn()).replace(`${service.url}/`, proxy.url);
    await page.goto(way);
    await page.locator(".app").waitFor();
    assert.equal(page.url(), `${proxy.url}ui/`);
    await page.getByRole("link", { name: "Run", exact: true }).click();
    await page.getByLabel("Script", { exact: true }).fill("for i in 1 2 3; do echo line $i; sleep 0.2; done; exit 3");
    await page.getByLabel("Name").fill("behind");
    await page.keyboard.press("Control+Enter");
    await page.locator("h1", { hasText: "behind" }).waitFor();
    await page.locator(".title .state", { hasText: "Failed" }).waitFor();
    await until(async () => (await rows(page)).join() === "line 1,line 2,line 3", "three lines");
    assert.ok(page.url().startsWith(`${proxy.url}ui/jobs/`));
    await page.reload();
    await until(async () => (await rows(page)).includes("line 3"), "the same after a reload");
    await page.getByRole("button", { name: "Download" }).click();
    const coming = page.waitForEvent("download");
    await page.getByRole("menuitem", { name: "Both streams", exact: true }).click();
    assert.equal(await readFile(await (await coming).path(), "utf8"), "line 1\nline 2\nline 3\n");
    const job = await service.create({ command: ["sh"], pty: {}, env: { PS1: "> " }, stop: { signal: "SIGHUP" }, name: "shell" });
    await page.goto(`${proxy.url}ui/jobs/${job.id}`);
    await page.getByText("you write").waitFor();
    await page.locator(".xterm-helper-textarea").focus();
    await page.keyboard.type("echo $((6*7))", { delay: 5 });
    await page.keyboard.press("Enter");
    await until(async () => /^42$/m.test(await page.locator(".xterm-rows").innerText()), "the answer");
    await service.api("DELETE", `/jobs/${job.id}?force&wait=30`);
    await visitor.leave();
  } finally {
    await proxy.stop();
    await service.stop();
  }
});

test("without tokens the page goes straight in, and offers no log-out and no tokens", options, async () => {
  const service = await Service.start(["--auth", "none"]);
  const visitor = await browser.visitor(service);
  const { page } = visitor;
  await page.goto(`${service.url}/ui/access`);
  await page.getByText("the service runs with --auth none").waitFor();
  assert.equal(await page.getByRole("button", { name: "Log out" }).count(), 0);
  assert.equal(await page.getByRole("button", { name: "Token", exact: true }).count(), 0);
  await page.goto(`${service.url}/ui/run`);
  await page.getByLabel("Script", { exact: true }).fill("echo open");
  await page.keyboard.press("Control+Enter");
  await until(async () => (await rows(page)).join() === "open", "its output");
  await visitor.leave();
  await service.stop();
});

test("over TLS, with a certificate of an authority that the browser knows: hints, output and a terminal", options, async () => {
  const dir = await mkdtemp(join(tmpdir(), "procession-page-"));
  const { cert, key, home } = await makeAuthority(dir, ["IP:127.0.0.1"]);
  const service = await Service.start(["--tls-cert", cert, "--tls-key", key]);
  const trusting = await Browser.start([], home);
  // Who does not know the authority is not let in, nor is whoever it knows let in under another name.
  const stranger = await browser.visitor(service);
  await assert.rejects(() => stranger.page.goto(`${service.url}/ui/`), /ERR_CERT_AUTHORITY_INVALID/);
  await stranger.leave();
  const elsewhere = await trusting.visitor({ url: service.url.replace("127.0.0.1", "localhost") });
  await assert.rejects(() => elsewhere.page.goto(`${service.url.replace("127.0.0.1", "localhost")}/ui/`), /ERR_CERT_COMMON_NAME_INVALID/);
  await elsewhere.leave();
  const visitor = await trusting.visitor(service);
  const { page } = visitor;
  await page.goto((await service.wayIn()).replace(/^http:/, "https:"));
  await page.locator(".app").waitFor();
  await page.getByText("Live", { exact: true }).waitFor();
  await page.goto(`${service.url}/ui/run`);
  await page.getByRole("button", { name: "Terminal", exact: true }).click();
  await page.getByLabel("Command").fill("sh\n-c\necho over tls; exec sleep 300");
  await page.keyboard.press("Control+Enter");
  await until(async () => /over tls/.test(await page.locator(".xterm-rows").innerText().catch(() => "")), "its terminal");
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.getByRole("button", { name: "Kill at once" }).click();
  await page.locator(".title .state", { hasText: "Canceled" }).waitFor();
  await visitor.leave();
  await trusting.stop();
  await service.stop();
  await rm(dir, { recursive: true, force: true });
});

test("loading, errors, draining and what is gone are told in words", options, async () => {
  const service = await Service.start();
  // A view that asks for no jobs: the first one that does is held.
  const visitor = await browser.signedIn(service, "settings", { allowed: [/status of (404|500|503|507)/] });
  const { page } = visitor;
  let answer = null;
  await page.route((url) => url.pathname === "/jobs", async (route) => {
    if (answer === null) return route.continue();
    if (answer === "slow") {
      await new Promise((done) => { answer = done; });
      answer = null;
      return route.continue();
    }
    return route.fulfill({ status: answer.status, contentType: "application/problem+json", body: JSON.stringify({ type: `urn:procession:problem:${answer.code}`, title: answer.title, status: answer.status, code: answer.code, detail: answer.detail, request_id: "req-1" }) });
  });
  answer = "slow";
  await page.goto(`${service.url}/ui/jobs`);
  await page.getByLabel("Loading").waitFor();
  await until(async () => typeof answer === "function", "the request");
  answer();
  await page.getByText("No job yet").waitFor();
  for (const [status, code, detail] of [[500, "internal", "something broke"], [503, "store_unavailable", "the disk of the state directory fails"]]) {
    answer = { status, code, detail, title: code };
    await page.goto(`${service.url}/ui/jobs`);
    await page.getByText(detail).waitFor();
    await page.getByText(`${code} · request req-1`).waitFor();
    answer = null;
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByText("No job yet").waitFor();
  }
  await page.goto(`${service.url}/ui/run`);
  await page.getByLabel("Script", { exact: true }).fill("true");
  answer = { status: 507, code: "no_room", detail: "there is no space left", title: "no room" };
  await page.locator(".form button[type=submit]").click();
  await page.getByText("there is no space left").waitFor();
  answer = null;
  await service.api("POST", "/drain");
  await page.locator(".form button[type=submit]").click();
  await page.getByText(/drain/i).first().waitFor();
  await page.getByText("Draining: no new job is taken").waitFor();
  await service.api("DELETE", "/drain");
  await page.goto(`${service.url}/ui/jobs/00000000-0000-7000-8000-000000000000`);
  await page.getByText("Removed, or never there").waitFor();
  await page.goto(`${service.url}/ui/jobs?name=nothing`);
  await page.getByText("nothing matches").waitFor();
  await visitor.leave();
  await service.stop();
});

test("the policy of the page stops injected markup and inline styles, and a journey notices", options, async () => {
  const service = await Service.start();
  for (const [what, act] of [
    ["innerHTML", () => { try { document.body.innerHTML = "<img src=x onerror=alert(1)>"; } catch { /* refused */ } }],
    ["an inline style", () => { const one = document.createElement("p"); one.setAttribute("style", "color: red"); document.body.append(one); }],
    ["an inline script", () => { const one = document.createElement("script"); try { one.textContent = "alert(1)"; document.body.append(one); } catch { /* refused */ } }],
  ]) {
    const visitor = await browser.signedIn(service, "jobs");
    await visitor.page.getByText("No job yet").waitFor();
    await visitor.page.evaluate(act);
    await until(async () => (await visitor.page.evaluate(() => document.querySelectorAll("img").length)) === 0, "no image");
    await assert.rejects(() => visitor.leave(), /policy:/, what);
  }
  await service.stop();
});
