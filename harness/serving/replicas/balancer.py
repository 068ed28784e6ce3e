"""One address in front of several HTTP servers that come and go: the least busy one answers.

It speaks just enough HTTP/1.1 to forward KServe requests: heads, and bodies of a stated length.
Each request goes to the server with the fewest in flight, whatever connection it came over, and
connections to the servers are kept. While there is no server, requests wait for one.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

HOST = "127.0.0.1"
PATIENCE_S = 30.0
"""Seconds that a request waits for a server before it is refused."""
_HEAD_LIMIT = 2**16
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
_FAILED = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
_GONE = (OSError, asyncio.IncompleteReadError)
_Result = TypeVar("_Result")
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(eq=False)
class _Backend:
    """One server behind the balancer."""

    host: str
    port: int
    in_flight: int = 0
    idle: deque[_Connection] = field(default_factory=deque)
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: bool = False


class Balancer:
    """Forwards requests; a context manager, safe to use from any thread."""

    port: int

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="balancer", daemon=True)
        self._backends: dict[str, _Backend] = {}
        self._changed = asyncio.Condition()
        self._clients: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._in_flight = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open()).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        """Where it listens: host and port."""
        return f"{HOST}:{self.port}"

    @property
    def in_flight(self) -> int:
        """Requests that came and are not answered, whether or not a server has them yet."""
        return self._in_flight

    def add(self, address: str) -> None:
        """Send requests to the server at this address from now on."""
        self._run(self._add(address)).result()

    def remove(self, address: str) -> None:
        """Send a server no more requests, and wait until those in flight have ended."""
        self._run(self._remove(address)).result()

    def _run(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=_HEAD_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.close()
        for backend in self._backends.values():
            for _, writer in backend.idle:
                writer.close()

    async def _add(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        async with self._changed:
            self._backends[address] = _Backend(host, int(port))
            self._changed.notify_all()

    async def _remove(self, address: str) -> None:
        backend = self._backends.pop(address)
        backend.leaving = True
        if backend.in_flight:
            await backend.drained.wait()
        for _, writer in backend.idle:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, request by request."""
        self._clients.add(writer)
        try:
            while True:
                request = await _message(reader)
                writer.write(await self._answer(request))
                await writer.drain()
        except (
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            ConnectionError,
            ValueError,
        ):
            pass  # The client has gone, or speaks something else: its connection ends.
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        self._in_flight += 1
        try:
            return await self._answer_of_one(request)
        finally:
            self._in_flight -= 1

    async def _answer_of_one(self, request: bytes) -> bytes:
        try:
            backend = await asyncio.wait_for(self._least_busy(), PATIENCE_S)
        except TimeoutError:
            return _UNAVAILABLE
        try:
            return await self._forward(backend, request)
        except (*_GONE, ValueError):
            return _FAILED
        finally:
            backend.in_flight -= 1
            if backend.leaving and not backend.in_flight:
                backend.drained.set()

    async def _least_busy(self) -> _Backend:
        """The server to ask, the request already counted."""
        if not self._backends:
            async with self._changed:
                await self._changed.wait_for(lambda: self._backends)
        found = min(self._backends.values(), key=lambda one: one.in_flight)
        found.in_flight += 1
        return found

    async def _forward(self, backend: _Backend, request: bytes) -> bytes:
        """Over a kept connection; over a new one where there is none, or the server had closed it.

        An inference may be asked twice: it changes nothing.
        """
        while backend.idle:
            with suppress(*_GONE):
                return await self._exchange(backend, backend.idle.pop(), request)
        opened = await asyncio.open_connection(backend.host, backend.port, limit=_HEAD_LIMIT)
        return await self._exchange(backend, opened, request)

    async def _exchange(self, backend: _Backend, connection: _Connection, request: bytes) -> bytes:
        reader, writer = connection
        try:
            writer.write(request)
            answer = await _message(reader)
        except BaseException:
            writer.close()
            raise
        backend.idle.append(connection)
        return answer


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A head and its body.

    Raises:
        asyncio.IncompleteReadError: the connection ended.
        ValueError: a length that is none.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length) if length else head
