"""Client CPU per streamed token: ours, of loops that only read, of peers.

    .venv/bin/python benchmarks/stream_cpu.py
    .venv/bin/python benchmarks/stream_cpu.py --guidellm PROGRAM --aiperf PROGRAM

Servers of plain sockets (`token_senders.py`) send each token in a packet of its own, so that each
wakes the client's event loop, or whole answers at once. Our client is the one of a generator
process: transports under gevent, the closed loop, the recorder, reports ten times a second. Beside
it stand loops that read the same packets and look at none (`bare_readers.py`): what is left of a
token when nothing is done with it. A peer is started twice, for a short and for a long run; its CPU
is the difference, so that its start does not count. Clients take turns; of each the least is shown,
as other work on the machine only adds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Process, get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from bare_readers import BARE
from client_process import PeerError
from rows import Row, run_as_command, show, skip
from token_peers import PEERS, PROMPT, peer_cpu_s
from token_senders import TOKENS, serve

KINDS = ("chat", "generate", "grpc")
OURS = "harness"
Measured = tuple[int, float]
"""Tokens and CPU seconds."""


def drive(port: int, kind: str, streams: int, seconds: float) -> tuple[int, float]:
    """Tokens and CPU seconds of the harness's client with so many streams at a time."""
    import gevent

    from harness.load.engine.closed_loop import ClosedLoop, Ending
    from harness.load.engine.recorder import Recorder
    from harness.load.engine.streams import StreamSink
    from harness.load.requests.answers import AnswerCheck
    from harness.load.requests.generation import GenerationRequest, encode_requests
    from harness.load.transports.address import parse_target
    from harness.load.transports.opening import stream_opener
    from harness.types import Generation, StreamApi, WireProtocol
    from harness_locust.socket_waiter import GeventWaiter

    protocol = WireProtocol.GRPC if kind == "grpc" else WireProtocol.HTTP
    generation = Generation(StreamApi.CHAT if kind == "chat" else StreamApi.TRITON)
    target = parse_target(f"127.0.0.1:{port}")
    opener: Any = stream_opener(generation, protocol, target, timeout_s=30.0, waiter=GeventWaiter)
    requests = encode_requests(
        [GenerationRequest(PROMPT, TOKENS)], generation, protocol, target, "m"
    )
    begun_ns = time.monotonic_ns()
    recorder, ending = Recorder(begun_ns, 50_000_000), Ending(begun_ns + int(seconds * 1e9))
    slices: list[Any] = []

    def use() -> None:
        transport = opener()
        transport.connect()
        sink = StreamSink(recorder, transport)
        ClosedLoop(transport, requests, AnswerCheck(), sink).run(ending)
        transport.close()

    def report() -> None:
        while True:
            gevent.sleep(0.1)
            slices.extend(recorder.take())

    before_s = time.process_time()
    users, reporter = [gevent.spawn(use) for _ in range(streams)], gevent.spawn(report)
    gevent.joinall(users)
    reporter.kill()
    slices.extend(recorder.take())
    cpu_s = time.process_time() - before_s
    failures = {kind: number for one in slices for kind, number in one.failures.items()}
    tokens = sum(one.streams.output_tokens for one in slices)
    if failures or not tokens:
        raise PeerError(f"{kind}: {tokens} tokens, failures {failures}")
    return tokens, cpu_s


def in_own_process(client: str, port: int, kind: str, streams: int, seconds: float) -> Measured:
    """One run of ours or of a bare loop; in a process of its own, as patching is for good."""
    results: SimpleQueue[Measured] = get_context().SimpleQueue()
    process = Process(target=_run, args=(results, client, port, kind, streams, seconds))
    process.start()
    process.join()
    if results.empty():
        raise PeerError(f"{client} ended with status {process.exitcode}")
    return results.get()


def _run(
    results: SimpleQueue[Measured], client: str, port: int, kind: str, streams: int, seconds: float
) -> None:
    if client in BARE:
        results.put(BARE[client](port, streams, seconds))
        return
    from gevent import monkey

    monkey.patch_all()
    results.put(drive(port, kind, streams, seconds))


def peer_measured(client: str, options: argparse.Namespace) -> Measured:
    """Tokens and CPU seconds of what a long run has more than a short one."""
    program, runs = getattr(options, client), []
    for seconds in (options.seconds, 4 * options.seconds):
        with token_server("chat", options.gaps_ms[0] / 1e3) as (port, sent):
            cpu_s = peer_cpu_s(client, program, port, options.streams, seconds)
            runs.append((sent.value, cpu_s))
    (few, short_s), (many, long_s) = runs
    return many - few, long_s - short_s


@contextmanager
def token_server(kind: str, gap_s: float) -> Iterator[tuple[int, Any]]:
    """Its port, and the number of packets that it has sent."""
    ports: SimpleQueue[int] = get_context().SimpleQueue()
    sent = get_context().Value("Q", 0, lock=False)
    server = Process(target=serve, args=(ports, kind, gap_s, sent), daemon=True)
    server.start()
    try:
        yield ports.get(), sent
    finally:
        server.kill()
        server.join()


def measured(client: str, kind: str, gap_s: float, options: argparse.Namespace) -> Measured:
    """One run of any client."""
    if client in PEERS:
        return peer_measured(client, options)
    with token_server(kind, gap_s) as (port, _):
        return in_own_process(client, port, kind, options.streams, options.seconds)


def main() -> int:
    """Measure in turns, and show a row for each client, interface and speed."""
    options = _parse(sys.argv[1:])
    first_s, *further_s = [gap_ms / 1e3 for gap_ms in options.gaps_ms]
    peers = [one for one in PEERS if getattr(options, one)]
    cases = [(OURS, kind, first_s) for kind in KINDS]
    cases += [(client, "chat", first_s) for client in (*BARE, *peers)]
    cases += [(client, "chat", gap_s) for gap_s in further_s for client in (OURS, *BARE)]
    cases += [(OURS, kind, 0.0) for kind in KINDS]
    found: dict[tuple[str, str, float], list[Measured]] = {one: [] for one in cases}
    for turn in range(options.rounds):
        for case in cases:
            if case[0] in PEERS and turn:
                continue  # its start alone takes longer than all the others' runs
            try:
                found[case].append(measured(*case, options))
            except PeerError as error:
                skip(case[0], error)
    rows = [_row(case, runs) for case, runs in found.items() if runs]
    title = f"Client CPU per streamed token ({options.streams} streams, {options.rounds} rounds)"
    show(title, rows, options.json)
    return 0


def _row(case: tuple[str, str, float], runs: Sequence[Measured]) -> Row:
    client, interface, gap_s = case
    costs = [1e6 * cpu_s / tokens for tokens, cpu_s in runs]
    return {
        "client": client,
        "interface": interface,
        "packets": f"a token each {1e3 * gap_s:g} ms" if gap_s else "answers whole",
        "tokens": round(statistics.median(tokens for tokens, _ in runs)),
        "cpu_us_per_token": min(costs),
        "median_us": statistics.median(costs),
    }


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument(
        *("--gaps-ms", "--gap-ms"),
        nargs="+",
        type=float,
        default=[30.0, 5.0],
        help="between tokens of one stream; peers are measured at the first",
    )
    for peer in PEERS:
        parser.add_argument(f"--{peer}", metavar="PROGRAM", help="installed apart, to stand beside")
    parser.add_argument("--json", type=Path, help="write the rows there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
