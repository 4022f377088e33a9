"""Each example on a real service: test_examples.py PROGRAM."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

from service import LIMIT, PROGRAM, Service, everything_ends

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

# What the clients in TypeScript and Go print of what they are used for.
CLIENTS_SAY = '"1\\n2\\n3\\n" failed 3\ncanceled\ninvalid_spec\n'


class Case(unittest.TestCase):
    service: Service
    flags: tuple[str, ...] = ()

    @classmethod
    def setUpClass(cls) -> None:
        home = tempfile.TemporaryDirectory()
        cls.addClassCleanup(home.cleanup)
        cls.home = Path(home.name)
        cls.service = Service(home.name, *cls.flags)
        cls.addClassCleanup(cls.service.end)
        cls.enterClassContext(everything_ends(cls.service))
        program = str(Path(PROGRAM).resolve().parent)
        cls.environment = {
            **os.environ,
            "PATH": f"{program}:{os.environ['PATH']}",
            "PROCESSION_STATE_DIR": str(cls.service.state),
        }
        cls.address = {"PROCESSION_URL": cls.service.url, "PROCESSION_TOKEN": cls.service.token}

    def setUp(self) -> None:
        self.client = self.enterContext(self.service.client())

    def run_example(self, *line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *line] if line[0].endswith(".py") else [*line]
        return subprocess.run(
            command, cwd=EXAMPLES, env={**self.environment, **variables}, capture_output=True, text=True, timeout=LIMIT
        )

    def start(self, *line: str, **variables: str) -> tuple[subprocess.Popen[str], int]:
        """A server; it prints its port."""
        command = [sys.executable, *line]
        environment = {**self.environment, **variables}
        server = subprocess.Popen(command, cwd=EXAMPLES, env=environment, stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (server.kill(), server.wait(), server.stdout and server.stdout.close()))
        assert server.stdout is not None
        return server, int(server.stdout.readline().split()[-1])


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fetch(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Examples(Case):
    def test_sessions_are_as_the_page_says(self) -> None:
        ran = self.run_example("sessions.py")
        page = (ROOT / "docs/sessions.md").read_text()
        self.assertEqual(ran.stdout, page.split("```text\n")[1].split("```")[0], ran.stderr)

    def test_flask_app(self) -> None:
        os.environ |= self.address
        app = load("flask_app").app.test_client()
        job = app.post("/commands/report").get_json()
        self.assertEqual(app.get(f"/commands/{job['id']}/output").get_data(as_text=True), "collecting\ndone\n")
        self.client.job(job["id"]).wait(LIMIT)
        self.assertEqual(app.get(f"/commands/{job['id']}").get_json(), {"state": "succeeded", "returncode": 0})
        job = app.post("/commands/serve").get_json()
        self.assertTrue(Path(f"/proc/{job['pid']}").exists())
        again = app.post("/commands/serve")
        self.assertEqual((again.status_code, again.get_json()), (409, {"error": "concurrency_conflict"}))
        self.assertEqual(app.delete(f"/commands/{job['id']}").get_json(), {"returncode": -15})
        self.assertEqual(app.post("/commands/other").status_code, 404)

    def test_ci_worker(self) -> None:
        ran = self.run_example("ci_worker.py", "main", "/usr", "pwd", "echo out; echo err >&2", **self.address)
        self.assertEqual(ran.stdout, "[1/2] pwd\n    /usr\n[2/2] echo out; echo err >&2\n    out\n    err\npassed\n", ran.stderr)
        ran = self.run_example("ci_worker.py", "main", "/", "exit 3", "echo never", **self.address)
        self.assertEqual((ran.returncode, "exited" in ran.stdout, "never" in ran.stdout), (1, True, False), ran)

    def test_nightly(self) -> None:
        first = self.run_example("./nightly.sh", "sleep", "1000")
        self.assertEqual(first.returncode, 0, first)
        second = self.run_example("./nightly.sh", "sleep", "1000")
        self.assertEqual(second.returncode, 125, second)
        self.assertIn(first.stdout.strip(), second.stderr)
        job = self.client.job(first.stdout.strip())
        self.assertEqual((job.view["spec"]["timeout_seconds"], job.view["labels"]), (7200, {"cron": "nightly"}))
        job.kill()
        job.wait(LIMIT)

    def test_agent_tool(self) -> None:
        os.environ |= self.address
        tool = load("agent_tool")
        tool.URL = self.service.url
        done = tool.call("echo hello; exit 3")
        self.assertEqual((done["state"], done["exit_code"], done["output"]), ("failed", 3, "hello\n"))
        late = tool.call("echo begun; sleep 1000", timeout_seconds=1)
        self.assertEqual((late["state"], late["output"]), ("timed_out", "begun\n"))
        long = tool.call("seq 10000")
        self.assertEqual((len(long["output"]), long["output"][-6:]), (8000, "10000\n"))
        self.assertIn("left out", long["note"])
        self.assertIn("timeout_seconds", tool.call("true", timeout_seconds=-1)["error"])

    def test_panel(self) -> None:
        _, port = self.start("panel.py", "0", **self.address)
        base = f"http://127.0.0.1:{port}"
        self.assertIn(b'value="count"', fetch("GET", base)[1])
        self.assertEqual(fetch("POST", f"{base}/run/rm")[0], 404)
        status, id = fetch("POST", f"{base}/run/count")
        self.assertEqual(status, 201)
        status, events = fetch("GET", f"{base}/jobs/{id.decode()}")
        data = [json.loads(line[6:]) for line in events.decode().splitlines() if line.startswith("data: {")]
        text = "".join(it.get("text", "") for it in data)
        self.assertEqual((text, data[-1]["type"], data[-1]["exit"]["code"]), ("line 1\nline 2\nline 3\n", "end", 0))
        # Where a browser goes on after a break.
        last = re.findall(r"^id: ?(.*)$", events.decode(), re.MULTILINE)[-1]
        self.assertEqual(fetch("GET", f"{base}/jobs/{id.decode()}", headers={"Last-Event-ID": last})[0], 204)

    def test_jupyter_kernel(self) -> None:
        from jupyter_client.blocking.client import BlockingKernelClient

        file = str(self.home / "kernel.json")
        started = self.run_example("jupyter_kernel.py", "start", file)
        id = started.stdout.strip()
        self.assertTrue(id, started.stderr)
        # A client that is there before the kernel takes it for dead after a second.
        ports = json.loads(Path(file).read_text())
        until = time.monotonic() + LIMIT
        while True:
            try:
                socket.create_connection((ports["ip"], ports["hb_port"]), timeout=LIMIT).close()
                break
            except OSError:
                self.assertLess(time.monotonic(), until)
                time.sleep(0.05)
        kernel = BlockingKernelClient(connection_file=file)
        kernel.load_connection_file()
        kernel.start_channels()
        self.addCleanup(kernel.stop_channels)
        kernel.wait_for_ready(timeout=LIMIT)
        answers: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            answers.append(content.get("text", "") or content.get("ename", ""))
            if "looping" in content.get("text", ""):
                self.run_example("jupyter_kernel.py", "interrupt", id)

        kernel.execute_interactive("print(6 * 7)", output_hook=hear, timeout=LIMIT)
        loop = "import time; print('looping', flush=True); time.sleep(1000)"
        kernel.execute_interactive(loop, output_hook=hear, timeout=LIMIT)
        said = "".join(answers)
        self.assertTrue("42" in said and "KeyboardInterrupt" in said, said)
        self.run_example("jupyter_kernel.py", "stop", id)
        self.assertEqual(self.client.job(id).view["state"], "canceled")

    def test_typescript(self) -> None:
        tools = ROOT / "web/node_modules/.bin"
        if not tools.exists():
            self.skipTest("needs `npm ci` in web/")
        ran = self.run_example(str(tools / "tsc"), "-p", "typescript")
        self.assertEqual(ran.returncode, 0, ran.stdout)
        made = str(self.home / "use.mjs")
        bundle = ("--bundle", "--format=esm", "--platform=node", "--log-level=error", f"--outfile={made}")
        ran = self.run_example(str(tools / "esbuild"), "typescript/use.ts", *bundle)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        ran = self.run_example("node", made, **self.address)
        self.assertEqual(ran.stdout, CLIENTS_SAY, ran.stderr)

    def test_go(self) -> None:
        made = str(self.home / "use")
        build = {"GOFLAGS": "-buildvcs=false", "GOCACHE": str(self.home / "cache")}
        ran = self.run_example("go", "build", "-o", made, "go/main.go", "go/procession.go", **build)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        ran = self.run_example(made, **self.address)
        self.assertEqual(ran.stdout, CLIENTS_SAY, ran.stderr)


class Webhooks(Case):
    flags = ("--webhook-allow-private",)

    def test_webhook_receiver(self) -> None:
        secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        server, port = self.start("webhook_receiver.py", "0", secret)
        url = f"http://127.0.0.1:{port}/"
        hook = {"url": url, "events": ["job.finished"], "secret": secret}
        job = self.client.popen(["false"], webhooks=[hook])
        assert server.stdout is not None
        self.assertEqual(server.stdout.readline(), f"job.finished {job.id} failed\n")
        self.assertEqual(fetch("POST", url, b"{}")[0], 401)
        receiver, body, now = load("webhook_receiver"), b'{"type":"x"}', time.time()
        headers = {"webhook-id": "1", "webhook-timestamp": str(int(now)), "webhook-signature": "v1,AAAA"}
        self.assertFalse(receiver.is_genuine(secret, headers, body, now))


class All(unittest.TestCase):
    def test_every_example_has_a_row_and_a_test(self) -> None:
        files = [it.relative_to(EXAMPLES) for it in EXAMPLES.rglob("*") if it.suffix in (".py", ".sh", ".go")]
        # That of agents has its packages, and its test, in tests/mcp.
        tests = "".join(it.read_text() for it in (Path(__file__), ROOT / "tests/mcp/run.sh"))
        table = (EXAMPLES / "README.md").read_text()
        for file in files:
            self.assertIn(f"]({file})", table)
            self.assertTrue(str(file) in tests or f'load("{file.stem}")' in tests, file)


if __name__ == "__main__":
    unittest.main()
