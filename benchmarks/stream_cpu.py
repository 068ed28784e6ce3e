"""Client CPU per streamed token: ours, of loops that only read, of peers.

    .venv/bin/python benchmarks/stream_cpu.py
    .venv/bin/python benchmarks/stream_cpu.py --guidellm ~/peers/bin/guidellm

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
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Process, get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from bare_readers import BARE
from client_process import PeerError
from rows import Row, run_as_command, show, skip
from token_senders import TOKENS, serve

KINDS = ("chat", "generate", "grpc")
PROMPT = "say " * 32
OURS = "harness"
PEER_TIMEOUT_S = 300.0
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
    if failures:
        raise PeerError(f"{kind}: {failures}")
    return sum(one.streams.output_tokens for one in slices), cpu_s


def read_only(client: str, port: int, streams: int, seconds: float) -> Measured:
    """Packets and CPU seconds of a bare loop."""
    before_s = time.process_time()
    packets = BARE[client](port, streams, seconds)
    return packets, time.process_time() - before_s


def in_own_process(client: str, port: int, kind: str, streams: int, seconds: float) -> Measured:
    """One run of ours or of a bare loop; in a process of its own, as patching is for good."""
    results: SimpleQueue[Measured] = get_context().SimpleQueue()
    process = Process(target=_run, args=(results, client, port, kind, streams, seconds))
    process.start()
    process.join()
    if results.empty():
        raise PeerError(f"{client} ended with status {process.exitcode}")
    return results.get()


def _run(results: SimpleQueue[Measured], client: str, port: int, *how: Any) -> None:
    kind, streams, seconds = how
    if client in BARE:
        results.put(read_only(client, port, streams, seconds))
        return
    from gevent import monkey

    monkey.patch_all()
    results.put(drive(port, kind, streams, seconds))


def guidellm_command(
    program: str, port: int, streams: int, seconds: float, folder: str
) -> list[str]:
    """A closed loop of chats, as guidellm 0.8 takes it."""
    prompts = Path(folder) / "prompts.jsonl"
    prompts.write_text(f'{{"prompt": "{PROMPT}"}}\n' * 64)
    backend = f"kind=openai_http,target=http://127.0.0.1:{port},model=m"
    return [
        *(program, "run", "--disable-console"),
        *("--backend", f"{backend},request_format=/v1/chat/completions"),
        *("--profile", f"kind=concurrent,streams={streams}"),
        *("--constraint", f"kind=max_duration,seconds={seconds:g}"),
        *("--data", f"kind=json_file,path={prompts}"),
        *("--output", f"kind=json,path={folder}/out.json"),
    ]


PEERS: dict[str, Callable[[str, int, int, float, str], list[str]]] = {"guidellm": guidellm_command}


def peer_cpu_s(client: str, program: str, port: int, streams: int, seconds: float) -> float:
    """CPU seconds of a peer and of all its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = PEERS[client](program, port, streams, seconds, folder)
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=PEER_TIMEOUT_S, check=False
        )
    if done.returncode:
        raise PeerError(f"{client} ended with status {done.returncode}: {done.stderr[-400:]!r}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peer_measured(client: str, options: argparse.Namespace) -> Measured:
    """Tokens and CPU seconds of what a long run has more than a short one."""
    program, runs = getattr(options, client), []
    for seconds in (options.seconds, 4 * options.seconds):
        with token_server("chat", options.gap_ms / 1e3) as (port, sent):
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
    gap_s = options.gap_ms / 1e3
    cases = [(OURS, kind, gap_s) for kind in KINDS]
    cases += [(client, "chat", gap_s) for client in (*BARE, *PEERS)]
    cases += [(OURS, kind, 0.0) for kind in KINDS]
    cases = [one for one in cases if one[0] not in PEERS or getattr(options, one[0])]
    found: dict[tuple[str, str, float], list[Measured]] = {one: [] for one in cases}
    for turn in range(options.rounds):
        for case in cases:
            if case[0] in PEERS and turn:
                continue  # its start alone takes longer than all the others' runs
            try:
                found[case].append(measured(*case, options))
            except (PeerError, subprocess.TimeoutExpired) as error:
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
    parser.add_argument("--gap-ms", type=float, default=30.0, help="between packets of one stream")
    parser.add_argument("--guidellm", metavar="PROGRAM", help="installed apart, to stand beside us")
    parser.add_argument("--json", type=Path, help="write the rows there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
