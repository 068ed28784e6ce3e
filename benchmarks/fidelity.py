"""Whether a client reports the latency that was: known latencies, a stall, and perf_analyzer.

Three questions, a row for each client, protocol and percentile:

- *Known latencies*: a server injects them (`latency_cases.py`) and logs what each request really
  took. At low load a client should recover that, up to the loopback and its own cost: of every
  request by its id (`request_errors.py`; ours alone writes them down), and in percentiles.
- *A stall*: the server answers nothing for 1 s in every 10. The truth is what theory gives for
  requests that fall due whatever the server does. Ours in open loop should report it; closed loops,
  ours and Locust's `constant_throughput`, stop sending while the server stalls, and miss it.
  Of ours, `answered_ms` is when the server had answered by its own log: on a busy machine, later.
- *Beside perf_analyzer* on a real model with as many in flight; here its figure is the truth.

    python benchmarks/fidelity.py --json rows.json
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cached_model import CLASSES, rows
from client_process import PeerError
from latency_cases import STALL, STEADY_CASES, Stall
from naive_locust import NaiveLoad, drive_naively
from ours import closed_loop, engine, open_loop, percentiles_ms, run_ours
from peers import PeerLoad, PerfAnalyzer, perf_analyzer
from request_errors import LostProcessor, RequestErrors, answered_ms, request_errors
from rows import Row, run_as_command, show, skip, write_rows
from timed_process import TimedServer, timed_server

from harness.errors import GeneratorError, HarnessError
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.requests.payloads import write_payloads
from harness.serving.embedded.environment import ensure_server_environment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import Endpoint, TritonClient
from harness.types import TensorSpec, Workload

PROTOCOLS = ("http", "grpc")
PARTS = ("known", STALL, "real-model")
RATE_PER_S = 100.0
CLOSED_IN_FLIGHT = 4
WARMUP_S = 1.0
PERF_ANALYZER_GRACE_S = 60.0

# What counts as recovered: a share of the truth, or so many milliseconds.
KNOWN_TOLERANCE, KNOWN_TOLERANCE_MS = 0.01, 0.2
STALL_TOLERANCE = 0.03
PEER_TOLERANCE = 0.03

_OUTPUTS = (TensorSpec("logits", "FP32", (CLASSES,)),)
_PAYLOAD_ROWS = 8


@dataclass(frozen=True)
class Recovered:
    """What a client says of one run."""

    client: str
    protocol: str
    percentiles_ms: Mapping[str, float]
    start_ns: int
    end_ns: int
    records: Path | None = None
    """Every request, where the client writes them down."""
    lost: Sequence[tuple[int, int]] = ()
    """When client or server lost a processor, where that was watched."""


def main() -> int:
    """Measure each part and show the rows."""
    options = _parse(sys.argv[1:])
    found: list[Row] = []
    by_request: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_payloads(folder / "payloads.npz", [rows(_PAYLOAD_ROWS)])
        if "known" in options.parts:
            for case in options.cases:
                rows_found, errors = _known_latencies(case, folder, options)
                found += rows_found
                by_request += errors
        if STALL in options.parts:
            found += _stall(folder, options)
        if "real-model" in options.parts:
            found += _beside_perf_analyzer(folder, options)
    if not found:
        raise PeerError("nothing could be measured")
    if by_request:
        show("Fidelity, request by request (error: client's time less the server's)", by_request)
    show("Fidelity in percentiles (error: share of the truth)", found)
    write_rows([*by_request, *found], options.json)
    return 0


def _known_latencies(
    case: str, folder: Path, options: argparse.Namespace
) -> tuple[list[Row], list[Row]]:
    """In percentiles, and request by request."""
    stall = Stall(options.stall_s, options.period_s)
    with timed_server(case, folder, stall) as server:
        runs = list(_clients(server, folder, options.seconds, closed=False))
    found, by_request = [], []
    truth = server.by_id()
    for run in runs:
        if run.records is not None:
            errors = request_errors(run.records, truth, run.lost)
            by_request.append(_errors_row(case, run, errors))
        for name, recovered_ms in run.percentiles_ms.items():
            truth_ms = server.truth_ms(int(name[1:]) / 100, run.start_ns, run.end_ns)
            tolerance_ms = max(KNOWN_TOLERANCE_MS, KNOWN_TOLERANCE * truth_ms)
            found.append(_row(case, run, name, truth_ms, recovered_ms, tolerance_ms))
    return found, by_request


def _stall(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Whole periods, because theory is of a due time that is uniform in one."""
    stall = Stall(options.stall_s, options.period_s)
    seconds = options.periods * options.period_s
    with timed_server(STALL, folder, stall) as server:
        runs = list(_clients(server, folder, seconds, closed=True))
    logged = server.by_id()
    for run in runs:
        answered: Sequence[float] = ()
        if run.records is not None:
            answered = answered_ms(run.records, logged, run.start_ns, run.end_ns).tolist()
        for name, recovered_ms in run.percentiles_ms.items():
            truth_ms = 1000 * stall.response_s(int(name[1:]) / 100)
            tolerance_ms = max(KNOWN_TOLERANCE_MS, STALL_TOLERANCE * truth_ms)
            row = _row(STALL, run, name, truth_ms, recovered_ms, tolerance_ms)
            rank = math.ceil(int(name[1:]) * len(answered) / 100)
            yield {**row, "answered_ms": answered[rank - 1] if answered else math.nan}


def _clients(
    server: TimedServer, folder: Path, seconds: float, *, closed: bool
) -> Iterator[Recovered]:
    """Every client over both protocols, one after another; one that fails is skipped."""
    with engine(server.http, server.grpc, workers=1, log_dir=folder / "logs") as generators:
        for protocol in PROTOCOLS:
            window = {"seconds": seconds, "warmup_s": WARMUP_S}
            loads = {"harness-locust": open_loop(protocol, rate_per_s=RATE_PER_S, **window)}
            if closed:
                loads["harness-locust-closed"] = closed_loop(
                    protocol, in_flight=CLOSED_IN_FLIGHT, **window
                )
            for name, workload in loads.items():
                try:
                    yield _ours(name, generators, server, folder, workload)
                except GeneratorError as reason:
                    skip(f"{name}, {protocol}", reason)
    for protocol in PROTOCOLS:
        try:
            yield _naive(server, protocol, seconds)
        except PeerError as reason:
            skip(f"locust-tritonclient, {protocol}", reason)


def _ours(
    name: str, generators: LoadGenerators, server: TimedServer, folder: Path, workload: Workload
) -> Recovered:
    records = Path(tempfile.mkdtemp(dir=folder, prefix="records-"))
    job = LoadJob("timed", folder / "payloads.npz", _OUTPUTS, workload, records=records)
    with LostProcessor(lambda: (server.pid, *generators.pids)) as watch:
        result = run_ours(generators, job)
    if result.failures or result.dropped:
        raise GeneratorError(f"{result.failures}, {result.dropped} dropped: {result.first_failure}")
    return Recovered(
        name,
        str(workload.protocol),
        percentiles_ms(result.window),
        result.window_start_ns,
        result.window_end_ns,
        records,
        watch.stretches,
    )


def _naive(server: TimedServer, protocol: str, seconds: float) -> Recovered:
    """Locust's own way to a rate, `constant_throughput`: a closed loop that paces itself."""
    address = f"{protocol}://{server.http if protocol == 'http' else server.grpc}"
    per_user_per_s = RATE_PER_S / CLOSED_IN_FLIGHT
    start_ns = time.monotonic_ns()
    with drive_naively(
        NaiveLoad(address, "timed", CLOSED_IN_FLIGHT, seconds, per_user_per_s)
    ) as run:
        percentiles = run.percentiles_ms()
    return Recovered("locust-tritonclient", protocol, percentiles, start_ns, time.monotonic_ns())


def _beside_perf_analyzer(folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    if not (options.repository / options.model).is_dir():
        raise HarnessError(
            f"{options.repository} has no {options.model}",
            next_step="harness export studies/reference.yaml, or --parts known stall",
        )
    environment = ensure_server_environment(lambda step: print(step.note, file=sys.stderr))
    try:
        peer = perf_analyzer(environment)
    except PeerError as reason:
        skip("beside perf_analyzer", reason)
        return
    with EmbeddedTriton(environment, options.repository, log_file=folder / "triton.log") as server:
        with TritonClient(server.endpoint) as client:
            client.load(options.model)
            _, outputs = client.metadata(options.model)
        for protocol in options.peer_protocols:
            yield from _side_by_side(server.endpoint, peer, outputs, protocol, folder, options)


def _side_by_side(
    endpoint: Endpoint,
    peer: PerfAnalyzer,
    outputs: tuple[TensorSpec, ...],
    protocol: str,
    folder: Path,
    options: argparse.Namespace,
) -> Iterator[Row]:
    """Interleaved rounds; each side's median of its percentiles."""
    address = endpoint.http if protocol == "http" else endpoint.grpc
    row = {name: array[0] for name, array in rows(1).items()}
    load = PeerLoad(address, protocol, options.model, row, options.in_flight)
    workload = closed_loop(
        protocol, in_flight=options.in_flight, seconds=options.seconds, warmup_s=WARMUP_S
    )
    job = LoadJob(options.model, folder / "payloads.npz", outputs, workload)
    ours: list[Mapping[str, float]] = []
    theirs: list[Mapping[str, float]] = []
    with engine(endpoint.http, endpoint.grpc, workers=1, log_dir=folder / "logs") as generators:
        for _ in range(options.rounds):
            ours.append(percentiles_ms(run_ours(generators, job).window))
            with peer.drive_for(load, options.seconds) as run:
                theirs.append(run.percentiles_ms(options.seconds + PERF_ANALYZER_GRACE_S))
    for name in ("p50", "p95", "p99"):
        truth_ms, recovered_ms = (
            statistics.median(each[name] for each in side) for side in (theirs, ours)
        )
        found = Recovered("harness-locust", protocol, {}, 0, 0)
        tolerance_ms = PEER_TOLERANCE * truth_ms
        yield _row("beside perf_analyzer", found, name, truth_ms, recovered_ms, tolerance_ms)


def _row(
    case: str,
    run: Recovered,
    percentile: str,
    truth_ms: float,
    recovered_ms: float,
    tolerance_ms: float,
) -> Row:
    difference_ms = recovered_ms - truth_ms
    return {
        "case": case,
        "client": run.client,
        "protocol": run.protocol,
        "percentile": percentile,
        "truth_ms": truth_ms,
        "recovered_ms": recovered_ms,
        "error": difference_ms / truth_ms,
        "error_ms": difference_ms,
        "recovered": "yes" if abs(difference_ms) <= tolerance_ms else "no",
        "answered_ms": math.nan,
    }


def _errors_row(case: str, run: Recovered, errors: RequestErrors) -> Row:
    return {
        "case": case,
        "client": run.client,
        "protocol": run.protocol,
        "requests": errors.requests,
        "joined": errors.joined,
        "while_no_cpu_was_lost": errors.quiet,
        "median_error_us": errors.median_us,
        "p99_error_us": errors.p99_us,
        "worst_error_us": errors.worst_us,
        "p99_error_of_all_us": errors.p99_of_all_us,
        "recovered": _word(errors),
    }


def _word(errors: RequestErrors) -> str:
    """Nothing is known where a processor was lost all the time."""
    if errors.joined == errors.requests and not errors.quiet:
        return "unknown"
    return "yes" if errors.recovered else "no"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--cases", nargs="+", choices=STEADY_CASES, default=list(STEADY_CASES), help="of `known`"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run but the stall's")
    parser.add_argument("--stall-s", type=float, default=1.0)
    parser.add_argument("--period-s", type=float, default=10.0, help="from stall to stall")
    parser.add_argument("--periods", type=int, default=3)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", default="topics-teacher-fp32")
    parser.add_argument("--in-flight", type=int, default=4, help="on the real model")
    parser.add_argument("--peer-protocols", nargs="+", choices=PROTOCOLS, default=["grpc"])
    parser.add_argument("--rounds", type=int, default=3, help="on the real model")
    parser.add_argument("--quick", action="store_true", help="2 s each; stalls 0.2 s every 2 s")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.rounds = 2.0, 1
        options.stall_s, options.period_s, options.periods = 0.2, 2.0, 2
    return options


if __name__ == "__main__":
    run_as_command(main)
