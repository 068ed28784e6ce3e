"""What a request costs the client: ours, plain Locust and perf_analyzer beside each other.

Every client drives a closed loop against one embedded Triton whose response cache answers, so that
the client is the limit. All are watched from outside and alike: requests are counted by the
server, processor time by the kernel, both over one window in the middle of the client's run. Only
the latencies are the client's own. The rounds are interleaved, so that a machine that slows down
slows all; a row holds the median of its rounds.

`harness-locust` is what a trial runs, `harness-grpcio` the same with `--transport grpcio`,
`harness` the same transports without Locust.

    python benchmarks/generator_capacity.py --json rows.json
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
from cached_model import CACHED_MODEL, PAYLOADS_FILE, cached_server
from client_process import PeerError
from contenders import (
    Drive,
    HarnessBare,
    HarnessLocust,
    NaiveLocust,
    PerfAnalyzerClient,
    Point,
    Run,
    Server,
)
from ours import engine
from peers import perf_analyzer
from rows import Row, run_as_command, show, skip

from harness.errors import GeneratorError, ServerError
from harness.serving.embedded.environment import ServerEnvironment, ensure_server_environment
from harness.serving.endpoint import TritonClient
from harness.types import GrpcImplementation

CLIENTS = ("harness-locust", "harness-grpcio", "harness", "locust-tritonclient", "perf_analyzer")
PROTOCOLS = ("http", "grpc")
YARDSTICK = ("perf_analyzer", "grpc")
SETTLE_S = 1.0
"""From a client's first answers to the window."""
START_UP_S = 120.0
TAILS_S = (1.0, 10.0)
"""The client goes on for so long after the window, whatever its start-up took of its time; where
it ended before the window did all the same, it is tried once more with the longer one."""

_FIRST_ANSWERS = 20


@dataclass(frozen=True)
class Seen:
    """One client over one window."""

    requests_per_s: float
    cpu_us_per_request: float
    p50_ms: float
    p99_ms: float


Key = tuple[str, str, int]
"""Client, protocol, requests in flight."""


def main() -> int:
    """Measure every client and show the rows."""
    options = _parse(sys.argv[1:])
    environment = ensure_server_environment(lambda step: print(step.note, file=sys.stderr))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoint = stack.enter_context(cached_server(environment, folder)).endpoint
        client = stack.enter_context(TritonClient(endpoint))
        server = Server(endpoint, folder / PAYLOADS_FILE)
        drives = _contenders(options.clients, server, environment, stack)
        seen = _measure(drives, client, options)
    if not seen:
        raise PeerError("no client could be measured")
    show(f"Generator capacity (median of {options.rounds} rounds)", _rows(seen), options.json)
    print("Ratios: over perf_analyzer, gRPC, with as many requests in flight.")
    return 0


def _contenders(
    names: Sequence[str], server: Server, environment: ServerEnvironment, stack: ExitStack
) -> dict[str, Drive]:
    """The clients that can be had here; the others are skipped with a line."""
    drives: dict[str, Drive] = {}
    for name in names:
        try:
            drives[name] = _contender(name, server, environment, stack)
        except PeerError as reason:
            skip(name, reason)
    return drives


def _contender(
    name: str, server: Server, environment: ServerEnvironment, stack: ExitStack
) -> Drive:
    match name:
        case "harness-locust" | "harness-grpcio":
            own = name == "harness-locust"
            ours = engine(
                server.endpoint.http,
                server.endpoint.grpc,
                workers=1,
                log_dir=server.payloads.parent / name,
                implementation=GrpcImplementation.NATIVE if own else GrpcImplementation.GRPCIO,
            )
            return HarnessLocust(server, stack.enter_context(ours))
        case "harness":
            return HarnessBare(server)
        case "locust-tritonclient":
            return NaiveLocust(server)
        case _:
            return PerfAnalyzerClient(server, perf_analyzer(environment))


def _measure(
    drives: Mapping[str, Drive], client: TritonClient, options: argparse.Namespace
) -> dict[Key, list[Seen]]:
    seen: dict[Key, list[Seen]] = defaultdict(list)
    given_up: set[Key] = set()
    points = [(p, n) for p in options.protocols for n in options.in_flight]
    for turn in range(options.rounds):
        for protocol, in_flight in points:
            for name, drive in drives.items():
                key = (name, protocol, in_flight)
                if key in given_up or (name, protocol) in options.left_out:
                    continue
                try:
                    seen[key].append(_seen(drive, key, client, options.seconds))
                except (PeerError, GeneratorError) as reason:
                    given_up.add(key)
                    seen.pop(key, None)
                    skip(f"{name}, {protocol}, {in_flight} in flight", reason)
                except ServerError as reason:
                    skip(f"everything from {name}, {protocol}, {in_flight} in flight on", reason)
                    return seen
        print(f"round {turn + 1} of {options.rounds} done", file=sys.stderr)
    return seen


def _seen(drive: Drive, key: Key, client: TritonClient, seconds: float) -> Seen:
    """A client over a window; tried again for longer where it fails or ends too early."""
    try:
        return _watch(drive, key, client, seconds, TAILS_S[0])
    except PeerError as reason:
        print(f"again for longer: {', '.join(map(str, key))}: {reason}", file=sys.stderr)
        return _watch(drive, key, client, seconds, TAILS_S[1])


def _watch(drive: Drive, key: Key, client: TritonClient, seconds: float, tail_s: float) -> Seen:
    """Let a client run and look at it over a window."""
    _, protocol, in_flight = key
    idle = _answered(client)
    with drive(Point(protocol, in_flight, SETTLE_S + seconds + tail_s)) as run:
        _wait_for_answers(run, client, more_than=idle + _FIRST_ANSWERS)
        time.sleep(SETTLE_S)
        before = _Mark.of(run, client)
        time.sleep(seconds)
        after = _Mark.of(run, client)
        percentiles = run.percentiles_ms()
    requests = after.answered - before.answered
    if not requests:
        raise PeerError(f"no answers in {seconds:g} s")
    return Seen(
        requests_per_s=requests / (after.time_s - before.time_s),
        cpu_us_per_request=1e6 * (after.cpu_s - before.cpu_s) / requests,
        p50_ms=percentiles["p50"],
        p99_ms=percentiles["p99"],
    )


@dataclass(frozen=True)
class _Mark:
    time_s: float
    answered: int
    cpu_s: float

    @classmethod
    def of(cls, run: Run, client: TritonClient) -> _Mark:
        try:
            times = [psutil.Process(pid).cpu_times() for pid in run.pids]
        except psutil.NoSuchProcess as error:
            raise PeerError("it ended before the window did") from error
        return cls(time.monotonic(), _answered(client), sum(t.user + t.system for t in times))


def _answered(client: TritonClient) -> int:
    """Requests that the server has answered so far, those out of its cache included."""
    return int(client.statistics(CACHED_MODEL)["inference_stats"]["success"]["count"])


def _wait_for_answers(run: Run, client: TritonClient, *, more_than: int) -> None:
    deadline = time.monotonic() + START_UP_S
    while _answered(client) <= more_than:
        run.check()
        if time.monotonic() > deadline:
            raise PeerError(f"no answers within {START_UP_S:g} s of its start")
        time.sleep(0.02)


def _rows(seen: Mapping[Key, Sequence[Seen]]) -> list[Row]:
    """A row per client and point; its ratios are over the yardstick's with as many in flight."""
    medians = {key: _median(rounds) for key, rounds in seen.items()}
    rows: list[Row] = []
    for key, own in sorted(medians.items(), key=_order):
        client, protocol, in_flight = key
        yardstick = medians.get((*YARDSTICK, in_flight))
        rows.append(
            {
                "client": client,
                "protocol": protocol,
                "in_flight": in_flight,
                "requests_per_s": own.requests_per_s,
                "cpu_us_per_request": own.cpu_us_per_request,
                "latency_p50_ms": own.p50_ms,
                "latency_p99_ms": own.p99_ms,
                "cpu_ratio": _over(own, yardstick, "cpu_us_per_request"),
                "rate_ratio": _over(own, yardstick, "requests_per_s"),
            }
        )
    return rows


def _median(rounds: Sequence[Seen]) -> Seen:
    return Seen(
        **{
            one.name: statistics.median(getattr(each, one.name) for each in rounds)
            for one in fields(Seen)
        }
    )


def _over(own: Seen, yardstick: Seen | None, name: str) -> float:
    return getattr(own, name) / getattr(yardstick, name) if yardstick else math.nan


def _order(item: tuple[Key, Seen]) -> tuple[str, int, int]:
    client, protocol, in_flight = item[0]
    return protocol, in_flight, CLIENTS.index(client)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="16 in flight, 1 round of 1 s")
    parser.add_argument(
        "--peer-over-http",
        action="store_true",
        help="perf_analyzer over HTTP too: against a model this fast it often runs away",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    options.left_out = {("harness-grpcio", "http")}
    if not options.peer_over_http:
        options.left_out.add(("perf_analyzer", "http"))
    if options.quick:
        options.in_flight, options.rounds, options.seconds = [16], 1, 1.0
    return options


if __name__ == "__main__":
    run_as_command(main)
