// A real service and a real browser for each file of journeys.
//
// A console error, a violation of the content security policy, an exception or a request to another origin fails the
// journey in which it happens.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

export const root = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../..");
const require = createRequire(join(root, "web/package.json"));
const { chromium } = require("playwright-core");
export const axe = require.resolve("axe-core");

export const PROGRAM = process.env.PROCESSION_PROGRAM ?? join(root, "target/debug/procession");
const CHROMIUM = process.env.PROCESSION_CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** How long anything may take. */
export const LIMIT = 30_000;

const run = promisify(execFile);

export class Service {
  /** With a state directory of its own, or one that a service before it has left. */
  static async start(args = [], dir = null) {
    dir ??= await mkdtemp(join(tmpdir(), "procession-page-"));
    const service = new Service();
    service.dir = dir;
    service.child = spawn(PROGRAM, ["serve", "--listen", "127.0.0.1:0", "--state-dir", dir, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    service.log = "";
    service.child.stderr.on("data", (text) => { service.log += text; });
    for await (const line of createInterface({ input: service.child.stdout })) {
      const found = /"listening on (https?:\/\/[^"]+)"/.exec(line);
      if (found) {
        service.url = found[1];
        break;
      }
    }
    service.child.stdout.resume();
    assert.ok(service.url, `the service did not start: ${service.log}`);
    service.token = (await readFile(join(dir, "token"), "utf8").catch(() => "")).trim();
    return service;
  }

  async stop() {
    // A journey that failed may have left jobs, and they outlive the service.
    const left = await this.api("GET", "/jobs?state=queued,starting,running,paused,stopping&page_size=1000").then((answer) => answer.json(), () => ({ jobs: [] }));
    await Promise.all(left.jobs.map((job) => this.api("DELETE", `/jobs/${job.id}?force&wait=30`)));
    this.child.kill("SIGTERM");
    if (this.child.exitCode === null) await once(this.child, "exit");
    this.child.stdout.destroy();
    this.child.stderr.destroy();
    await rm(this.dir, { recursive: true, force: true });
  }

  async cli(...args) {
    const { stdout } = await run(PROGRAM, [...args, "--state-dir", this.dir], { timeout: LIMIT });
    return stdout;
  }

  /** An address that signs a browser in, once. */
  async wayIn(...args) {
    return (await this.cli("open", "--print", ...args)).trim();
  }

  async api(method, path, body, headers = {}) {
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.token}`, ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return response;
  }

  async create(spec) {
    const response = await this.api("POST", "/jobs", spec);
    assert.equal(response.status, 201, await response.clone().text());
    return await response.json();
  }

  async job(id, query = "") {
    return await (await this.api("GET", `/jobs/${id}${query}`)).json();
  }

  async finished(id) {
    const job = await this.job(id, "?wait=30");
    assert.ok(job.finished_at, `job ${id} is ${job.state}`);
    return job;
  }

  /** Kills the service as a machine does that loses its power; its jobs are left to themselves. */
  async crash() {
    const { server_pid: server, supervisor_pid: supervisor } = await (await this.api("GET", "/info")).json();
    // Neither of them may see the other go: a server without its supervisor gives back what it has not started.
    process.kill(supervisor, "SIGSTOP");
    for (const pid of [server, supervisor]) process.kill(pid, "SIGKILL");
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "exit");
    this.child.stdout.destroy();
    this.child.stderr.destroy();
  }

  /** Kills the server; the supervisor starts another one. */
  async killServer() {
    const { server_pid: pid } = await (await this.api("GET", "/info")).json();
    process.kill(pid, "SIGKILL");
    await until(async () => {
      const info = await this.api("GET", "/info").then((answer) => answer.json(), () => null);
      return info !== null && info.server_pid !== pid;
    }, "another server");
  }
}

/** Until a condition holds, or it took too long. */
export async function until(condition, what, limit = LIMIT) {
  const end = Date.now() + limit;
  for (;;) {
    if (await condition()) return;
    if (Date.now() > end) assert.fail(`waited in vain for ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

export class Browser {
  /** With a home of its own, or the usual one. */
  static async start(flags = [], home = null) {
    const browser = new Browser();
    const env = { ...process.env, ...(home === null ? {} : { HOME: home, XDG_DATA_HOME: join(home, ".local/share") }) };
    browser.inner = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: [...FLAGS, ...flags], env });
    return browser;
  }

  async stop() {
    await this.inner.close();
  }

  /** A browser without history, and its first tab. `allowed`: console errors that belong to the journey. */
  async visitor(service, { allowed = [], ...options } = {}) {
    const context = await this.inner.newContext({ viewport: { width: 1440, height: 900 }, acceptDownloads: true, ...options });
    context.setDefaultTimeout(LIMIT);
    const wrong = [];
    const watch = (page) => {
      page.on("console", (message) => {
        if (message.type() !== "error" && message.type() !== "warning") return;
        if (!allowed.some((pattern) => pattern.test(message.text()))) wrong.push(`console: ${message.text()} (${message.location().url})`);
      });
      page.on("pageerror", (error) => wrong.push(`exception: ${error.stack}`));
      page.on("dialog", (dialog) => {
        wrong.push(`dialog: ${dialog.message()}`);
        void dialog.dismiss();
      });
      page.on("request", (request) => {
        const url = new URL(request.url());
        const origin = url.protocol.startsWith("ws") ? `http${url.protocol.slice(2)}//${url.host}` : url.origin;
        if (url.protocol !== "data:" && url.protocol !== "blob:" && origin !== new URL(service.url).origin) wrong.push(`request to ${request.url()}`);
      });
    };
    context.on("page", watch);
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
    });
    const page = await context.newPage();
    return {
      context,
      page,
      async leave() {
        await context.close();
        assert.deepEqual(wrong, []);
      },
    };
  }

  /** The same, signed in. */
  async signedIn(service, path = "", options = {}) {
    const visitor = await this.visitor(service, options);
    await visitor.page.goto(await service.wayIn());
    await visitor.page.locator(".app").waitFor();
    if (path !== "") await visitor.page.goto(`${service.url}/ui/${path}`);
    return visitor;
  }
}

/** The rows of the log that are seen, as text. */
export async function rows(page) {
  return await page.locator(".lines .l .x").allTextContents();
}

/** Of them, those that are in view as a whole. */
export async function seen(page) {
  return (await page.evaluate(() => {
    const box = document.querySelector(".lines")?.getBoundingClientRect();
    if (!box) return [];
    return [...document.querySelectorAll(".lines .l")].filter((row) => {
      const { top, bottom } = row.getBoundingClientRect();
      return top >= box.top - 1 && bottom <= box.bottom + 1;
    }).map((row) => row.querySelector(".x").textContent);
  }));
}

/** Are there rows down to the lower edge? They come a frame after the place has changed. */
export function isFilled(page) {
  return page.evaluate(() => {
    const box = document.querySelector(".lines").getBoundingClientRect();
    const row = [...document.querySelectorAll(".lines .l")].at(-1)?.getBoundingClientRect();
    return row !== undefined && row.bottom > box.bottom - row.height;
  });
}
