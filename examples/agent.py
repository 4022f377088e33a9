#!/usr/bin/env python3
"""What an agent does with a service, as a script: it runs a test suite that fails, reads the end of the output, repairs
the code, runs the suite again, uses a server that it has started, stops it, and leaves nothing behind.

    pip install mcp
    procession serve &
    examples/agent.py
"""

import argparse
import os
import re
import shutil
import tempfile
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters, stdio_client

BROKEN = "def add(a, b):\n    return a - b\n"
REPAIRED = "def add(a, b):\n    return a + b\n"
TESTS = """
import sys
import unittest
from sums import add


class Sums(unittest.TestCase):
    def test_many(self):
        for number in range(2000):
            print("looking at", number, file=sys.stderr)
        self.assertEqual(add(2, 3), 5)


unittest.main()
"""


async def call(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    text = result.content[0].text
    print(f"--- {tool}\n{text[-600:]}")
    return text.splitlines()[0], result.structured_content


async def work(client, project):
    # The suite fails. Its output is more than the answer takes, so that beginning and end are shown.
    suite = dict(command=["python3", "-B", "tests.py"], cwd=str(project), output_bytes=2000, name="suite")
    verdict, seen = await call(client, "run_command", **suite)
    assert verdict.startswith("exited with code 1"), verdict
    assert seen["truncated"] and "AssertionError: -1 != 5" in seen["output"], seen

    # The last lines say what is wrong.
    _, end = await call(client, "read_output", job_id=seen["job_id"], tail_lines=8)
    assert re.search(r"FAILED \(failures=1\)", end["output"]), end

    (project / "sums.py").write_text(REPAIRED)
    verdict, seen = await call(client, "run_command", **suite)
    assert verdict.startswith("exited with code 0"), verdict

    # A server goes on after the call that has started it.
    server = ["python3", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    _, seen = await call(client, "run_command", command=server, cwd=str(project), timeout_seconds=0, wait_seconds=0)
    job = seen["job_id"]
    _, heard = await call(client, "wait_for_job", job_id=job, until="output", offset=0)
    port = re.search(r"port (\d+)", heard["output"])[1]
    fetch = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/sums.py').read().decode())"
    _, fetched = await call(client, "run_command", command=["python3", "-c", fetch])
    assert REPAIRED in fetched["output"], fetched

    verdict, _ = await call(client, "stop_job", job_id=job, reason="the work is done")
    assert verdict == "stopped; no process is left", verdict
    _, listed = await call(client, "list_jobs", state="queued,starting,running,paused,stopping")
    assert listed["jobs"] == [], listed


async def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--program", default=shutil.which("procession") or "procession")
    program = options.parse_args().program
    found = {name: value for name, value in os.environ.items() if name.startswith(("PROCESSION_", "XDG_", "HOME"))}
    server = stdio_client(StdioServerParameters(command=program, args=["mcp", "--stop-on-exit"], env=found))
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        project.chmod(0o755)
        (project / "sums.py").write_text(BROKEN)
        (project / "tests.py").write_text(TESTS)
        async with Client(server) as client:
            await work(client, project)
    print("--- done; nothing is left")


anyio.run(main)
