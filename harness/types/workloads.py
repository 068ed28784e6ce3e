"""Both sides of a trial: how Triton serves, how requests fall due, and how a load is written.

    arrivals   constant | poisson | gamma:CV | trace:FILE        gamma:2
    shape      flat | KIND:LOW..HIGH/PERIOD                      sine:0.5..1.5/60s
    mix        SIZE:WEIGHT,SIZE:WEIGHT,...                       1:0.7,8:0.3

What is written of a value reads back as that value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from pathlib import Path

from harness.errors import UsageError


class Accelerator(StrEnum):
    """What runs an ONNX graph on a GPU: Triton's names of ONNX Runtime's providers."""

    NONE = "none"
    """What the kind of instance asks for: on a GPU the CUDA provider with its defaults."""
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    """The provider that builds TensorRT engines while the model loads."""


@dataclass(frozen=True)
class ServingConfig:
    """Triton's side of a trial; 0 is what an external server does not say."""

    max_batch_size: int = 16
    queue_delay_us: int = 0
    instance_count: int = 1
    instance_kind: str = "cpu"
    """`cpu` or `gpu`."""
    intra_op_threads: int = 1
    """ONNX Runtime's threads within an operator, per instance."""
    accelerator: Accelerator = Accelerator.NONE
    """What executes an ONNX graph on a GPU."""
    response_cache: bool = False
    """Triton's response cache may answer in the model's place."""

    @property
    def told(self) -> bool:
        """Whether the configuration is known: some external servers do not say."""
        return self.instance_count > 0 or self.max_batch_size > 0

    @property
    def label(self) -> str:
        """Short and unique, as it stands in trial identifiers."""
        if not self.told:
            return "as-served"
        accelerated = "" if self.accelerator is Accelerator.NONE else f"-{self.accelerator}"
        cached = "-cache" if self.response_cache else ""
        return (
            f"mb{self.max_batch_size}-qd{self.queue_delay_us}"
            f"-i{self.instance_count}-t{self.intra_op_threads}{accelerated}{cached}"
        )


def answering_version(versions: Iterable[str]) -> str:
    """The version that answers a request that names none: the highest number.

    Names that are no numbers come before all numbers, the last by the alphabet first; empty of
    none at all.
    """
    return max(versions, key=_rank, default="")


def _rank(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (-1, version)


class WireProtocol(StrEnum):
    """How a client speaks KServe v2 to the server."""

    HTTP = "http"
    GRPC = "grpc"


class GrpcImplementation(StrEnum):
    """Which implementation of gRPC sends the requests."""

    NATIVE = "native"
    """The harness's own HTTP/2 path."""
    GRPCIO = "grpcio"
    """The reference implementation, at several times the CPU per request."""


class StreamApi(StrEnum):
    """The interface by which a model is asked to generate."""

    TRITON = "triton"
    """The tensors of Triton's vLLM backend: `ModelStreamInfer` over gRPC, `/generate_stream` over
    HTTP."""
    CHAT = "chat"
    """OpenAI's `/v1/chat/completions`."""
    COMPLETIONS = "completions"
    """OpenAI's `/v1/completions`."""

    @property
    def is_openai(self) -> bool:
        """Whether the interface is one of OpenAI's."""
        return self is not StreamApi.TRITON


@dataclass(frozen=True)
class Generation:
    """What a load asks a generating model for; the prompts themselves are in the payload file."""

    api: StreamApi
    traffic: str = ""
    """Prompts and lengths in words: `128 tokens in, 64 out`."""
    sampling: str = ""
    """JSON object of sampling parameters beside `max_tokens`; empty: the server's defaults."""
    tokenizer: Path | None = None
    """Tokenizer by which the tokens of answers are counted; None counts as the server says."""
    inputs: tuple[str, ...] = ()
    """Names of the inputs of a model on Triton."""
    batched: bool = False
    """Whether the tensors of a model on Triton have a batch dimension."""
    converses: bool = False
    """Whether requests are turns of conversations, between which a slot rests on purpose."""
    prompts: int = 0
    """Different requests that are sent, turns of conversations included, before the first comes
    again; 0 where it is not told."""


class LoadMode(StrEnum):
    """What makes the next request due."""

    CLOSED = "closed"
    """N requests in flight: the next is sent when one completes."""
    OPEN = "open"
    """Requests fall due at times fixed in advance, whatever the server does."""


class ArrivalKind(StrEnum):
    """How the times between an open loop's requests are drawn."""

    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"
    """Burstier (or smoother) than Poisson: `burstiness_cv` is what tells them apart."""
    TRACE = "trace"
    """Timestamps from a file."""


class TraceUnit(StrEnum):
    """What a trace's numbers count."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"


class ShapeKind(StrEnum):
    """How a load changes over time."""

    FLAT = "flat"
    RAMP = "ramp"
    STEP = "step"
    SPIKE = "spike"
    SINE = "sine"
    """Diurnal: `period_s` is the day."""


@dataclass(frozen=True)
class LoadShape:
    """A factor of the nominal load over time, for open loops (rate) and closed ones (users).

    `harness.load.schedule.shapes` says what each kind does with `low`, `high` and `period_s`.
    """

    kind: ShapeKind = ShapeKind.FLAT
    low: float = 1.0
    high: float = 1.0
    period_s: float = 60.0


@dataclass(frozen=True)
class ArrivalProcess:
    """How an open loop's requests fall due."""

    kind: ArrivalKind = ArrivalKind.POISSON
    burstiness_cv: float = 1.0
    """Gamma only: coefficient of variation of the gaps; 1 is Poisson, above it comes in bursts."""
    trace: Path | None = None
    shape: LoadShape = LoadShape()
    trace_unit: TraceUnit | None = None
    """Unit of the trace's numbers, where the person states it; None: as the file says."""

    @property
    def label(self) -> str:
        """Short, as it stands in trial identifiers."""
        name = str(self.kind)
        if self.kind is ArrivalKind.GAMMA:
            name += f"{self.burstiness_cv:g}"
        if self.trace is not None:
            name += f"-{self.trace.stem}"
        if self.shape.kind is not ShapeKind.FLAT:
            name += f"-{self.shape.kind}{self.shape.low:g}to{self.shape.high:g}"
        return name


@dataclass(frozen=True)
class Workload:
    """The client's side of a trial."""

    protocol: WireProtocol
    client_batch_size: int
    """Rows per request; with a mix, its largest."""
    concurrency: int
    """Closed loop: requests in flight. Open loop: the bound of requests in flight; what falls due
    beyond it is dropped, and counted."""
    duration_s: float
    """Seconds of the measured window: its length, or its longest where the trial may end once
    decided."""
    warmup_s: float
    """Longest warm-up; it ends sooner where a steady state is found, not before `min_warmup_s`."""
    seed: int
    load_mode: LoadMode = LoadMode.CLOSED
    rate_per_s: float | None = None
    """Open loop: nominal requests per second; None for a trace, which has its own."""
    arrivals: ArrivalProcess = ArrivalProcess()
    """How requests fall due, in an open loop."""
    min_duration_s: float | None = None
    """The window's shortest, before which nothing is decided; None runs `duration_s` out."""
    batch_mix: tuple[tuple[int, float], ...] = ()
    """(rows, weight): client batch sizes are drawn from it; empty: all of `client_batch_size`."""
    length_mix: tuple[tuple[int, float], ...] = ()
    """(padded length, weight): sequence lengths are drawn from it; empty: the data set's own."""
    cached_answers: bool = False
    """Answers of the server's response cache count as the model's: that is what is measured."""
    generation: Generation | None = None
    """Answers are streams of tokens; None: they come in one."""
    min_warmup_s: float = 0.0
    """Shortest: of a trial that is measured again because its load was not steady yet."""

    @property
    def keeps_in_flight(self) -> bool:
        """Whether `concurrency` requests are in flight all the time.

        Then, by Little's law, the load remembers about as long as a request takes. One whose slots
        think between the turns of a conversation remembers longer, and one whose slots come and go
        by a shape has no steady state to remember.
        """
        thinks = self.generation is not None and self.generation.converses
        changes = self.arrivals.shape.kind is not ShapeKind.FLAT
        return self.load_mode is LoadMode.CLOSED and not thinks and not changes

    @property
    def label(self) -> str:
        """Short and unique, as it stands in trial identifiers."""
        batch = "mix" if self.batch_mix else ""
        rows = f"b{self.client_batch_size}{batch}"
        parts = [str(self.protocol), str(self.generation.api) if self.generation else rows]
        if self.load_mode is LoadMode.OPEN:
            rate = "" if self.rate_per_s is None else f"r{self.rate_per_s:g}-"
            parts.append(f"{rate}{self.arrivals.label}")
        else:
            parts.append(f"c{self.concurrency}")
        return "-".join(parts)


@dataclass(frozen=True)
class RequestRecord:
    """One request: schedule delay is sent - scheduled, service latency completed - sent."""

    scheduled_ns: int
    sent_ns: int
    completed_ns: int
    status: str
    """`ok` or the kind of failure."""


Mix = tuple[tuple[int, float], ...]
"""(size, weight) of each size, by which sizes are drawn."""

LOWEST_CV = 0.01
"""Below it a gamma process is a constant one."""
HIGHEST_CV = 10.0
"""Above it nearly all gaps are too small for a floating-point number."""
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_SHAPE = re.compile(
    r"(?P<kind>ramp|step|spike|sine):(?P<low>[\d.]+)\.\.(?P<high>[\d.]+)"
    r"/(?P<period>\d+(?:\.\d+)?)(?P<unit>s|min|h)"
)


def parse_arrivals(text: str, trace_unit: TraceUnit | None = None) -> ArrivalProcess:
    """Read `constant`, `poisson`, `gamma:CV` (its burstiness) or `trace:FILE`.

    A trace's file is not opened: whether it can be driven is asked by `check_workload`.

    Args:
        text: as it was given.
        trace_unit: of the trace's numbers, where that was given too.

    Raises:
        UsageError: none of these, a burstiness out of range, or the unit of no trace.
    """
    kind, _, argument = text.partition(":")
    if trace_unit is not None and kind != ArrivalKind.TRACE:
        raise UsageError(
            f"the unit of a trace ({trace_unit}), and the arrivals are {text}",
            next_step="leave the unit out, or name a trace:FILE",
        )
    if text in {ArrivalKind.CONSTANT, ArrivalKind.POISSON}:
        return ArrivalProcess(ArrivalKind(text))
    if kind == ArrivalKind.TRACE and argument:
        return ArrivalProcess(ArrivalKind.TRACE, trace=Path(argument), trace_unit=trace_unit)
    try:
        cv = float(argument if kind == ArrivalKind.GAMMA else "")
    except ValueError as error:
        raise UsageError(
            f"'{text}' is not an arrival process",
            next_step="write constant, poisson, gamma:CV (gamma:2 is burstier than poisson), "
            "or trace:FILE",
        ) from error
    check_burstiness(cv)
    return ArrivalProcess(ArrivalKind.GAMMA, burstiness_cv=cv)


def arrivals_text(process: ArrivalProcess) -> str:
    """What `parse_arrivals` reads as this process; its shape and a trace's unit stand apart."""
    if process.kind is ArrivalKind.GAMMA:
        return f"gamma:{_plain(process.burstiness_cv)}"
    return f"trace:{process.trace}" if process.trace is not None else str(process.kind)


def check_burstiness(cv: float) -> None:
    """Refuse a coefficient of variation that no gamma process can be drawn with.

    Raises:
        UsageError: it is out of range, or no number.
    """
    if not LOWEST_CV <= cv <= HIGHEST_CV:
        raise UsageError(
            f"gamma arrivals with a coefficient of variation of {cv:g}",
            next_step=f"choose one from {LOWEST_CV:g} to {HIGHEST_CV:g}; 1 is poisson",
        )


def parse_shape(text: str) -> LoadShape:
    """Read `flat` or KIND:LOW..HIGH/PERIOD: `ramp:0.2..1/60s`, `spike:1..5/10min`, `sine:0..1/1h`.

    Raises:
        UsageError: not of that form, or factors and a period that nothing can be sent by.
    """
    if text == ShapeKind.FLAT:
        return LoadShape()
    found = _SHAPE.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        low, high = float(found["low"]), float(found["high"])
        period_s = float(found["period"]) * _SECONDS[found["unit"]]
    except ValueError as error:
        raise UsageError(
            f"'{text}' is not a shape of a load",
            next_step="write flat, or ramp, step, spike or sine as KIND:LOW..HIGH/PERIOD "
            "with s, min or h, for example ramp:0.2..1/60s",
        ) from error
    shape = LoadShape(ShapeKind(found["kind"]), low, high, period_s)
    check_shape(shape)
    return shape


def shape_text(shape: LoadShape) -> str:
    """What `parse_shape` reads as this shape."""
    if shape.kind is ShapeKind.FLAT:
        return str(shape.kind)
    low, high, period_s = (_plain(one) for one in (shape.low, shape.high, shape.period_s))
    return f"{shape.kind}:{low}..{high}/{period_s}s"


def check_shape(shape: LoadShape) -> None:
    """Refuse a shape that nothing can be sent by.

    Raises:
        UsageError: a factor that is negative or no number, both 0, or no time to change in.
    """
    factors = (shape.low, shape.high)
    if not all(isfinite(one) and one >= 0 for one in factors) or not any(factors):
        raise UsageError(
            f"a shape from {shape.low:g} to {shape.high:g}: factors are 0 or more, one above 0"
        )
    if not (isfinite(shape.period_s) and shape.period_s > 0):
        raise UsageError(f"a shape's period of {shape.period_s:g} s: it must be above 0")


def parse_mix(text: str) -> Mix:
    """Read `1:0.7,8:0.3`; weights need not add up to one.

    Raises:
        UsageError: not of that form, or a mix that `check_mix` refuses.
    """
    mix = []
    for part in text.split(","):
        size, colon, weight = part.partition(":")
        try:
            mix.append((int(size), float(weight if colon else "")))
        except ValueError as error:
            raise UsageError(
                f"'{text}' is not a mix: '{part}'",
                next_step="write it as SIZE:WEIGHT,SIZE:WEIGHT, for example 1:0.7,8:0.3",
            ) from error
    check_mix("the mix", mix)
    return tuple(mix)


def mix_text(mix: Mix) -> str:
    """What `parse_mix` reads as this mix."""
    return ",".join(f"{size}:{_plain(weight)}" for size, weight in mix)


def check_mix(what: str, mix: Sequence[tuple[int, float]]) -> None:
    """Refuse sizes and weights that nothing can be drawn by.

    Raises:
        UsageError: a size below 1, a size twice, or a weight that is not above 0.
    """
    for size, weight in mix:
        if size < 1:
            raise UsageError(f"{what} has a size of {size}: it must be 1 or more")
        if not (isfinite(weight) and weight > 0):
            raise UsageError(f"{what} gives {size} a weight of {weight:g}: it must be above 0")
    for size, times in Counter(size for size, _ in mix).items():
        if times > 1:
            raise UsageError(f"{what} names {size} more than once")


def _plain(number: float) -> str:
    """All digits of a number, without an exponent: `0.00001`, `600`."""
    return format(Decimal(repr(float(number))).normalize(), "f")
