"""One window, two readings: what the server and the machine did between `open` and `close`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from harness.errors import ServerError
from harness.telemetry import host, triton
from harness.telemetry.prometheus import MetricsPage, scrape
from harness.types import HostMetrics, ServerMetrics


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
    """Raw, as fetched: parsing waits until the window is closed."""

    statistics: dict[str, Any] | None
    metrics_text: str | None
    host: host.HostReading


class TelemetryWindow:
    """Differences of cumulative counters over exactly the measured window of a trial.

    Both ends fetch in the same order, the statistics first, so each source's two readings lie one
    window's length apart; nothing is parsed before the second reading is complete. `open` and
    `close` each cost one RPC, one HTTP request and one look at the process table: a few
    milliseconds.

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
        read_page: Callable[[str], str | None] = scrape,
    ) -> None:
        """`server_pid` is None for a server on another machine: then its CPU stays unknown.

        `read_page` reads the metrics page where it wants headers or certificates of its own.
        """
        self._source = source
        self._metrics_url = metrics_url
        self._server_pid = server_pid
        self._model = model
        self._read_page = read_page
        self._opened: _Reading | None = None

    def open(self) -> None:
        """Take the first reading: call it where the window starts."""
        self._opened = self._read()

    def close(self) -> tuple[ServerMetrics, HostMetrics]:
        """Take the second reading and return what happened since `open`.

        Raises:
            RuntimeError: `open` was not called.
        """
        closing = self._read()
        if self._opened is None:
            raise RuntimeError("TelemetryWindow.close() without open()")
        pages = [MetricsPage.parse(reading.metrics_text) for reading in (self._opened, closing)]
        before, after = (
            triton.read_counters(reading.statistics, page.failed_by_reason(self._model))
            for reading, page in zip((self._opened, closing), pages, strict=True)
        )
        return (
            triton.difference(before, after),
            host.difference(self._opened.host, closing.host, *pages),
        )

    def _read(self) -> _Reading:
        try:
            statistics = self._source.statistics(self._model)
        except ServerError:
            statistics = None
        return _Reading(
            statistics=statistics,
            metrics_text=self._read_page(self._metrics_url) if self._metrics_url else None,
            host=host.read_host(self._server_pid),
        )
