"""The client for programs without an event loop."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeVar, cast

import httpx

from ._protocol import Command, Handle, Input, JobView, Lines, Patience, Steps, encoded, place, returncode

T = TypeVar("T")


class Client:
    """A service. Without `url` it is the one that `PROCESSION_URL` names, else this user's, by its unix socket."""

    def __init__(self, url: str | None = None, token: str | None = None, *, retry_seconds: float = 60) -> None:
        base, headers, socket = place(url, token)
        transport = httpx.HTTPTransport(uds=socket) if socket else None
        self._http = httpx.Client(base_url=base, headers=headers, transport=transport)
        self._steps = Patience(retry_seconds)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def run(
        self, command: Command, *, input: Input = None, timeout: float | None = None, check: bool = False, **spec: Any
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` with `capture_output` and `text`. The service keeps the timeout, so it holds even if this
        program is killed; `TimeoutExpired` is raised once no process of the job is left."""
        return self._do(self._steps.completed(command, spec, input, timeout, check))

    def popen(self, command: Command, **spec: Any) -> Job:
        """Starts a job: a list is a command, a string a script. `spec` takes every field of a job: `cwd`, `env`, …"""
        return Job(self, self._do(self._steps.create(command, spec)), 0)

    def job(self, id: str) -> Job:
        """A job that exists."""
        return Job(self, self._do(self._steps.look(id)), None)

    def _do(self, steps: Steps[T]) -> T:
        advance = partial(next, steps)
        while True:
            try:
                wish = advance()
            except StopIteration as end:
                return cast(T, end.value)
            if isinstance(wish, float):
                time.sleep(wish)
            try:
                got = None if isinstance(wish, float) else self._http.send(wish.build(self._http))
            except httpx.TransportError as error:
                advance = partial(steps.throw, error)
            else:
                advance = partial(steps.send, got)


class Job(Handle):
    """A job, with the methods of `subprocess.Popen`."""

    def __init__(self, client: Client, view: JobView, written: int | None) -> None:
        super().__init__(view, written)
        self._client, self._steps = client, client._steps

    def poll(self) -> int | None:
        self.view = self._client._do(self._steps.look(self.id))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or `-n` for signal n. After it, no process of the job is left."""
        self.view = self._client._do(self._steps.wait(self.id, timeout))
        return returncode(self.view)

    def send_signal(self, number: int) -> None:
        self._client._do(self._steps.send_signal(self.id, number))

    def terminate(self, **params: Any) -> None:
        """Begins to stop every process: SIGTERM, `grace_seconds`, SIGKILL. Takes the parameters of `DELETE`."""
        self._client._do(self._steps.stop(self.id, params))

    def kill(self) -> None:
        """Begins to kill every process."""
        self.terminate(force="true")

    def write(self, data: bytes | str, *, eof: bool = False) -> None:
        """Writes to a job with `stdin={"mode": "open"}`; returns once its pipe has taken all of it."""
        self._written = self._client._do(self._steps.write(self.id, self._written, encoded(data), eof))

    def communicate(self, input: Input = None, timeout: float | None = None) -> tuple[str, str]:
        """Writes `input` and its end, waits, and returns both outputs."""
        if input is not None:
            self.write(input, eof=True)
        self.wait(timeout)
        return self._client._do(self._steps.outputs(self.id))

    def output(self, stream: str = "stdout") -> bytes:
        """The bytes that a stream has now."""
        return self._client._do(self._steps.output(self.id, stream))

    def lines(self, stream: str = "all") -> Iterator[str]:
        """Every line as it comes, from the first on, until the job has ended."""
        lines, http = Lines(self.id, stream), self._client._http
        self._steps.calm()
        while not lines.ended:
            try:
                response = http.send(lines.request().build(http), stream=True)
                try:
                    if not response.is_success:
                        response.read()
                    lost: Exception | None = self._steps.judge(response)
                    for record in response.iter_lines() if lost is None else ():
                        self._steps.calm()
                        yield from lines.feed(record)
                finally:
                    response.close()
            except httpx.TransportError as error:
                lost = error
            if lost is not None:
                time.sleep(self._steps.lose(lost))

    def __iter__(self) -> Iterator[str]:
        return self.lines()


def run(command: Command, **options: Any) -> subprocess.CompletedProcess[str]:
    """`Client().run`, on the service that the environment names."""
    with Client() as client:
        return client.run(command, **options)
