"""Every token's instant against the server's own record of when it sent it, request by request.

The server (`tests/token_server`, a process of its own) notes CLOCK_MONOTONIC before the write that
completes an event, and once a datagram that it sends behind has come. So however late the machine
let it write or handed the bytes on, the truth is known to lie between the two; what is tested is
the client's part, which ends at the kernel's receive time. The tokens are 40 ms apart and more,
because the kernel merges what waits to be read: a client that the machine holds up for longer than
that is no fault of it, and the test says so (`HeldUp`). Comments and the end are as far from the
tokens: read together with one, their instant would stand for the token's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from stream_client import CHAT, EVERY, GENERATE, GRPC, StreamClient
from token_server import (
    FakeTokenServer,
    Finish,
    Opening,
    Piece,
    Played,
    SentEvent,
    StreamScript,
)

from harness.load.requests.generation import GenerationRequest
from harness.load.transports.sockets import kernel_stamps
from harness.load.transports.streams.tokens import TokenStream
from tests.held_up import HeldUp, sleeper_here

WITHIN_MS = 0.5
STREAMS = 4
EVENTS = 12
PERCENTILES = (50, 95, 99)
TRIES = 5
MERGES_S = 0.04
"""A client that is held up for so long may find two tokens where there was one."""
END_S = 0.2
"""From the last token to what ends the stream."""


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as server:
        yield server


def uneven(
    seed: int, *, first_s: float = 0.03, stall_s: float = 0.0, tokens: tuple[int, ...] = (1,)
) -> StreamScript:
    """Events 40 to 120 ms apart, the first up to 50 later; one of the gaps is longer by a stall."""
    draw = random.Random(seed)
    at_s, pieces = first_s + draw.uniform(0.0, 0.05), []
    for number in range(EVENTS):
        pieces.append(Piece(at_s, f"w{number} ", draw.choice(tokens)))
        at_s += draw.uniform(0.04, 0.12) + (stall_s if number == EVENTS // 2 else 0.0)
    return StreamScript(tuple(pieces), finish=Finish.WITH_LAST, usage_delay_s=END_S)


def between(script: StreamScript) -> float:
    """The middle of the script's longest gap, in seconds after the request."""
    gaps = pairwise([piece.at_s for piece in script.pieces])
    before_s, after_s = max(gaps, key=lambda gap: gap[1] - gap[0])
    return (before_s + after_s) / 2


@dataclass(frozen=True)
class Measured:
    """A stream as the client saw it, and as the server did."""

    stream: TokenStream
    played: Played

    @property
    def events(self) -> Sequence[tuple[int, SentEvent]]:
        """When each event came, and its record."""
        return list(zip(self.stream.times_ns, self.played.sent, strict=True))

    @property
    def is_merged(self) -> bool:
        """Whether the kernel handed events together to a client that the machine held up."""
        return any(
            sooner_ns == later_ns and a.written_ns < b.sent_ns
            for (sooner_ns, a), (later_ns, b) in pairwise(self.events)
        )

    @property
    def is_held(self) -> bool:
        """Whether nothing is off, however long the machine held the client up."""
        return max(self.first_off_ms, *self.gaps_off_ms) <= WITHIN_MS

    @property
    def first_off_ms(self) -> float:
        """By how much the first token is told later than it can have come."""
        came_ns, sent = self.events[0]
        return off_ms(came_ns, sent.sent_ns, sent.written_ns)

    @property
    def gaps_off_ms(self) -> list[float]:
        """By how much each gap between events is off, whichever way."""
        return [
            off_ms(later_ns - sooner_ns, b.sent_ns - a.written_ns, b.written_ns - a.sent_ns)
            for (sooner_ns, a), (later_ns, b) in pairwise(self.events)
        ]


def off_ms(value_ns: int, low_ns: int, high_ns: int) -> float:
    """How far a value lies outside what it may be, in milliseconds; 0 within."""
    return max(low_ns - value_ns, value_ns - high_ns, 0) / 1e6


def measured(server: FakeTokenServer, name: str, *scripts: StreamScript) -> list[Measured]:
    """One client for each script, all at once; again where the machine held them up."""
    for _ in range(TRIES):
        before_s = sleeper_here().lost_s
        found = _measured(server, name, *scripts)
        lost_s = sleeper_here().lost_s - before_s
        held = lost_s <= MERGES_S or all(one.is_held for one in found)
        if held and not any(one.is_merged for one in found):
            return found
    raise HeldUp(f"each of {TRIES} times the machine lost over {1000 * MERGES_S:.0f} ms")


def _measured(server: FakeTokenServer, name: str, *scripts: StreamScript) -> list[Measured]:
    server.begin(*scripts)
    clients = [StreamClient(server, name) for _ in scripts]
    with ThreadPoolExecutor(len(clients)) as pool:
        streams = list(pool.map(lambda client: client.ask(GenerationRequest("p", 99)), clients))
    played = {one.identity: one for one in server.played}
    sent_as = (client.transport.identity.decode() for client in clients)
    return [Measured(stream, played[one]) for stream, one in zip(streams, sent_as, strict=True)]


def hold(values_ms: list[float], what: str) -> None:
    for percentile in PERCENTILES:
        off = float(np.percentile(values_ms, percentile))
        assert off <= WITHIN_MS, f"{what} p{percentile} is {off:.3f} ms off"


def hold_all(pairs: list[Measured]) -> None:
    hold([one.first_off_ms for one in pairs], "TTFT")
    gaps = [gap for one in pairs for gap in one.gaps_off_ms]
    assert len(gaps) == STREAMS * (EVENTS - 1)
    hold(gaps, "ITL")


@pytest.mark.skipif(not kernel_stamps(), reason="this kernel does not say when bytes came")
@pytest.mark.parametrize("name", EVERY)
def test_ttft_and_every_gap_are_the_server_s(server: FakeTokenServer, name: str) -> None:
    scripts = [uneven(seed, stall_s=0.4 if seed == 1 else 0.0) for seed in range(STREAMS)]
    hold_all(measured(server, name, *scripts))


@pytest.mark.skipif(not kernel_stamps(), reason="this kernel does not say when bytes came")
@pytest.mark.parametrize("name", [GRPC, GENERATE])
def test_events_of_several_tokens_make_gaps_of_the_server_s_length(
    server: FakeTokenServer, name: str
) -> None:
    """Peers counted such an event as one token: its gap came out k times too long."""
    pairs = measured(server, name, *(uneven(seed, tokens=(1, 2, 5)) for seed in range(STREAMS)))
    hold_all(pairs)
    for one in pairs:
        counts = [event.tokens for event in one.played.sent]
        assert one.stream.tokens == counts
        gaps = iter(one.stream.spans_ns(0)["itl"])
        for (sooner, later), count in zip(pairwise(one.stream.times_ns), counts[1:], strict=True):
            own = [next(gaps) for _ in range(count)]
            assert sum(own) == later - sooner
            assert max(own) - min(own) <= 1


@pytest.mark.skipif(not kernel_stamps(), reason="this kernel does not say when bytes came")
def test_openings_and_reasoning_move_no_token(server: FakeTokenServer) -> None:
    """The role-only chunk comes at once, a token of reasoning first."""
    plain = [uneven(seed, first_s=0.1, stall_s=0.2) for seed in range(STREAMS)]
    scripts = [
        one.but(
            pieces=tuple(
                replace(piece, reasoning=number < EVENTS // 2)
                for number, piece in enumerate(one.pieces)
            ),
            opening=Opening.ROLE,
            comments_s=(0.05, between(one)),
        )
        for one in plain
    ]
    hold_all(measured(server, CHAT, *scripts))
