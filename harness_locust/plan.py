"""What one Locust test does, read from the arguments or the web page's form."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path

from harness.errors import UsageError
from harness.flow.preflight import payloads_of
from harness.load.requests.generation import GenerationRequest
from harness.load.requests.lengths import parse_lengths
from harness.load.requests.prompts import check_sendable, read_prompts
from harness.load.schedule.arrivals import check_workload
from harness.load.schedule.trace import read_trace
from harness.load.transports.address import Target, parse_target
from harness.study.clauses import check_counted, check_priced, check_streamed, load_clauses
from harness.study.objective import parse_objective
from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    Generation,
    GrpcImplementation,
    LoadMode,
    LoadShape,
    ServiceLevelObjective,
    ShapeKind,
    StreamApi,
    TraceUnit,
    WireProtocol,
    Workload,
)
from harness.types.workloads import parse_arrivals, parse_mix, parse_shape

AUTO = "auto"
"""Take the protocol, the load mode or a trace's unit from the host, the rate or the file."""
NO_STREAMS = "no"
"""Of the interface of streams: answers come in one."""
DEFAULT_ANSWER = "64"
"""Tokens of an answer whose prompt does not say how many."""
NO_VARIANT = "none"
"""No variant: a model and its payloads are named instead."""
GRPC_SCHEMES = ("grpc", "grpcs")
TRITON_PORTS = {"http": "8000", "grpc": "8001"}
METRICS_PORT = "8002"
NO_OBJECTIVE = ServiceLevelObjective("", ())
SHORTEST_STEP_S = 3.0
"""Locust changes the number of users once per second, and a step is left a second to settle."""
LEAD_S = 1.0
"""Time for Locust to start a user in each process: none of them may begin late."""
_MOMENT_S = 0.001
"""For a test without an end: no trace is too short for it, as the load ends with the trace."""


@dataclass(frozen=True)
class Plan:
    """A test, before it is known which process does which part of it."""

    host: str
    """The host as given."""
    target: Target
    grpc: GrpcImplementation
    model: str
    payloads: Path
    known_answers: Path | None
    workload: Workload
    request_timeout_s: float
    run_time_s: float | None
    """Seconds the test runs; None: until somebody stops it."""
    users_shape: LoadShape | None
    """Closed loop: a factor of the user count."""
    sweep: tuple[int, ...]
    """Closed loop: user counts, one after another; empty for none."""
    step_time_s: float
    histograms: Path | None
    records: Path | None
    slo: ServiceLevelObjective
    """The objective; without clauses if none was given."""
    from_repository: bool
    """The variant was chosen from the server's repository: it may be loaded."""
    metrics_url: str
    trace_s: float | None = None
    """Seconds that the trace of an open loop lasts; None without one."""

    def prompts(self, tell: Callable[[str], None] = lambda _: None) -> list[GenerationRequest]:
        """What a load of streams asks; `tell` is told what of the file is left out.

        Raises:
            DataError: the payloads are no prompts.
            UsageError: they are messages, and the interface takes texts.
        """
        lengths = parse_lengths(DEFAULT_ANSWER)
        found = read_prompts(self.payloads, lengths, self.workload.seed, None, tell)
        if (generation := self.workload.generation) is not None:
            check_sendable(found, self.payloads, generation.api)
        return found

    @property
    def is_open_loop(self) -> bool:
        """Whether requests fall due by their own schedule."""
        return self.workload.load_mode is LoadMode.OPEN

    @property
    def lead_s(self) -> float:
        """Seconds from the test's start to the first instant of an open loop's arrivals."""
        return LEAD_S if self.is_open_loop else 0.0

    @property
    def end_s(self) -> float | None:
        """Seconds from the test's start until nothing falls due; None: until it is stopped."""
        # Asked for every second of a test, by the process that may send the load itself.
        lasts_s = min(self.trace_s or inf, self.run_time_s or inf)
        return self.lead_s + lasts_s if isfinite(lasts_s) else None


def make_plan(options: Namespace, host: str | None) -> Plan:
    """Read the arguments.

    Args:
        options: of `arguments.py`, with Locust's own.
        host: HOST:PORT, http://, https://, grpc:// or grpcs://.

    Raises:
        UsageError: the first thing that is wrong with them.
    """
    model, payloads = _what_to_send(options)
    if not host:
        raise UsageError("no server", next_step="--host says which, such as http://127.0.0.1:8000")
    host = _host_for(options.protocol, host)
    workload = _workload(options, host)
    if workload.generation is not None:
        _check_streams(options, workload.generation, host)
    check_workload(workload)
    sweep = _steps(options.sweep)
    users_shape = parse_shape(options.users_shape) if options.users_shape else None
    _check_exclusive(workload, sweep, users_shape)
    step_time_s = _positive("--step-time", options.step_time)
    if sweep and step_time_s < SHORTEST_STEP_S:
        raise UsageError(f"steps of {step_time_s:g} s: {SHORTEST_STEP_S:g} s are the shortest")
    return Plan(
        host=host,
        target=_target(options, host),
        grpc=GrpcImplementation(options.transport),
        model=model,
        payloads=payloads,
        known_answers=_path(options.known_answers),
        workload=workload,
        request_timeout_s=_positive("--request-timeout", options.request_timeout),
        run_time_s=_run_time_s(options),
        users_shape=users_shape,
        sweep=sweep,
        step_time_s=step_time_s,
        histograms=_path(options.histograms),
        records=_path(options.records),
        slo=_objective(options.objective, streams=workload.generation is not None),
        from_repository=bool(_variant(options)),
        metrics_url=options.metrics_url or _metrics_url(host),
        trace_s=_trace_s(workload.arrivals),
    )


def _trace_s(arrivals: ArrivalProcess) -> float | None:
    """Reading a trace takes a fraction of a second, or many: it is done before the test begins."""
    if arrivals.trace is None:
        return None
    return read_trace(arrivals.trace, arrivals.trace_unit).duration_s


def _objective(text: str, *, streams: bool) -> ServiceLevelObjective:
    """Quality is not a load test's business: beside other clauses it is left to others."""
    if not text.strip():
        return NO_OBJECTIVE
    slo = parse_objective(text)
    check_priced(slo)
    check_counted(slo)
    if not streams:
        check_streamed(slo)
    if not load_clauses(slo):
        raise UsageError(
            f"--objective {text!r}: a load test does not measure quality",
            next_step="name a latency, a throughput or an error rate, such as p95 < 50 ms",
        )
    return slo


def _what_to_send(options: Namespace) -> tuple[str, Path]:
    """Name of the model and its payloads: a variant's of the repository, or as they are given."""
    variant = _variant(options)
    if variant and options.model and options.model != variant:
        raise UsageError(
            f"the variant {variant} and the model {options.model}",
            next_step="choose one: --variant from the repository, --model any on the server",
        )
    if variant and options.payloads:
        return variant, Path(options.payloads)
    if variant:
        return variant, payloads_of(Path(options.repository), variant)
    if not options.model or not options.payloads:
        raise UsageError(
            "nothing to send",
            next_step="choose a --variant of the repository, or "
            "--model and --payloads say what: both are needed",
        )
    return options.model, Path(options.payloads)


def _variant(options: Namespace) -> str:
    """The one that was chosen; empty where none was."""
    return "" if options.variant == NO_VARIANT else str(options.variant)


def _host_for(protocol: str, host: str) -> str:
    """The host, moved to the port of the protocol that was chosen, where that is Triton's own."""
    scheme, _, place = host.rstrip("/").rpartition("://")
    encrypted = scheme in {"https", "grpcs"}
    if protocol == AUTO or (scheme in GRPC_SCHEMES) == (protocol == "grpc"):
        return host
    wanted = protocol + ("s" if encrypted else "")
    place, _, prefix = place.partition("/")
    name, _, port = place.rpartition(":")
    moved = TRITON_PORTS[protocol]
    if prefix or port not in TRITON_PORTS.values():
        raise UsageError(
            f"the host {host} does not say where {protocol} is spoken",
            next_step=f"write it as {wanted}://HOST:PORT",
        )
    return f"{wanted}://{name}:{moved}"


def _metrics_url(host: str) -> str:
    """Where Triton shows its metrics unless it was told otherwise; empty for other ports."""
    name, _, port = host.rpartition("://")[2].partition("/")[0].rpartition(":")
    return f"http://{name}:{METRICS_PORT}/metrics" if port in TRITON_PORTS.values() else ""


def _workload(options: Namespace, host: str) -> Workload:
    arrivals = _arrivals(options)
    is_open = bool(options.rate) or arrivals.kind is ArrivalKind.TRACE
    _check_load_mode(options.load_mode, is_open=is_open)
    if not is_open and (options.arrivals or options.shape):
        raise UsageError(
            "arrivals or a shape without a rate",
            next_step="--rate says how many requests/s; --users-shape shapes a closed loop",
        )
    mix = parse_mix(options.batch_mix) if options.batch_mix else ()
    if mix and options.client_batch_size:
        raise UsageError(
            "a client batch size and a mix of them", next_step="leave --client-batch-size out"
        )
    batch_size = _whole("--client-batch-size", options.client_batch_size or "1")
    return Workload(
        protocol=_protocol(host),
        client_batch_size=max((size for size, _ in mix), default=batch_size),
        concurrency=_whole("--max-in-flight", options.max_in_flight) if is_open else 1,
        duration_s=_run_time_s(options) or _MOMENT_S,
        warmup_s=0.0,
        seed=_whole("--seed", options.seed),
        load_mode=LoadMode.OPEN if is_open else LoadMode.CLOSED,
        rate_per_s=_number("--rate", options.rate) if options.rate else None,
        arrivals=arrivals,
        batch_mix=mix,
        length_mix=parse_mix(options.length_mix) if options.length_mix else (),
        cached_answers=bool(options.response_cache),
        generation=_generation(options),
    )


def _generation(options: Namespace) -> Generation | None:
    """How streams are asked for; None where answers come in one."""
    if options.generate == NO_STREAMS:
        return None
    name = Path(options.payloads).name or "the repository"
    return Generation(StreamApi(options.generate), traffic=f"prompts of {name}")


def _check_streams(options: Namespace, generation: Generation, host: str) -> None:
    if not options.payloads:
        raise UsageError(
            "streams without prompts",
            next_step='--payloads names JSON lines: {"prompt": "...", "max_tokens": 64}',
        )
    rows = ("client_batch_size", "batch_mix", "length_mix", "known_answers")
    given = next((name for name in rows if getattr(options, name)), "")
    if given:
        raise UsageError(
            f"--{given.replace('_', '-')} is of answers that come in one",
            next_step="leave it out, or --generate: a stream answers one prompt",
        )
    if generation.api.is_openai and _protocol(host) is WireProtocol.GRPC:
        raise UsageError(
            f"--generate {generation.api} is spoken over HTTP, and the host is gRPC's",
            next_step="name http://HOST:PORT, or use --generate triton",
        )


def _check_load_mode(asked: str, *, is_open: bool) -> None:
    if asked == LoadMode.OPEN and not is_open:
        raise UsageError(
            "an open loop without a rate", next_step="--rate says how many requests/s fall due"
        )
    if asked == LoadMode.CLOSED and is_open:
        raise UsageError(
            "a closed loop with a rate",
            next_step="leave --rate and the trace out, or choose an open loop",
        )


def _arrivals(options: Namespace) -> ArrivalProcess:
    unit = TraceUnit(options.trace_unit) if options.trace_unit != AUTO else None
    drawn = parse_arrivals(options.arrivals or str(ArrivalKind.POISSON), unit)
    return replace(drawn, shape=parse_shape(options.shape or str(ShapeKind.FLAT)))


def _check_exclusive(
    workload: Workload, sweep: tuple[int, ...], users_shape: LoadShape | None
) -> None:
    if sweep and users_shape:
        raise UsageError("a sweep and a shape of the users", next_step="choose one of them")
    if workload.load_mode is LoadMode.OPEN and (sweep or users_shape):
        raise UsageError(
            "a rate with a sweep or a shape of the users: these are for a closed loop",
            next_step="leave --rate out, or shape the rate with --shape",
        )


def _protocol(host: str) -> WireProtocol:
    is_grpc = host.partition("://")[0] in GRPC_SCHEMES
    return WireProtocol.GRPC if is_grpc else WireProtocol.HTTP


def _target(options: Namespace, host: str) -> Target:
    headers = []
    for text in options.header:
        name, colon, value = text.partition(":")
        if not colon:
            raise UsageError(f"'{text}' is not a header", next_step="write it as 'NAME: VALUE'")
        headers.append((name.strip(), value.strip()))
    return parse_target(
        host.rstrip("/"),
        headers=tuple(headers),
        ca_file=_path(options.ca_file),
        verify=not options.insecure,
    )


def _run_time_s(options: Namespace) -> float | None:
    return float(options.run_time) if options.run_time else None


def _steps(text: str) -> tuple[int, ...]:
    steps = tuple(_whole("--sweep", step) for step in text.split(",")) if text else ()
    if any(step < 1 for step in steps):
        raise UsageError(f"--sweep {text}: every step needs at least one user")
    if len(set(steps)) < len(steps):
        raise UsageError(
            f"--sweep {text}: the same step twice, whose results would be taken for each other's",
            next_step="name each once, or start the test again for more of them",
        )
    return steps


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _positive(name: str, text: str) -> float:
    number = _number(name, text)
    if not (isfinite(number) and number > 0):
        raise UsageError(f"{name} {text}: it must be above 0")
    return number


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{name} '{text}' is not a number") from error


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"{name} '{text}' is not a whole number") from error
