// nginx and Caddy, set up by the lines of docs/page.md and nothing else.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, until } from "./harness.mjs";

/** The block of this language in the page's document, for a service at another address. */
async function lines(language, service) {
  const text = await readFile(join(root, "docs/page.md"), "utf8");
  const found = new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(text);
  assert.ok(found, `docs/page.md has no block of ${language}`);
  const out = found[1].replaceAll("127.0.0.1:8080", new URL(service.url).host);
  assert.notEqual(out, found[1]);
  return out;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class Reverse {
  static async nginx(service) {
    return await Reverse.start(async (home, port) => {
      const [map, server] = (await lines("nginx", service)).split(/(?=^server)/m);
      const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((one) => `${one}_temp_path ${home}/${one};`).join(" ");
      await writeFile(join(home, "conf"), `daemon off; pid ${home}/pid; error_log ${home}/log; events {}\nhttp { access_log off; ${temporary}\n${map}${server.replace("{", `{ listen 127.0.0.1:${port};`)} }`);
      return ["nginx", "-e", join(home, "log"), "-c", join(home, "conf")];
    });
  }

  static async caddy(service) {
    return await Reverse.start(async (home, port) => {
      const text = (await lines("caddyfile", service)).replace(/^jobs\.example /m, `http://127.0.0.1:${port} `);
      assert.match(text, /^http:/m);
      await writeFile(join(home, "Caddyfile"), `{\n\tadmin off\n}\n${text}`);
      return ["caddy", "run", "--config", join(home, "Caddyfile"), "--adapter", "caddyfile"];
    });
  }

  static async start(prepare) {
    const reverse = new Reverse();
    reverse.home = await mkdtemp(join(tmpdir(), "procession-page-"));
    // As root, nginx works as another user.
    await chmod(reverse.home, 0o777);
    // Between the choice of a port and its use somebody else may take it.
    for (let tries = 0; reverse.url === undefined; tries++) {
      const port = await freePort();
      const [program, ...args] = await prepare(reverse.home, port);
      const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin`, HOME: reverse.home, XDG_DATA_HOME: reverse.home, XDG_CONFIG_HOME: reverse.home } });
      let said = "";
      child.stderr.on("data", (text) => { said += text; });
      const failed = once(child, "error").then(([error]) => { throw new Error(`${program} is there: ${error.message}`); });
      failed.catch(() => undefined);
      const answers = until(async () => child.exitCode !== null || (await fetch(`http://127.0.0.1:${port}/tools/procession/healthz`).then((answer) => answer.ok, () => false)), program);
      await Promise.race([failed, answers]);
      reverse.child = child;
      if (child.exitCode === null) reverse.url = `http://127.0.0.1:${port}/tools/procession/`;
      else if (tries === 3) assert.fail(said);
    }
    return reverse;
  }

  async stop() {
    this.child.kill("SIGTERM");
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "exit");
    this.child.stderr.destroy();
    await rm(this.home, { recursive: true, force: true });
  }
}
