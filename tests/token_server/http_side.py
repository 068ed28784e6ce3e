"""The server's HTTP: requests read whole, answers at once or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from token_server.described import described
from token_server.events import OpenAIEvents, TritonEvents, encoded
from token_server.play import Stage
from token_server.records import Played, Protocol
from token_server.scripts import Fault, Finish, Piece, Refusal, StreamScript, Usage
from token_server.timeline import Kind, play, until

_OPENAI = {"/v1/chat/completions": Protocol.CHAT, "/v1/completions": Protocol.COMPLETIONS}
_GENERATE = re.compile(r"/v2/models/[^/]+(?:/versions/\d+)?/generate(_stream)?")
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests"}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class _Reader(asyncio.StreamReader):
    """Says at once when the client has hung up, whoever reads."""

    def __init__(self) -> None:
        super().__init__(limit=2**24)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)
        self.gone.set()


class HttpSide:
    """Answers HTTP/1.1 connections by the stage's scripts."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def listen(self) -> tuple[asyncio.Server, int]:
        """Listen on a free port of the loopback; returns it."""

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_Reader(), self._connection)

        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        return server, server.sockets[0].getsockname()[1]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _Reader)
        connected = writer.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stage.connections += 1
        try:
            while True:
                await self._exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # hung up, or the server's own end
        finally:
            writer.close()

    async def _exchange(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
        verb, path, _ = head[0].split(" ", 2)
        raw = await reader.readexactly(int(fields.get("content-length", 0)))
        received_ns = time.monotonic_ns()
        triton = _GENERATE.fullmatch(path)
        if verb != "POST" or not (path in _OPENAI or triton):
            writer.write(_answer(*described(path)))
            return
        try:
            asked = json.loads(raw)
        except ValueError:
            writer.write(_answer(400, b'{"error":{"message":"no JSON"}}'))
            return
        protocol = Protocol.GENERATE if triton else _OPENAI[path]
        identity = fields.get("x-request-id", "")
        script, played = self._stage.begin(
            protocol, prompt_of(protocol, asked), asked, identity, received_ns
        )
        streams = bool(triton[1]) if triton else bool(asked.get("stream"))
        answer = _HttpAnswer(script, played, writer)
        await self._stage.whole(answer.give(streams=streams), played, reader.gone)


class _HttpAnswer:
    """One answer; the `Wire` of its stream."""

    def __init__(
        self,
        script: StreamScript,
        played: Played,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._script, self._played = script, played
        self._writer = writer
        self._limit = max_tokens_of(played)
        self._pieces, self._reason = script.within(self._limit)
        events = TritonEvents if played.protocol is Protocol.GENERATE else OpenAIEvents
        self._events = events(script, played, self._pieces)
        self._is_triton = played.protocol is Protocol.GENERATE

    async def give(self, *, streams: bool) -> None:
        """Answer."""
        script = self._script
        if script.refusal is not None:
            self._writer.write(refused(script.refusal, triton=self._is_triton))
        elif streams and not (script.ignores_stream and not self._is_triton):
            await self._stream()
        else:
            await self._give_whole()

    async def _stream(self) -> None:
        script = self._script
        self._writer.write(_STREAM_HEAD)
        if self._is_triton and script.finish is Finish.APART:
            script = self._script = script.but(finish=Finish.WITH_LAST)
        await play(script, self._limit, self, self._played, usage=self._tells_usage())
        if script.fault in {None, Fault.ENDED, Fault.ERROR}:
            self._writer.write(b"0\r\n\r\n")

    async def _give_whole(self) -> None:
        script, pieces = self._script, self._pieces
        if script.fault is not None:
            await self.break_off(script.fault)
            return
        await until(self._played.received_ns, max((piece.at_s for piece in pieces), default=0))
        self._played.note(pieces, time.monotonic_ns())
        self._writer.write(_answer(200, self._events.whole(pieces, self._reason)))

    def _tells_usage(self) -> bool:
        options = self._played.asked.get("stream_options") or {}
        asked = bool(options.get("include_usage"))
        return self._script.usage is Usage.ALWAYS or (self._script.usage is Usage.ASKED and asked)

    def event(self, kind: Kind, piece: Piece | None, finish_reason: str | None) -> bytes:
        """The event as a chunk of the body."""
        return _chunk(self._events.encode(kind, piece, finish_reason))

    async def write(self, data: bytes) -> None:
        """Hand it to the kernel, as far as it takes it."""
        self._writer.write(data)
        await self._writer.drain()

    async def break_off(self, fault: Fault) -> None:
        """Do what the fault says."""
        if fault is Fault.RESET:
            connected = self._writer.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            raise ConnectionResetError
        if fault is Fault.ERROR:
            self._writer.write(_chunk(self._events.error()))
        elif fault is Fault.STALLED:
            await asyncio.Event().wait()


def prompt_of(protocol: Protocol, asked: Mapping[str, Any]) -> str:
    """The text that was asked about; of a chat, its last message."""
    if protocol is Protocol.CHAT:
        return str(asked["messages"][-1]["content"])
    return str(asked.get("text_input" if protocol is Protocol.GENERATE else "prompt", ""))


def max_tokens_of(played: Played) -> int | None:
    """The limit that a request sets, wherever its protocol has it."""
    asked = played.asked
    if played.protocol in {Protocol.CHAT, Protocol.COMPLETIONS}:
        found = asked.get("max_completion_tokens", asked.get("max_tokens"))
    else:
        found = json.loads(asked.get("sampling_parameters") or "{}").get("max_tokens")
    return None if found is None else int(found)


def refused(refusal: Refusal, *, triton: bool) -> bytes:
    """The answer that a request was refused with."""
    error: Any = refusal.message
    if not triton:
        error = {"message": refusal.message, "type": "server_error", "code": refusal.status}
    extra = () if refusal.retry_after_s is None else (f"Retry-After: {refusal.retry_after_s}",)
    return _answer(refusal.status, encoded({"error": error}), *extra)


def _answer(status: int, body: bytes, *extra: str) -> bytes:
    head = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Whatever')}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *extra,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
