"""What both clients do, without input or output of its own.

Each operation is a generator: it yields a request, or a number of seconds to pause, and gets the response or the
error. `Client` and `AsyncClient` carry out what it yields.
"""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import time
import uuid
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx

T = TypeVar("T")
Command = str | Sequence[str]
Input = bytes | str | None
JobView = dict[str, Any]
HOLD, PAUSE, LONGEST_PAUSE = 25.0, 0.05, 2.0


class ProcessionError(Exception):
    """The service refused a request, or cannot be reached."""


class Refused(ProcessionError):
    """The service answered with a problem; `code` is stable."""

    def __init__(self, response: httpx.Response) -> None:
        is_problem = "problem+json" in response.headers.get("content-type", "")
        self.problem: dict[str, Any] = response.json() if is_problem else {}
        self.status, self.code = response.status_code, str(self.problem.get("code", ""))
        offset = response.headers.get("procession-stdin-offset")
        self.offset = None if offset is None else int(offset)
        super().__init__(self.problem.get("detail", f"status {self.status}"))


class NoExitCode(ProcessionError):
    """The job ended without an exit code: it was canceled in the queue, or its end could not be observed."""

    def __init__(self, job: JobView) -> None:
        self.job = job
        super().__init__(f"job {job['id']} is {job['state']}: {job['state_message']}")


class OutputDropped(UserWarning):
    """Some of the output is no longer kept: it was longer than `output.max_bytes`."""


@dataclass
class Request:
    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    timeout: float | None = 60.0

    def build(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        return http.build_request(
            self.method, self.path, params=self.params, headers=self.headers, content=self.content, timeout=self.timeout
        )


Steps = Generator[Request | float, httpx.Response | None, T]


def place(url: str | None, token: str | None) -> tuple[str, dict[str, str], str | None]:
    """URL, headers and unix socket: what was given, else what the environment names, else this user's service."""
    url = url or os.environ.get("PROCESSION_URL")
    token = token or os.environ.get("PROCESSION_TOKEN")
    if url:
        return url, {"Authorization": f"Bearer {token}"} if token else {}, None
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    default = "/var/lib" if os.geteuid() == 0 else home
    state = os.environ.get("PROCESSION_STATE_DIR") or f"{default}/procession"
    return "http://localhost", {}, f"{state}/procession.sock"


class Patience:
    """How long a service that was there before may be away."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.was_reached = seconds, False
        self.calm()

    def calm(self) -> None:
        self.since: float | None = None
        self.pause = PAUSE

    def lose(self, why: Exception) -> float:
        """How long to pause before the next try."""
        now = time.monotonic()
        self.since = self.since or now
        if not self.was_reached or now - self.since > self.seconds:
            raise ProcessionError(f"the service cannot be reached: {why}") from why
        pause, self.pause = self.pause, min(self.pause * 2, LONGEST_PAUSE)
        return pause

    def ask(self, request: Request, *, repeat: bool = True) -> Steps[httpx.Response]:
        """The answer, over restarts of the service. Without `repeat`, only what was never sent is sent again."""
        self.calm()
        while True:
            try:
                response = yield request
            except httpx.TransportError as error:
                if not repeat and not isinstance(error, httpx.ConnectError):
                    raise ProcessionError(f"the connection broke: {error!r}") from error
                yield self.lose(error)
                continue
            assert response is not None
            refusal = self.judge(response)
            if refusal is None:
                return response
            yield self.lose(refusal)

    def judge(self, response: httpx.Response) -> Refused | None:
        """`None` for success, a refusal that will pass; any other is raised."""
        self.was_reached = True
        if response.is_success:
            return None
        refusal = Refused(response)
        # A job whose monitor is being replaced, or a proxy that does not reach the service.
        if refusal.code == "monitor_unavailable" or (not refusal.code and refusal.status in (502, 503, 504)):
            return refusal
        raise refusal

    def create(self, command: Command, spec: Mapping[str, Any], input: Input = None) -> Steps[JobView]:
        """A string is a script for the shell, a list is a command; other fields go as they are."""
        body = {name: value for name, value in spec.items() if value is not None}
        if isinstance(command, str):
            body["script"] = command
        else:
            body["command"] = [os.fspath(part) for part in command]
        if input is not None:
            body["stdin"] = {"mode": "data", "base64": base64.b64encode(encoded(input)).decode()}
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        content = json.dumps(body).encode()
        return checked((yield from self.ask(Request("POST", "/jobs", headers=headers, content=content))).json())

    def look(self, id: str, hold: float = 0) -> Steps[JobView]:
        request = Request("GET", f"/jobs/{id}", {"wait": hold} if hold else {}, timeout=60 + hold)
        return cast(JobView, (yield from self.ask(request)).json())

    def wait(self, id: str, timeout: float | None) -> Steps[JobView]:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            job = yield from self.look(id, max(0, min(HOLD, left)))
            if job["finished_at"] is not None:
                return job
            if left <= 0:
                raise subprocess.TimeoutExpired(program(job), timeout or 0)

    def send_signal(self, id: str, number: int) -> Steps[None]:
        """Like `Popen.send_signal`: to the first process only, and nothing happens if the job has finished."""
        content = json.dumps({"signal": number, "scope": "leader"}).encode()
        headers = {"Content-Type": "application/json"}
        request = Request("POST", f"/jobs/{id}/signal", headers=headers, content=content)
        try:
            yield from self.ask(request, repeat=False)
        except Refused as refusal:
            if refusal.code != "job_already_finished":
                raise

    def stop(self, id: str, params: Mapping[str, Any]) -> Steps[JobView]:
        return cast(JobView, (yield from self.ask(Request("DELETE", f"/jobs/{id}", params))).json())

    def write(self, id: str, at: int | None, data: bytes, eof: bool) -> Steps[int]:
        """Writes to standard input; gives how much has been written in all. A repeat goes on where the first broke."""
        if at is None:
            known = yield from self.ask(Request("POST", f"/jobs/{id}/stdin"))
            at = int(known.headers["procession-stdin-offset"])
        start, end = at, at + len(data)
        while True:
            params = {"offset": at, "eof": "true" if eof else "false"}
            request = Request("POST", f"/jobs/{id}/stdin", params, content=data[at - start :], timeout=None)
            try:
                yield from self.ask(request)
                return end
            except Refused as refusal:
                if refusal.offset is None or not at < refusal.offset <= end:
                    raise
                at = refusal.offset

    def output(self, id: str, stream: str) -> Steps[bytes]:
        """What is kept of one stream."""
        response = yield from self.ask(Request("GET", f"/jobs/{id}/output/{stream}", timeout=None))
        if response.headers.get("procession-first-position", "0") != "0":
            warnings.warn(f"the oldest output of job {id} is no longer kept", OutputDropped, stacklevel=2)
        return response.content

    def outputs(self, id: str) -> Steps[tuple[str, str]]:
        return text((yield from self.output(id, "stdout"))), text((yield from self.output(id, "stderr")))

    def completed(
        self, command: Command, spec: Mapping[str, Any], input: Input, timeout: float | None, check: bool
    ) -> Steps[subprocess.CompletedProcess[str]]:
        job = yield from self.create(command, {**spec, "timeout_seconds": timeout}, input)
        job = yield from self.wait(job["id"], None)
        out, err = yield from self.outputs(job["id"])
        if job["state"] == "timed_out" and timeout is not None:
            raise subprocess.TimeoutExpired(command, timeout, encoded(out), encoded(err))
        done = subprocess.CompletedProcess(command, returncode(job), out, err)
        if check:
            done.check_returncode()
        return done


def checked(job: JobView) -> JobView:
    """Raises, as `subprocess` does, what the kernel said to the start."""
    failure = job["spawn_failure"]
    if failure:
        raise OSError(failure["errno"], f"{failure['message']} ({failure['stage']})", program(job))
    return job


def program(job: JobView) -> str:
    spec = job["spec"]
    return str(spec["script"] if spec.get("script") is not None else spec["command"][0])


def returncode(job: JobView) -> int:
    """Of a job that has finished, as `Popen.returncode`: `-n` if signal n ended it."""
    end = checked(job)["exit"]
    if end is None:
        raise NoExitCode(job)
    return int(end["code"]) if end["code"] is not None else -int(end["signal_number"])


def text(data: bytes) -> str:
    """UTF-8; `encoded` gives the bytes back, whatever they are."""
    return data.decode(errors="surrogateescape")


def encoded(data: bytes | str) -> bytes:
    return data.encode(errors="surrogateescape") if isinstance(data, str) else data


class Handle:
    """What a job is to both clients; `view` is the job as `GET /jobs/{id}` last gave it."""

    def __init__(self, view: JobView, written: int | None) -> None:
        self.id: str = view["id"]
        self.view, self._written = view, written

    @property
    def pid(self) -> int | None:
        """`None` while the job waits in its queue."""
        process = self.view["process"]
        return int(process["pid"]) if process else None

    @property
    def returncode(self) -> int | None:
        """As of the last `poll` or `wait`."""
        return None if self.view["finished_at"] is None else returncode(self.view)


@dataclass
class Lines:
    """Turns output records to lines; `offset` is where to go on after a break."""

    id: str
    stream: str
    offset: int = 0
    ended: bool = False
    begun: dict[str, bytes] = field(default_factory=dict)

    def request(self) -> Request:
        params = {"follow": "true", "stream": self.stream, "offset": self.offset}
        return Request("GET", f"/jobs/{self.id}/output", params, {"Accept": "application/x-ndjson"}, timeout=None)

    def feed(self, record: str) -> Iterator[str]:
        it = json.loads(record)
        if it["type"] == "output":
            data = it["text"].encode() if "text" in it else base64.b64decode(it["base64"])
            self.offset = it["offset"] + len(data)
            *lines, rest = (self.begun.pop(it["stream"], b"") + data).split(b"\n")
            self.begun[it["stream"]] = rest
            yield from (text(line) + "\n" for line in lines)
        elif it["type"] == "gap":
            warnings.warn(f"output of job {self.id} is no longer kept", OutputDropped, stacklevel=2)
            self.offset = it["to"]
        elif it["type"] == "end":
            self.ended = True
            yield from (text(rest) for rest in self.begun.values() if rest)
