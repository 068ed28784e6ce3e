"""What the server and the machine told of a trial's window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PartMetrics:
    """What Triton counted for one composing model of an ensemble; times are means per request."""

    model: str
    requests: int
    queue_ms: float
    compute_ms: float | None
    """Input copy, execution and output copy together, of those that were computed; None where the
    cache answered all."""
    cache_hits: int = 0
    """How many of `requests` the response cache answered."""
    cache_ms: float = 0.0
    """Time in the response cache, mean over all `requests`."""

    @property
    def accounted_ms(self) -> float:
        """What the part spent on a request: mean over all, however they were answered."""
        return (
            self.queue_ms + self.cache_ms + _of_all(self.compute_ms, self.requests, self.cache_hits)
        )


@dataclass(frozen=True)
class ServerMetrics:
    """What Triton counted for one model over the trial's window; None = not offered."""

    requests: int | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed requests by Triton's reason: REJECTED, CANCELED, BACKEND, OTHER."""
    inferences: int | None = None
    executions: int | None = None
    queue_ms: float | None = None
    """Mean time in the queue per request; the next three are means per request that the model
    computed."""
    compute_input_ms: float | None = None
    compute_infer_ms: float | None = None
    compute_output_ms: float | None = None
    batch_sizes: Mapping[int, int] = field(default_factory=dict)
    """Executed batch size -> executions."""
    batch_compute_ms: Mapping[int, float] = field(default_factory=dict)
    """Executed batch size -> mean time of one execution: input copy, inference, output copy."""
    counters_reset: bool = False
    """The server or the model restarted inside the window."""
    requests_uncertainty: int = 0
    """How far `requests` may be off at most: a Prometheus knows a counter at its scrapes only, and
    a reading that came late is of another window."""
    problem: str = ""
    """Why figures are missing, where a Prometheus was asked for them."""
    parts: tuple[PartMetrics, ...] = ()
    """The composing models of an ensemble, in the order a request passes them."""
    cache_hits: int | None = None
    """How many of `requests` the response cache answered: the model did not see them."""
    cache_misses: int | None = None
    """Requests looked up in the response cache and not found, then computed."""
    cache_ms: float | None = None
    """Time spent looking up and storing in the response cache, mean of all `requests`."""
    version: str = ""
    """Version of the model that answered; empty where the server does not tell."""
    exchanged: str = ""
    """Which version answered first and which last, in words, where that changed inside the window:
    then nothing else is known of it."""

    @property
    def from_cache(self) -> int | None:
        """Requests that a cache answered at least in part: of an ensemble also a part's own."""
        known = [
            hits for hits in (self.cache_hits, *(one.cache_hits for one in self.parts)) if hits
        ]
        return max(known) if known else self.cache_hits

    @property
    def computed_share(self) -> float:
        """0 to 1: of `requests`, those that the response cache did not answer."""
        return _of_all(1.0, self.requests, self.cache_hits)

    @property
    def accounted_ms(self) -> float | None:
        """What the server spent on a request: mean of all of them, however they were answered."""
        if self.queue_ms is None or (self.compute_ms is None and not self.cache_hits):
            return None
        cache_ms = self.cache_ms or 0.0
        if self.parts:
            inside_ms = sum(one.accounted_ms for one in self.parts)
            return cache_ms + _of_all(inside_ms, self.requests, self.cache_hits)
        return self.queue_ms + cache_ms + _of_all(self.compute_ms, self.requests, self.cache_hits)

    @property
    def batch_mean(self) -> float | None:
        """Mean executed batch: inferences over executions."""
        if not self.inferences or not self.executions:
            return None
        return self.inferences / self.executions

    @property
    def compute_ms(self) -> float | None:
        """Input copy, inference and output copy together, mean of what was computed."""
        parts = (self.compute_input_ms, self.compute_infer_ms, self.compute_output_ms)
        known = [part for part in parts if part is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class HostMetrics:
    """The machine, over the trial's window; None where there is nothing to read."""

    cpu_utilization: float | None = None
    """0 to 1, over all cores."""
    server_cpu: float | None = None
    """Cores used by the server's process tree."""
    server_memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    gpu_utilization: float | None = None
    gpu_memory_bytes: int | None = None
    gpu_power_w: float | None = None
    foreign_cpu: float | None = None
    """Cores used by processes that are not the server's, the generators' or the harness's own."""
    server_run_cores: float | None = None
    """Cores used by those threads of the server that lived to the window's end; the next two fields
    count the same threads."""
    server_wait_cores: float | None = None
    """Threads of the server that waited for a core at a time: ready to run, and another ran."""
    server_foreign_wait_cores: float | None = None
    """Threads of the server that waited for a core at a time behind foreign processes."""
    cpu_steal: float | None = None
    """0 to 1: of the cores' time, what the hypervisor gave to other virtual machines."""
    cpu_pressure: float | None = None
    """0 to 1: of the window, while some process of the machine waited for a core (PSI)."""
    server_cpu_pressure: float | None = None
    """0 to 1: of the window, while a process of the server's control group waited for a core."""
    server_throttled_cores: float | None = None
    """Cores that the limit of the server's control group held back."""


def _of_all(compute_ms: float | None, requests: int | None, hits: int | None) -> float:
    """The mean over all requests of what only those that no cache answered took."""
    share = 1.0 if not requests else max(0.0, 1 - (hits or 0) / requests)
    return (compute_ms or 0.0) * share
