"""The package on a real service: test_client.py PROGRAM."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
import unittest
import warnings
from pathlib import Path

import procession
from service import LIMIT, Service, everything_ends


class Case(unittest.TestCase):
    service: Service

    @classmethod
    def setUpClass(cls) -> None:
        home = tempfile.TemporaryDirectory()
        cls.addClassCleanup(home.cleanup)
        cls.service = Service(home.name)
        cls.addClassCleanup(cls.service.end)
        cls.enterClassContext(everything_ends(cls.service))

    def setUp(self) -> None:
        self.client = self.enterContext(self.service.client())


class Run(Case):
    def test_run_is_as_that_of_subprocess(self) -> None:
        script = "cat; echo wrong >&2; exit 3"
        here = subprocess.run(["sh", "-c", script], input="in\n", capture_output=True, text=True)
        there = self.client.run(["sh", "-c", script], input="in\n", timeout=LIMIT)
        self.assertEqual(repr(there), repr(here))

    def test_a_string_is_a_script_and_fields_of_a_job_are_passed(self) -> None:
        done = self.client.run("pwd; echo $WHO", cwd="/usr", env={"WHO": "me"}, labels={"a": "b"}, check=True)
        self.assertEqual(done.stdout, "/usr\nme\n")

    def test_failures_are_those_of_subprocess(self) -> None:
        with self.assertRaises(FileNotFoundError):
            self.client.run(["/no/such/program"])
        with self.assertRaises(PermissionError):
            self.client.run(["/etc/passwd"])
        with self.assertRaises(subprocess.CalledProcessError) as failed:
            self.client.run("echo out; exit 4", check=True)
        self.assertEqual((failed.exception.returncode, failed.exception.output), (4, "out\n"))
        self.assertEqual(self.client.run("kill -9 $$").returncode, -9)

    def test_a_timeout_ends_the_whole_tree(self) -> None:
        with self.assertRaises(subprocess.TimeoutExpired) as late:
            self.client.run("setsid sleep 1000 & echo $!; wait", timeout=0.3, stop={"grace_seconds": 0})
        assert late.exception.output
        self.assertFalse(Path(f"/proc/{int(late.exception.output)}").exists())

    def test_bytes_that_are_no_text_are_kept(self) -> None:
        data = bytes(range(256))
        done = self.client.run(["cat"], input=data)
        self.assertEqual(os.fsencode(done.stdout), data)

    def test_what_the_service_refuses_has_its_code(self) -> None:
        with self.assertRaises(procession.Refused) as refused:
            self.client.run(["true"], nice=77)
        self.assertEqual((refused.exception.status, refused.exception.code), (422, "invalid_spec"))

    def test_the_environment_and_the_socket_lead_to_the_service(self) -> None:
        os.environ["PROCESSION_STATE_DIR"] = str(self.service.state)
        self.addCleanup(os.environ.pop, "PROCESSION_STATE_DIR")
        self.assertEqual(procession.run(["echo", "socket"]).stdout, "socket\n")

    def test_output_that_is_no_longer_kept_is_said(self) -> None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self.client.run("seq 100000", output={"max_bytes": 4096})
        self.assertEqual({it.category for it in said}, {procession.OutputDropped})


class Handles(Case):
    def test_a_handle_is_like_popen(self) -> None:
        job = self.client.popen(["cat"], stdin={"mode": "open"})
        self.assertIsNone(job.poll())
        assert job.pid
        self.assertTrue(Path(f"/proc/{job.pid}").exists())
        self.assertEqual(job.communicate("one\n", LIMIT), ("one\n", ""))
        self.assertEqual((job.poll(), job.returncode), (0, 0))
        job.send_signal(signal.SIGTERM)  # Has ended: nothing happens.

    def test_signals_arrive(self) -> None:
        job = self.client.popen("trap 'echo usr1; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
        lines = iter(job)
        self.assertEqual(next(lines), "ready\n")
        job.send_signal(signal.SIGUSR1)
        self.assertEqual((next(lines), job.wait(LIMIT)), ("usr1\n", 5))

    def test_wait_has_a_timeout_and_leaves_the_job(self) -> None:
        job = self.client.popen(["sleep", "1000"])
        with self.assertRaises(subprocess.TimeoutExpired):
            job.wait(0.1)
        self.assertIsNone(job.poll())
        job.terminate(reason="enough")
        self.assertEqual(job.wait(LIMIT), -signal.SIGTERM)
        self.assertEqual(job.view["termination"]["reason"], "enough")

    def test_kill_reaches_what_ignores_sigterm(self) -> None:
        job = self.client.popen("trap '' TERM; setsid sleep 1000 & echo $!; wait")
        child = int(next(iter(job)))
        job.kill()
        self.assertEqual(job.wait(LIMIT), -signal.SIGKILL)
        self.assertFalse(Path(f"/proc/{child}").exists())

    def test_lines_of_both_streams_come_whole(self) -> None:
        job = self.client.popen("printf 'a'; printf 'err\\n' >&2; printf 'b\\nlast'")
        self.assertEqual(sorted(job), ["ab\n", "err\n", "last"])
        self.assertEqual(list(job.lines("stderr")), ["err\n"])

    def test_a_job_that_never_ran_has_no_exit_code(self) -> None:
        first = self.client.popen(["sleep", "1000"], concurrency={"key": "one"})
        second = self.client.popen(["true"], concurrency={"key": "one"})
        self.assertIsNone(second.pid)
        second.kill()
        with self.assertRaises(procession.NoExitCode):
            second.wait(LIMIT)
        first.kill()
        first.wait(LIMIT)


class Restarts(Case):
    def test_a_handle_survives_the_service(self) -> None:
        script = "read one; echo got $one; read two; echo got $two; exit 6"
        job = self.client.popen(script, stdin={"mode": "open"})
        lines = iter(job)
        job.write("1\n")
        self.assertEqual(next(lines), "got 1\n")
        self.service.end()
        back = threading.Thread(target=self.service.start)
        waited: list[int] = []
        waiter = threading.Thread(target=lambda: waited.append(self.client.job(job.id).wait(LIMIT)))
        waiter.start()
        back.start()
        job.write("2\n")
        self.assertEqual((list(lines), job.wait(LIMIT)), (["got 2\n"], 6))
        back.join(LIMIT)
        waiter.join(LIMIT)
        self.assertEqual(waited, [6])

    def test_a_handle_survives_the_program(self) -> None:
        job = self.client.popen("while read line; do echo got $line; done", stdin={"mode": "open"})
        job.write("1\n")
        with self.service.client() as another:
            same = another.job(job.id)
            same.write("2\n")
            self.assertEqual(same.communicate("3\n", LIMIT), ("got 1\ngot 2\ngot 3\n", ""))

    def test_a_service_that_was_never_there_is_not_waited_for(self) -> None:
        with procession.Client("http://127.0.0.1:1", "token") as client:
            with self.assertRaisesRegex(procession.ProcessionError, "cannot be reached"):
                client.run(["true"])


class Async(Case):
    def test_everything_also_works_in_an_event_loop(self) -> None:
        async def use() -> None:
            async with procession.AsyncClient(self.service.url, self.service.token) as client:
                done, other = await asyncio.gather(client.run("echo a"), client.run(["cat"], input="b"))
                self.assertEqual((done.stdout, other.stdout), ("a\n", "b"))
                job = await client.popen("trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done")
                async for line in job:
                    self.assertEqual(line, "ready\n")
                    self.assertIsNone(await job.poll())
                    await job.send_signal(signal.SIGUSR1)
                self.assertEqual(await job.wait(LIMIT), 5)
                job = await client.popen(["cat"], stdin={"mode": "open"})
                self.assertEqual(await job.communicate("x", LIMIT), ("x", ""))
                job = await client.popen(["sleep", "1000"])
                await job.kill()
                self.assertEqual(await job.wait(LIMIT), -signal.SIGKILL)
                with self.assertRaises(subprocess.TimeoutExpired):
                    await client.run(["sleep", "1000"], timeout=0.2)

        asyncio.run(use())


if __name__ == "__main__":
    unittest.main()
