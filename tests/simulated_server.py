"""A made-up Triton in simpy, event by event: the truth that capacity models are held against.

Written apart from `harness.planning.capacity.replica`, which goes from batch to batch: here each
request, instance and time-out is a process. It measures trials of itself as the harness would.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import simpy

from harness.types import (
    RESPONSE,
    Decision,
    HostMetrics,
    LatencySummary,
    LoadMode,
    Percentile,
    ServerMetrics,
    ServingConfig,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)


@dataclass
class Request:
    """One request on its way."""

    number: int
    rows: int
    arrived_s: float
    answered: simpy.Event


@dataclass
class SimulatedServer:
    """One model on one server; `seconds(rows, busy)` draws the time of an execution."""

    serving: ServingConfig
    seconds: Callable[[int, int], float]
    queue_limit: int | None = None
    turnaround_s: float = 0.0
    """What an instance is occupied with after it has answered."""
    each_request_s: float = 0.0
    """What every request but the first adds to an execution."""
    stalls: Sequence[tuple[float, float]] = ()
    """From when until when, in seconds, nothing moves; in order."""
    environment: simpy.Environment = field(default_factory=simpy.Environment)

    def __post_init__(self):
        self.queue: list[Request] = []
        self.idle = self.serving.instance_count
        self.executions: list[tuple[int, int, float]] = []
        self.queued_s: list[float] = []
        self.computed_s: list[float] = []

    def submit(self, number: int, rows: int) -> Request | None:
        """Queue a request; None where the queue is full."""
        if self.queue_limit is not None and len(self.queue) >= self.queue_limit:
            return None
        now = self.environment.now
        request = Request(number, rows, now, self.environment.event())
        self.queue.append(request)
        self.dispatch()
        if self.serving.queue_delay_us:
            self.environment.process(self._remind(self.serving.queue_delay_us / 1e6))
        return request

    def _remind(self, delay_s: float):
        yield self.environment.timeout(delay_s)
        self.dispatch()

    def dispatch(self) -> None:
        stalled = self._moves_again_after()
        if stalled:
            self.environment.process(self._remind(stalled))
            return
        while self.idle and self.queue:
            batch, rows, full = [], 0, False
            for request in self.queue:
                if rows + request.rows > self.serving.max_batch_size:
                    full = True
                    break
                batch.append(request)
                rows += request.rows
            full = full or rows == self.serving.max_batch_size
            age_s = self.environment.now - self.queue[0].arrived_s
            if not full and age_s < self.serving.queue_delay_us / 1e6 - 1e-12:
                return
            del self.queue[: len(batch)]
            self.idle -= 1
            self.environment.process(self._execute(batch, rows))

    def _moves_again_after(self) -> float:
        now = self.environment.now
        return max((end - now for begin, end in self.stalls if begin <= now < end), default=0.0)

    def _with_stalls(self, took: float) -> float:
        """How long something takes from now on that needs so much time without a stall."""
        now = self.environment.now
        for begin, end in self.stalls:
            if now < begin < now + took:
                took += end - begin
        return took

    def _execute(self, batch: Sequence[Request], rows: int):
        started = self.environment.now
        took = self.seconds(rows, self.serving.instance_count - self.idle - 1)
        took += self.each_request_s * (len(batch) - 1)
        yield self.environment.timeout(self._with_stalls(took))
        self.executions.append((rows, len(batch), took))
        for request in batch:
            self.queued_s.append(started - request.arrived_s)
            self.computed_s.append(took)
            request.answered.succeed()
        if self.turnaround_s:
            yield self.environment.timeout(self.turnaround_s)
        self.idle += 1
        self.dispatch()


def completions(
    server: SimulatedServer, arrivals_s: Sequence[float], rows: Sequence[int]
) -> list[float]:
    """When each request is answered; NaN where it was rejected."""
    done = [float("nan")] * len(arrivals_s)

    def one(number: int, at: float):
        yield server.environment.timeout(at)
        request = server.submit(number, rows[number])
        if request is not None:
            yield request.answered
            done[number] = server.environment.now

    for number, at in enumerate(arrivals_s):
        server.environment.process(one(number, at))
    server.environment.run()
    return done


def measure(  # noqa: PLR0913  (each setting of a trial by its name)
    server: SimulatedServer,
    *,
    seed: int,
    clients: int | None = None,
    rate_per_s: float | None = None,
    rows: int = 1,
    client_s: float = 2e-4,
    requests: int = 4000,
    variant: str = "student",
    stage: str = "workload",
    by_size: bool = True,
) -> TrialResult:
    """A trial of so many clients, or of Poisson arrivals at a rate, as the harness records it."""
    environment, latencies = server.environment, []
    generator = np.random.default_rng(seed)

    def client():
        while len(latencies) < requests:
            due = environment.now
            request = server.submit(0, rows)
            yield request.answered
            yield environment.timeout(client_s)
            latencies.append(environment.now - due)

    def one(at: float):
        yield environment.timeout(at)
        request = server.submit(0, rows)
        yield request.answered
        latencies.append(environment.now + client_s - at)

    if clients is not None:
        for _ in range(clients):
            environment.process(client())
    else:
        for at in np.cumsum(generator.exponential(1 / rate_per_s, requests)):
            environment.process(one(float(at)))
    environment.run()
    workload = Workload(
        WireProtocol.GRPC,
        rows,
        clients or 512,
        environment.now,
        0.5,
        seed,
        LoadMode.CLOSED if clients else LoadMode.OPEN,
        rate_per_s,
    )
    trial = Trial(variant, "family", server.serving, workload, stage)
    return _result(trial, server, 1e3 * np.array(latencies), by_size=by_size)


def _result(
    trial: Trial, server: SimulatedServer, latency_ms: np.ndarray, *, by_size: bool
) -> TrialResult:
    duration_s, count = server.environment.now, len(latency_ms)
    counts = Counter(size for size, _, _ in server.executions)
    times = defaultdict(list)
    for size, _, took in server.executions:
        times[size].append(1e3 * took)
    quantiles = {
        name: float(np.quantile(latency_ms, share))
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
    }
    rate = count / duration_s
    return TrialResult(
        trial=trial,
        sha256="ab" * 32,
        started_utc="2026-11-23T14:03:00+00:00",
        duration_s=duration_s,
        requests=count,
        failures=0,
        failures_by_kind={},
        throughput_requests_per_s=rate,
        throughput_inferences_per_s=rate * trial.workload.client_batch_size,
        latencies={
            RESPONSE: LatencySummary(
                count=count,
                mean_ms=float(latency_ms.mean()),
                min_ms=float(latency_ms.min()),
                max_ms=float(latency_ms.max()),
                percentiles={
                    name: Percentile(value, 0.97 * value, 1.03 * value)
                    for name, value in quantiles.items()
                },
                confidence=0.95,
                design_effect=1.0,
            )
        },
        generator_cpu=0.2,
        server=ServerMetrics(
            requests=count,
            inferences=sum(size for size, _, _ in server.executions),
            executions=len(server.executions),
            queue_ms=1e3 * float(np.mean(server.queued_s)),
            compute_infer_ms=1e3 * float(np.mean(server.computed_s)),
            batch_sizes=dict(counts),
            batch_compute_ms={size: float(np.mean(of)) for size, of in times.items()}
            if by_size
            else {},
        ),
        host=HostMetrics(),
        valid=True,
        offered_requests_per_s=rate,
        decision=Decision.PASS,
    )
