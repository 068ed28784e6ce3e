"""A trial, and all that was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types.latency import RESPONSE, LatencySummary
from harness.types.quality import Decision
from harness.types.telemetry import HostMetrics, ServerMetrics
from harness.types.workloads import ServingConfig, WireProtocol, Workload

STEADIER_REPEAT = 3
"""What `Trial.repeat` grows by where a trial is measured again because its load was not steady yet;
smaller repeats are the search's own."""


@dataclass(frozen=True)
class Trial:
    """variant x serving config x workload: a point to be measured."""

    variant: str
    family: str
    serving: ServingConfig
    workload: Workload
    stage: str = "sweep"
    """Which part of the search asked for it: workload, protocol, serving, refine, confirm,
    grid."""
    repeat: int = 0

    @property
    def trial_id(self) -> str:
        """Deterministic, so that a resumed run finds what it measured."""
        repeat = f"-r{self.repeat}" if self.repeat else ""
        return f"{self.variant}--{self.serving.label}--{self.workload.label}{repeat}"

    @property
    def after_longer_warm_up(self) -> bool:
        """Whether it is a second measurement, because the first one's load was not steady yet."""
        return self.repeat in range(STEADIER_REPEAT, 2 * STEADIER_REPEAT)


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
    """By span (`harness.types.latency.SPANS`); a span that no successful request has is absent."""
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
    """By span and statistic, values that have no interval: in runs from before every span had its
    summary. `latency_ms` reads both."""

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
    """From the order to load to READY; the model's own warm-up requests are part of it."""
    first_request_ms: float
    """A new connection's first request, connecting included."""
    requests: int
    """How many requests were sent in all, one after another."""
    steady_after_requests: int | None
    """How many came before the steady state; None where none was found."""
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
