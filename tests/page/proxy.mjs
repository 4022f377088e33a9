// A reverse proxy as people have one before the service: a path that it strips, `Host` kept, upgrades passed on.

import { once } from "node:events";
import { createServer, request } from "node:http";
import { connect } from "node:net";

export class Proxy {
  /** Leads `http://127.0.0.1:PORT` + prefix to the service. `instead` may answer a path of the service itself. */
  static async start(target, prefix, instead = async () => null) {
    const proxy = new Proxy();
    const { hostname, port } = new URL(target);
    const inside = (url) => (url.startsWith(prefix) ? `/${url.slice(prefix.length)}` : null);
    proxy.open = new Set();
    proxy.server = createServer(async (from, to) => {
      const path = inside(from.url);
      if (path === null) return to.writeHead(404).end();
      const own = await instead(path);
      if (own !== null) return to.writeHead(200, own.headers).end(own.body);
      const asked = request({ hostname, port, path, method: from.method, headers: from.headers }, (answer) => {
        to.writeHead(answer.statusCode, answer.headers);
        answer.pipe(to);
      });
      asked.on("error", () => (to.headersSent ? to.destroy() : to.writeHead(502).end()));
      to.on("close", () => asked.destroy());
      from.pipe(asked);
    });
    proxy.server.on("connection", (socket) => {
      proxy.open.add(socket);
      socket.on("close", () => proxy.open.delete(socket));
    });
    proxy.server.on("upgrade", (from, socket, head) => {
      const path = inside(from.url);
      if (path === null) return socket.destroy();
      const behind = connect(Number(port), hostname, () => {
        const lines = from.rawHeaders.reduce((all, word, i) => all + (i % 2 === 0 ? `${word}: ` : `${word}\r\n`), "");
        behind.write(`GET ${path} HTTP/1.1\r\n${lines}\r\n`);
        behind.write(head);
        behind.pipe(socket).pipe(behind);
      });
      for (const [one, other] of [[behind, socket], [socket, behind]]) one.on("error", () => other.destroy()).on("close", () => other.destroy());
    });
    proxy.server.listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}${prefix}`;
    return proxy;
  }

  async stop() {
    for (const socket of this.open) socket.destroy();
    this.server.close();
    await once(this.server, "close");
  }
}
