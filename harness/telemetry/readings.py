"""Two readings of the server and its machine, at the edges of what is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from harness.errors import ServerError
from harness.telemetry import host, triton
from harness.telemetry.triton import MetricsPage, scrape
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
        """Take the first reading."""
        self._opened = self._read()

    def close(self) -> None:
        """Take the second reading."""
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
    """A composing model's counters."""
    return triton.read_counters(reading.parts[part])
