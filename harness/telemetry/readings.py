"""Readings of the server and its machine: at the edges of a window, or all through a test.

Differences of neighbouring readings are kept and added up, so that a total stays right when the
server or the model is restarted in between: counters begin at zero again, and what they have
reached since is what happened since. What was counted after the last reading before a restart is
lost with the server, a second's worth at most.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Protocol

from harness.errors import ServerError
from harness.telemetry import host, triton
from harness.telemetry.triton import (
    NO_REASON,
    MetricsPage,
    ModelCounters,
    difference,
    exchange_words,
    scrape,
    was_reset,
)
from harness.types import HostMetrics, ServerMetrics


class ServerReadings(Protocol):
    """What happened on the server's side between two instants, whoever knows it."""

    def open(self) -> None:
        """The measured window starts now: take the first reading."""
        ...

    def close(self) -> None:
        """The measured window ends now: take the second."""
        ...

    def figures(self) -> tuple[ServerMetrics, HostMetrics]:
        """What happened in between; asked for once nothing is measured any more."""
        ...

    @property
    def edges_ns(self) -> tuple[int, int]:
        """CLOCK_MONOTONIC: when the readings were really taken; a slow answer makes them late."""
        ...


class StatisticsSource(Protocol):
    """Whatever can read a model's statistics off the server."""

    def statistics(self, model: str) -> dict[str, Any]:
        """The model's entry of `GET /v2/models/<model>/stats`.

        Raises:
            ServerError: the server does not answer, or does not know the model.
        """
        ...


@dataclass(frozen=True)
class _Reading:
    """Raw, as fetched: the metrics page is not parsed while a load runs."""

    statistics: dict[str, Any] | None
    parts: Mapping[str, dict[str, Any] | None]
    metrics_text: str | None
    host: host.HostReading
    taken_ns: int
    """When the statistics were there."""


class DirectReadings:
    """Readings of the server itself: differences of its cumulative counters.

    Both readings fetch in the same order, the statistics first, so that those of each source lie
    as far apart as the edges of the measured window do; the metrics page is parsed in `figures`,
    not before. `open` and `close` each cost one RPC (another where the reading is torn), one HTTP
    request and one look at the process table: a few milliseconds.

    Triton books a request just after it sends the answer, so a count may differ from the client's
    by what is in flight at either end.

    A server that does not answer at either end leaves the values None, never zero: whether the
    trial still counts is the caller's to judge.
    """

    def __init__(
        self,
        source: StatisticsSource,
        *,
        metrics_url: str | None,
        server_pid: int | None,
        model: str,
        parts: Sequence[str] = (),
        read_page: Callable[[str], str | None] = scrape,
        clients: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        """`server_pid` is None for a server on another machine: then its CPU stays unknown.

        `parts` are the composing models of an ensemble, whose statistics are read likewise;
        `read_page` reads the metrics page where it wants headers or certificates of its own;
        `clients` tells the load generators' pids, whose use of cores is not foreign.
        """
        self._source = source
        self._metrics_url = metrics_url
        self._server_pid = server_pid
        self._clients = clients
        self._model = model
        self._parts = parts
        self._read_page = read_page
        self._opened: _Reading | None = None
        self._closed: _Reading | None = None

    def open(self) -> None:
        """Read at the start of the window."""
        self._opened = self._read()

    def close(self) -> None:
        """Read at the end of the window."""
        self._closed = self._read()

    def figures(self) -> tuple[ServerMetrics, HostMetrics]:
        """What happened between the two readings.

        Raises:
            RuntimeError: there are no two.
        """
        opened, closed = self._readings()
        pages = [MetricsPage.parse(reading.metrics_text) for reading in (opened, closed)]
        before, after = (
            triton.read_counters(
                reading.statistics, page.failed_by_reason(self._model, _version(reading))
            )
            for reading, page in zip((opened, closed), pages, strict=True)
        )
        parts = {
            part: triton.difference(*(_read_part(one, part) for one in (opened, closed)))
            for part in self._parts
        }
        return (
            triton.with_parts(triton.difference(before, after), parts),
            host.difference(opened.host, closed.host, *pages),
        )

    @property
    def edges_ns(self) -> tuple[int, int]:
        """CLOCK_MONOTONIC: when the statistics had come, at either end; RuntimeError before."""
        opened, closed = self._readings()
        return opened.taken_ns, closed.taken_ns

    def _readings(self) -> tuple[_Reading, _Reading]:
        if self._opened is None or self._closed is None:
            raise RuntimeError("figures asked for before both readings were taken")
        return self._opened, self._closed

    def _read(self) -> _Reading:
        statistics = self._statistics(self._model)
        return _Reading(
            taken_ns=time.monotonic_ns(),
            statistics=statistics,
            parts={part: self._statistics(part) for part in self._parts},
            metrics_text=self._read_page(self._metrics_url) if self._metrics_url else None,
            host=host.read_host(self._server_pid, self._clients()),
        )

    def _statistics(self, model: str) -> dict[str, Any] | None:
        try:
            return triton.read_whole(partial(self._source.statistics, model))
        except ServerError:
            return None


def _version(reading: _Reading) -> str:
    """Whose statistics they are; empty where it is not told."""
    return str((reading.statistics or {}).get("version", ""))


def _read_part(reading: _Reading, part: str) -> triton.ModelCounters:
    """Read the counters of one composing model."""
    return triton.read_counters(reading.parts[part])


MOST = 512
"""Stretches kept; where there would be more, every two become one."""
NEAR_S = 0.1
_NOTHING = ModelCounters(
    requests=0,
    failed=0,
    inferences=0,
    executions=0,
    failed_by_reason={},
    cache_hits=0,
    cache_misses=0,
)


@dataclass(frozen=True)
class Stretch:
    """What a server did between two readings."""

    start_s: float
    """Seconds from the test's start; the end is counted alike."""
    end_s: float
    grown: ModelCounters
    reset: bool = False
    """Whether counters were reset."""
    exchanged: str = ""
    """Which version answered first and which last, in words, where that changed."""
    gpu_utilization: float | None = None
    """0 to 1, at its end, as is the memory; None where there is no GPU to read."""
    gpu_memory_bytes: int | None = None

    @property
    def metrics(self) -> ServerMetrics:
        """Means and counts of this stretch."""
        return _metrics(self.grown, reset=self.reset, exchanged=self.exchanged)


class RunningCounters:
    """Takes readings in order of time."""

    def __init__(self) -> None:
        self._last: tuple[float, ModelCounters] | None = None
        self._unexplained = 0
        """Failures whose reasons the next metrics page tells: the last one was missed."""
        self.stretches: list[Stretch] = []

    @property
    def resets(self) -> int:
        """Readings at which counters had been reset."""
        return sum(one.reset for one in self.stretches)

    def take(
        self,
        at_s: float,
        counters: ModelCounters,
        *,
        restarted: bool = False,
        gpu_utilization: float | None = None,
        gpu_memory_bytes: int | None = None,
    ) -> None:
        """Take in a reading; one that a server did not answer is left away by the caller.

        `restarted` says that nobody listened there since the last reading: under load the new
        server's counters may have passed the old one's by now, and do not show it.
        """
        if counters.requests is None:
            return
        if self._last is not None:
            before_s, before = self._last
            exchanged = exchange_words(before, counters)
            reset = restarted or (not exchanged and was_reset(before, counters))
            if reset or exchanged:
                self._unexplained = 0
                grown = _minus(counters, _NOTHING)
            else:
                counters, grown = self._grown(before, counters)
            self.stretches.append(
                Stretch(
                    before_s, at_s, grown, reset, exchanged, gpu_utilization, gpu_memory_bytes
                )
            )  # fmt: skip
        self._last = at_s, counters
        if len(self.stretches) > MOST:
            self._join_pairs()

    def _grown(
        self, before: ModelCounters, after: ModelCounters
    ) -> tuple[ModelCounters, ModelCounters]:
        """A reading of the same counters as the one before, and what they grew by.

        A metrics page that was missed leaves the reasons as they were; what failed meanwhile counts
        without a reason until the next page tells it.
        """
        reasons, unexplained = before.failed_by_reason, 0
        if after.failed_by_reason is None and reasons is not None:
            after = dataclasses.replace(after, failed_by_reason=reasons)
            unexplained = self._unexplained + (after.failed or 0) - (before.failed or 0)
        grown = _minus(after, before)
        if grown.failed_by_reason is not None:
            more = {NO_REASON: unexplained - self._unexplained}
            told = _added(grown.failed_by_reason, more, 1)
            grown = dataclasses.replace(grown, failed_by_reason=told)
        self._unexplained = unexplained
        return after, grown

    def total(self, start_s: float = 0.0, end_s: float = inf) -> ServerMetrics:
        """What happened in the stretches whose middle lies within; None where nothing was read."""
        within = [one for one in self.stretches if start_s <= (one.start_s + one.end_s) / 2 < end_s]
        if not within:
            return ServerMetrics()
        grown = within[0].grown
        for one in within[1:]:
            grown = _plus(grown, one.grown)
        exchanged = next((one.exchanged for one in reversed(within) if one.exchanged), "")
        return _metrics(grown, reset=any(one.reset for one in within), exchanged=exchanged)

    def cut_at(self, at_s: float) -> bool:
        """Whether a reading lies near enough to an instant for counts to be cut there."""
        return self.nearest_s(at_s) <= NEAR_S

    def nearest_s(self, at_s: float) -> float:
        """How far the nearest reading lies from an instant; infinite where there is none."""
        edges = {one.start_s for one in self.stretches} | {one.end_s for one in self.stretches}
        return min((abs(one - at_s) for one in edges), default=inf)

    def _join_pairs(self) -> None:
        joined = [
            dataclasses.replace(
                second,
                start_s=first.start_s,
                grown=_plus(first.grown, second.grown),
                reset=first.reset or second.reset,
                exchanged=second.exchanged or first.exchanged,
            )
            for first, second in zip(self.stretches[::2], self.stretches[1::2], strict=False)
        ]
        rest = self.stretches[len(joined) * 2 :]
        self.stretches = [*joined, *rest]


def _metrics(grown: ModelCounters, *, reset: bool, exchanged: str) -> ServerMetrics:
    start = dataclasses.replace(
        _NOTHING,
        version=grown.version,
        duration_ns=dict.fromkeys(grown.duration_ns, 0),
        failed_by_reason=None if grown.failed_by_reason is None else {},
    )
    return dataclasses.replace(
        difference(start, grown), counters_reset=reset, exchanged=exchanged
    )  # fmt: skip


def _minus(after: ModelCounters, before: ModelCounters) -> ModelCounters:
    return _combined(after, before, -1)


def _plus(one: ModelCounters, other: ModelCounters) -> ModelCounters:
    return _combined(one, other, 1)


def _combined(one: ModelCounters, other: ModelCounters, sign: int) -> ModelCounters:
    reasons = None
    if one.failed_by_reason is not None and other.failed_by_reason is not None:
        reasons = _added(one.failed_by_reason, other.failed_by_reason, sign)
    return ModelCounters(
        requests=_number(one.requests, other.requests, sign),
        failed=_number(one.failed, other.failed, sign),
        inferences=_number(one.inferences, other.inferences, sign),
        executions=_number(one.executions, other.executions, sign),
        duration_ns=_added(one.duration_ns, other.duration_ns, sign),
        executions_by_batch=_added(one.executions_by_batch, other.executions_by_batch, sign),
        compute_ns_by_batch=_added(one.compute_ns_by_batch, other.compute_ns_by_batch, sign),
        failed_by_reason=reasons,
        cache_hits=_number(one.cache_hits, other.cache_hits, sign),
        cache_misses=_number(one.cache_misses, other.cache_misses, sign),
        version=(one if sign < 0 else other).version,
    )


def _number(one: int | None, other: int | None, sign: int) -> int | None:
    return None if one is None else one + sign * (other or 0)


def _added(one: Mapping[Any, int], other: Mapping[Any, int], sign: int) -> dict[Any, int]:
    sums = Counter(dict(one))
    for key, count in other.items():
        sums[key] += sign * count
    return dict(sums)
