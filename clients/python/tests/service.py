"""A real service for tests: the first argument is the program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import procession

PROGRAM = sys.argv.pop(1)
LIMIT = 60


class Service:
    """`procession serve` in a folder of its own; it can be killed and started again."""

    def __init__(self, home: str, *flags: str) -> None:
        self.state, self.address, self.flags = Path(home, "state"), "127.0.0.1:0", flags
        self.log = Path(home, "log")
        self.start()

    def start(self) -> None:
        command = [PROGRAM, "serve", "--listen", self.address, "--state-dir", str(self.state), "--min-free-bytes", "0"]
        command += ["--log-format", "json"]
        command += self.flags
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PROCESSION_")}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "listening on " not in line:
            self.end()
            raise AssertionError((line, self.log.read_text()))
        self.url = json.loads(line)["url"]
        self.address = self.url.removeprefix("http://")
        self.token = (self.state / "token").read_text().strip()

    def end(self) -> None:
        """The supervisor and its servers end; jobs go on with their monitors."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(LIMIT)

    def client(self) -> procession.Client:
        return procession.Client(self.url, self.token)


@contextmanager
def everything_ends(service: Service) -> Iterator[None]:
    # Nothing here may wait for ever.
    watch = threading.Timer(4 * LIMIT, os._exit, [3])
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        # What a failed test has left.
        with service.client() as client:
            for job in client._http.get("/jobs", params={"state": "queued,running"}).json()["jobs"]:
                left = client.job(job["id"])
                left.kill()
                left.wait(LIMIT)
