"""A server of tokens in a process of its own, whose every send time is known: streams' truth.

It speaks Triton's gRPC streams (`ModelStreamInfer`), Triton's `/v2/models/M/generate_stream` and
`/generate`, and OpenAI's `/v1/chat/completions` and `/v1/completions`, as the test's scripts say
when and how. What it sent, and when, is in `FakeTokenServer.played`.
"""

from token_server.records import Played, Protocol, SentEvent
from token_server.scripts import (
    Fault,
    Finish,
    Opening,
    Piece,
    Refusal,
    StreamScript,
    Usage,
    evenly,
)
from token_server.server import FakeTokenServer

__all__ = [
    "FakeTokenServer",
    "Fault",
    "Finish",
    "Opening",
    "Piece",
    "Played",
    "Protocol",
    "Refusal",
    "SentEvent",
    "StreamScript",
    "Usage",
    "evenly",
]
