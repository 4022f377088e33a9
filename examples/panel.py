"""The "run and show" page of a web control panel: a button starts a command, and its output appears as it is written.

    panel.py PORT

The token stays on the server. The browser reads an event stream that continues by itself after a break, a restart of
this program included: the service's event ids are offsets, and the browser sends the last one back.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

# What the panel offers; a browser chooses one, and never sends a command.
COMMANDS = {"disk": ["df", "-h", "/"], "count": ["sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.1; done"]}

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Panel</title>
<p>%s <button id="stop" disabled>Stop</button></p><pre id="output"></pre><p id="state"></p>
<script>
const output = document.getElementById("output"), state = document.getElementById("state"), stop = document.getElementById("stop");
let job;
async function run(name) {
  job = await (await fetch("/run/" + name, {method: "POST"})).text();
  output.textContent = ""; state.textContent = "running"; stop.disabled = false;
  const events = new EventSource("/jobs/" + job);
  events.addEventListener("output", e => {
    const it = JSON.parse(e.data);
    output.textContent += it.text ?? atob(it.base64);
  });
  events.addEventListener("end", e => {
    const it = JSON.parse(e.data);
    state.textContent = it.state + (it.exit ? ", exit code " + it.exit.code : "");
    stop.disabled = true; events.close();
  });
}
stop.onclick = () => fetch("/jobs/" + job, {method: "DELETE"});
for (const it of document.querySelectorAll("button[value]")) it.onclick = () => run(it.value);
</script></html>
""" % " ".join(f'<button value="{name}">{name}</button>' for name in COMMANDS)

service = httpx.Client(
    base_url=os.environ.get("PROCESSION_URL", "http://127.0.0.1:8080"),
    headers={"Authorization": f"Bearer {os.environ['PROCESSION_TOKEN']}"},
    timeout=None,
)


class Panel(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/":
            return self.answer(200, PAGE.encode(), "text/html; charset=utf-8")
        headers = {"Accept": "text/event-stream"}
        if last := self.headers.get("Last-Event-ID"):
            headers["Last-Event-ID"] = last
        with service.stream("GET", f"{self.job()}/output", headers=headers) as events:
            self.send_response(events.status_code)
            self.send_header("Content-Type", events.headers.get("content-type", "text/plain"))
            self.send_header("Connection", "close")
            self.end_headers()
            for piece in events.iter_raw():
                self.wfile.write(piece)
        self.close_connection = True

    def do_POST(self) -> None:
        command = COMMANDS.get(self.path.removeprefix("/run/"))
        if command is None:
            return self.answer(404, b"")
        body = {"command": command, "labels": {"app": "panel"}, "timeout_seconds": 600}
        answer = service.post("/jobs", json=body)
        self.answer(answer.status_code, answer.json().get("id", "").encode())

    def do_DELETE(self) -> None:
        self.answer(service.delete(self.job(), params={"reason": "panel"}).status_code, b"")

    def job(self) -> str:
        id = self.path.removeprefix("/jobs/")
        return "/jobs/" + "".join(letter for letter in id if letter in "0123456789abcdef-")

    def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        print(json.dumps([self.command, self.path]), file=sys.stderr)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Panel)
    print("listening on", server.server_address[1], flush=True)
    server.serve_forever()
