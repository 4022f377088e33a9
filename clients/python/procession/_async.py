"""The client for asyncio; each method is that of `_sync`."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, TypeVar, cast

import httpx

from ._protocol import Command, Handle, Input, JobView, Lines, Patience, Steps, encoded, place, returncode

T = TypeVar("T")


class AsyncClient:
    """A service. Without `url` it is the one that `PROCESSION_URL` names, else this user's, by its unix socket."""

    def __init__(self, url: str | None = None, token: str | None = None, *, retry_seconds: float = 60) -> None:
        base, headers, socket = place(url, token)
        transport = httpx.AsyncHTTPTransport(uds=socket) if socket else None
        self._http = httpx.AsyncClient(base_url=base, headers=headers, transport=transport)
        self._steps = Patience(retry_seconds)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def run(
        self, command: Command, *, input: Input = None, timeout: float | None = None, check: bool = False, **spec: Any
    ) -> subprocess.CompletedProcess[str]:
        return await self._do(self._steps.completed(command, spec, input, timeout, check))

    async def popen(self, command: Command, **spec: Any) -> AsyncJob:
        return AsyncJob(self, await self._do(self._steps.create(command, spec)), 0)

    async def job(self, id: str) -> AsyncJob:
        return AsyncJob(self, await self._do(self._steps.look(id)), None)

    async def _do(self, steps: Steps[T]) -> T:
        advance = partial(next, steps)
        while True:
            try:
                wish = advance()
            except StopIteration as end:
                return cast(T, end.value)
            if isinstance(wish, float):
                await asyncio.sleep(wish)
            try:
                got = None if isinstance(wish, float) else await self._http.send(wish.build(self._http))
            except httpx.TransportError as error:
                advance = partial(steps.throw, error)
            else:
                advance = partial(steps.send, got)


class AsyncJob(Handle):
    """A job, with the methods of `subprocess.Popen`."""

    def __init__(self, client: AsyncClient, view: JobView, written: int | None) -> None:
        super().__init__(view, written)
        self._client, self._steps = client, client._steps

    async def poll(self) -> int | None:
        self.view = await self._client._do(self._steps.look(self.id))
        return self.returncode

    async def wait(self, timeout: float | None = None) -> int:
        self.view = await self._client._do(self._steps.wait(self.id, timeout))
        return returncode(self.view)

    async def send_signal(self, number: int) -> None:
        await self._client._do(self._steps.send_signal(self.id, number))

    async def terminate(self, **params: Any) -> None:
        await self._client._do(self._steps.stop(self.id, params))

    async def kill(self) -> None:
        await self.terminate(force="true")

    async def write(self, data: bytes | str, *, eof: bool = False) -> None:
        self._written = await self._client._do(self._steps.write(self.id, self._written, encoded(data), eof))

    async def communicate(self, input: Input = None, timeout: float | None = None) -> tuple[str, str]:
        if input is not None:
            await self.write(input, eof=True)
        await self.wait(timeout)
        return await self._client._do(self._steps.outputs(self.id))

    async def output(self, stream: str = "stdout") -> bytes:
        return await self._client._do(self._steps.output(self.id, stream))

    async def lines(self, stream: str = "all") -> AsyncIterator[str]:
        lines, http = Lines(self.id, stream), self._client._http
        self._steps.calm()
        while not lines.ended:
            try:
                response = await http.send(lines.request().build(http), stream=True)
                try:
                    if not response.is_success:
                        await response.aread()
                    lost: Exception | None = self._steps.judge(response)
                    if lost is None:
                        async for record in response.aiter_lines():
                            self._steps.calm()
                            for line in lines.feed(record):
                                yield line
                finally:
                    await response.aclose()
            except httpx.TransportError as error:
                lost = error
            if lost is not None:
                await asyncio.sleep(self._steps.lose(lost))

    def __aiter__(self) -> AsyncIterator[str]:
        return self.lines()
