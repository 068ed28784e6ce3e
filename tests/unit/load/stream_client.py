"""Streaming transports against the server of tokens, as a slot of the engine uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from token_server import FakeTokenServer, Played
from token_server.described import _INPUTS

from harness.load.requests.generation import GenerationRequest, encode_requests
from harness.load.transports.address import parse_target
from harness.load.transports.opening import stream_opener
from harness.load.transports.streams.tokens import TokenStream
from harness.types import Generation, StreamApi, WireProtocol

GRPC, GENERATE, CHAT, COMPLETIONS = "grpc", "generate", "chat", "completions"
EVERY = (GRPC, GENERATE, CHAT, COMPLETIONS)
OPENAI = (CHAT, COMPLETIONS)
PATIENCE_S = 60.0


def generation_of(name: str, **changes: Any) -> Generation:
    api = StreamApi(name) if name in OPENAI else StreamApi.TRITON
    return Generation(api, inputs=tuple(one for one, *_ in _INPUTS), **changes)


class StreamClient:
    """One transport, and the requests that it is given.

    Args:
        server: that is spoken to.
        name: one of `EVERY`.
    """

    def __init__(
        self, server: FakeTokenServer, name: str, *, timeout_s: float = PATIENCE_S, **changes: Any
    ) -> None:
        self._server = server
        self._protocol = WireProtocol.GRPC if name == GRPC else WireProtocol.HTTP
        self._generation = generation_of(name, **changes)
        self._target = parse_target(server.grpc if name == GRPC else server.http)
        self.transport: Any = stream_opener(
            self._generation, self._protocol, self._target, timeout_s=timeout_s
        )()

    def ask(self, request: GenerationRequest | None = None) -> TokenStream:
        """Send a request and read its answer to the end."""
        one = request or GenerationRequest("two words", 64)
        (encoded,) = encode_requests([one], self._generation, self._protocol, self._target, "m")
        self.transport.send(encoded.body)
        stream: TokenStream = self.transport.stream
        return stream

    def played(self) -> Played:
        """The last request as the server saw it."""
        return self._server.played[-1]


def token_times_ns(stream: TokenStream) -> list[int]:
    """When each token came; those of one event at one instant."""
    pairs = zip(stream.times_ns, stream.tokens, strict=True)
    return [at_ns for at_ns, tokens in pairs for _ in range(tokens)]


def late_ms(stream: TokenStream, played: Played) -> Sequence[float]:
    """How much later than it was sent each token came, in milliseconds."""
    pairs = zip(token_times_ns(stream), played.token_ns, strict=True)
    return [(came - sent) / 1e6 for came, sent in pairs]
