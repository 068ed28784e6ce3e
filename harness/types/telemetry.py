"""What the server and the machine say of one window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PartMetrics:
    """What Triton counted for one composing model of an ensemble, means a request."""

    model: str
    requests: int
    queue_ms: float
    compute_ms: float
    """Input copy, execution and output copy together."""


@dataclass(frozen=True)
class ServerMetrics:
    """What Triton counted for one model over the trial's window; None = not offered."""

    requests: int | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    """By Triton's reason: REJECTED, CANCELED, BACKEND, OTHER."""
    inferences: int | None = None
    executions: int | None = None
    queue_ms: float | None = None
    """Mean a request."""
    compute_input_ms: float | None = None
    compute_infer_ms: float | None = None
    compute_output_ms: float | None = None
    batch_sizes: Mapping[int, int] = field(default_factory=dict)
    """Executed batch size -> executions."""
    counters_reset: bool = False
    """The server or the model restarted inside the window."""
    requests_uncertainty: int = 0
    """At most how far `requests` may be off: a Prometheus knows a counter at its scrapes only, and
    a reading that came late is of another window."""
    problem: str = ""
    """Why figures are missing, where a Prometheus was asked for them."""
    parts: tuple[PartMetrics, ...] = ()
    """An ensemble's composing models, in the order a request passes them."""

    @property
    def batch_mean(self) -> float | None:
        """Mean executed batch: inferences over executions."""
        if not self.inferences or not self.executions:
            return None
        return self.inferences / self.executions

    @property
    def compute_ms(self) -> float | None:
        """Input copy, inference and output copy together, mean a request."""
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
