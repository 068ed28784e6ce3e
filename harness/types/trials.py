"""A trial, and all that was measured of it; what the server and the machine told: `measured.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types.estimates import Pricing
from harness.types.latency import (
    RESPONSE,
    Latencies,
    LatencySummary,
    SparseHistogram,
)
from harness.types.measured import HostMetrics, ServerMetrics
from harness.types.streams import NO_STREAMS, Goodput, StreamCounts, StreamFigures
from harness.types.variants import Decision
from harness.types.workloads import ServingConfig, WireProtocol, Workload

_NONE = Latencies()


@dataclass(frozen=True)
class TimeSlice:
    """What was seen of one slice of a load's time; slices of one load are equally long.

    A request belongs to the slice it was scheduled in, however late it completed. Slices of
    several processes add up exactly (`harness.load.engine.slices.SliceSums`).
    """

    index: int
    """Number of the slice, counted from the load's start, warm-up included."""
    ok: Latencies = _NONE
    failed: Latencies = _NONE
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failures by kind, of requests scheduled inside the slice."""
    dropped: int = 0
    """Fell due inside the slice, with no request in flight to spare: never sent."""
    completed: int = 0
    """Successes that completed inside the slice, whenever they were scheduled."""
    inferences: int = 0
    """Samples in the requests of `completed`."""
    good: int = 0
    """Successes scheduled inside the slice that meet every clause on a latency; 0 where no
    objective was given."""
    streams: StreamCounts = NO_STREAMS


@dataclass(frozen=True)
class GeneratorHealth:
    """How one generator process fared over the measured window: whether it kept up."""

    cpu_cores: float
    """1.0 is a core saturated, and with it this process."""
    loop_lag: SparseHistogram
    """How much later than asked its event loop woke a sleeper."""
    memory_bytes: int = 0
    """Resident memory at the window's end."""
    name: str = ""
    """In words: `load generator 0`, `worker 2 on host-b`."""


@dataclass(frozen=True)
class LoadResult:
    """What the load generators saw of one trial, merged over their processes."""

    start_ns: int
    """Start of slice 0: CLOCK_MONOTONIC, as are all times between processes of one machine."""
    slice_s: float
    slices: tuple[TimeSlice, ...]
    """The whole load in order of time, warm-up included; slices without requests are there too."""
    window_start_ns: int
    """Start of a slice: what lies before is warm-up."""
    window_end_ns: int
    """End of a slice."""
    generators: tuple[GeneratorHealth, ...]
    """One for each process."""
    first_failure: str = ""
    """The first failure's own words."""
    records_problem: str = ""
    """Why not every request could be written down one by one, where that was asked for."""
    troubles: tuple[str, ...] = ()
    """What the generators did not do, or tell, of what they should have, each by its name: then
    these numbers are not the whole load's."""
    joined_at: str = ""
    """Where more load generators can join; empty where the harness starts them itself."""
    answers_stamped: bool = False
    """Latencies end when the kernel received the answer, however late the generator read it."""

    @property
    def duration_s(self) -> float:
        """Length of the measured window."""
        return (self.window_end_ns - self.window_start_ns) / 1e9

    @property
    def warmup_s(self) -> float:
        """Length of what was cut before the measured window."""
        return (self.window_start_ns - self.start_ns) / 1e9

    @property
    def window(self) -> tuple[TimeSlice, ...]:
        """The slices of the measured window."""
        return self._window(beside=0)

    def _window(self, beside: int) -> tuple[TimeSlice, ...]:
        """The slices of the measured window, and so many before and behind it."""
        slice_ns = self.slice_s * 1e9
        first = round((self.window_start_ns - self.start_ns) / slice_ns) - beside
        last = round((self.window_end_ns - self.start_ns) / slice_ns) + beside
        return tuple(one for one in self.slices if first <= one.index < last)

    @property
    def busiest_per_s(self) -> float:
        """Successes per second in the busiest slice of the window or beside it.

        An instant that is off by a time may add or lack so many: after a standstill requests come
        in bursts, and the mean rate says little of what lies at an edge.
        """
        most = max((one.completed for one in self._window(beside=1)), default=0)
        return most / self.slice_s

    @property
    def completed(self) -> int:
        """Successful requests that completed inside the window."""
        return sum(one.completed for one in self.window)

    @property
    def inferences(self) -> int:
        """Samples in the successful requests that completed inside the window."""
        return sum(one.inferences for one in self.window)

    @property
    def dropped(self) -> int:
        """Requests that fell due inside the window and were never sent."""
        return sum(one.dropped for one in self.window)

    @property
    def failures(self) -> dict[str, int]:
        """By kind, the failures of requests scheduled inside the window, without those dropped."""
        by_kind: Counter[str] = Counter()
        for one in self.window:
            by_kind.update(one.failures)
        return dict(by_kind)

    @property
    def left(self) -> int:
        """Clients that went away on purpose, of requests scheduled inside the window."""
        return sum(one.streams.left for one in self.window)

    @property
    def generator_cpu(self) -> float:
        """Cores used by the busiest process (1.0 = saturated)."""
        return max((one.cpu_cores for one in self.generators), default=0.0)


STEADIER_REPEAT = 3
"""What `Trial.repeat` grows by where a trial is measured again because its load was not steady yet:
whoever numbers repetitions counts 0 to 2, 6 to 8, 12 to 14 and so on (`numbered_repeat`)."""


def numbered_repeat(number: int) -> int:
    """`Trial.repeat` of the same trial measured for the time after `number` times."""
    return number + number // STEADIER_REPEAT * STEADIER_REPEAT


CONFIRM = "confirm"
"""Stage of the trials that measure afresh what a search found, for the best of many is partly the
luckiest: these may be recommended."""

SATURATION = "saturation"
"""Stage of the open loops that follow a verdict, for planning: no search and no verdict reads
them."""

BATCHES = "batch"
"""Stage of the closed loops at growing batch sizes, for jobs with a deadline; likewise."""

ROLES = "roles"
"""Stage of the closed loops that compare a student's roles, each model in turn; likewise."""

AFTER_SEARCH = frozenset({SATURATION, BATCHES, ROLES})
"""What follows the search, or stands beside it: no search and no verdict reads it."""


@dataclass(frozen=True)
class Trial:
    """variant x serving config x workload: a point to be measured."""

    variant: str
    family: str
    serving: ServingConfig
    workload: Workload
    stage: str = "sweep"
    """Which part of the search asked for it: workload, protocol, serving, refine, confirm,
    grid; or one of `AFTER_SEARCH`."""
    repeat: int = 0

    @property
    def trial_id(self) -> str:
        """Deterministic, so that a resumed run finds what it measured.

        What follows the search has its stage in its name: a search never takes it for its own.
        """
        stage = f"-{self.stage}" if self.stage in AFTER_SEARCH else ""
        repeat = f"-r{self.repeat}" if self.repeat else ""
        return f"{self.variant}--{self.serving.label}--{self.workload.label}{stage}{repeat}"

    @property
    def configuration(self) -> tuple[str, str, str]:
        """What is served and driven, whichever time it is measured."""
        return self.variant, self.serving.label, self.workload.label

    @property
    def after_longer_warm_up(self) -> bool:
        """Whether it is a second measurement, because the first one's load was not steady yet."""
        return self.repeat % (2 * STEADIER_REPEAT) >= STEADIER_REPEAT


@dataclass(frozen=True)
class TrialResult:
    """A trial and all that was measured of it."""

    trial: Trial
    sha256: str
    """SHA-256 of the artefact that the server had loaded."""
    started_utc: str
    duration_s: float
    requests: int
    """Requests that were scheduled inside the window and answered correctly."""
    failures: int
    failures_by_kind: Mapping[str, int]
    throughput_requests_per_s: float
    throughput_inferences_per_s: float
    latencies: Mapping[str, LatencySummary]
    """Summaries by span (`harness.types.latency.SPANS`); a span that no successful request has is
    absent."""
    generator_cpu: float
    """Cores used by the busiest generator process."""
    server: ServerMetrics
    host: HostMetrics
    valid: bool
    invalid_reason: str = ""
    histogram_file: str = ""
    decision: Decision = Decision.UNDECIDED
    reason: str = ""
    """Why the decision is not a pass, in words."""
    dropped: int = 0
    """Open loop: fell due with the bound of requests in flight reached, and was never sent."""
    warmup_s: float = 0.0
    """Length of what was cut before the window."""
    offered_requests_per_s: float = 0.0
    """Requests that were scheduled inside the window, sent or dropped."""
    loop_lag_p99_ms: float | None = None
    """Lag of the event loop of the process that lagged most."""
    in_flight_mean: float | None = None
    """Requests that were on their way at a time; in a closed loop `concurrency` was asked for."""
    records_problem: str = ""
    """Why not every request could be written down one by one, where that was asked for."""
    throughput_low_inferences_per_s: float | None = None
    """Confidence bounds, at the latency's confidence; None where the window is too short for its
    own memory, and in runs from before there were any."""
    throughput_high_inferences_per_s: float | None = None
    steadier_warmup_s: float | None = None
    """A warm-up after which the load may be steady, where it was not when the window opened."""
    failure_design_effect: float = 1.0
    """How many requests count as one independent one, for the share that failed or was dropped."""
    values_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Values without an interval, by span and statistic: in runs from before every span had its
    summary. `latency_ms` reads both."""
    pricing: Pricing | None = None
    """The machine that its cost is counted on; None where the study names none, and in older
    runs."""
    streams: StreamFigures | None = None
    """Figures of answers that came token by token; None where none did, and in older runs."""
    goodput: Goodput | None = None
    """Goodput; None where the objective bounds no latency, and in older runs."""

    @property
    def latency(self) -> LatencySummary | None:
        """The latency that counts, from the scheduled time; None when no request succeeded."""
        return self.latencies.get(RESPONSE)

    def latency_ms(self, span: str, statistic: str) -> float | None:
        """A latency by its span and statistic, such as `service` and `p95`; None if unknown."""
        if (summary := self.latencies.get(span)) is not None:
            return summary.value_ms(statistic)
        return self.values_ms.get(span, {}).get(statistic)

    @property
    def client_ms(self) -> float | None:
        """Mean per request that the server does not account for: client, network, front end.

        Client and server cut the window by their own clocks; where that makes the server's mean
        the greater one the rest is 0, never negative. None where either side gave no numbers.
        """
        server_ms = self.server.accounted_ms
        if self.latency is None or server_ms is None:
            return None
        return max(0.0, self.latency.mean_ms - server_ms)


@dataclass(frozen=True)
class ColdStart:
    """A variant from its loading to its steady state, one request in flight."""

    variant: str
    sha256: str
    serving: ServingConfig
    load_s: float
    """Seconds from the order to load to READY; the model's own warm-up requests are part of it."""
    first_request_ms: float
    """Latency of a new connection's first request, connecting included."""
    requests: int
    """How many requests were sent in all, one after another."""
    steady_after_requests: int | None
    """How many requests came before the steady state; None where none was found."""
    steady_after_s: float | None
    """Time from READY until the steady state began; None where none was found."""
    steady_ms: float | None
    """Mean latency in the steady state."""


@dataclass(frozen=True)
class ServerOverhead:
    """The server's own cost per request: a null model's, one request in flight."""

    protocol: WireProtocol
    requests: int
    """Measured, one row each, after the first ones were left out."""
    median_ms: float
    """Median latency from send to answer, as the client sees it."""
    server_ms: float | None
    """Mean per request inside the server, queue and compute, by Triton's statistics; None where
    it has none."""
