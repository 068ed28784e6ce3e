"""The harness's own metrics page: a monitor's families at `http://HOST:PORT/metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from harness.errors import UsageError
from harness.telemetry.exposition.families import families
from harness.telemetry.exposition.monitor import LoadMonitor

ALL_INTERFACES = "0.0.0.0"  # noqa: S104  (a Prometheus is elsewhere, as for every exporter)
LONGEST_LINGER_S = 60.0
LATE_SCRAPES = 1.5
"""Scrape intervals that the page waits for its last reader, from when the one before came."""
LATE_S = 5.0
"""How late a scrape may be at any interval: on a busy machine its Prometheus waits for a core."""
_KNOWN_SCRAPES = 6
_POLL_S = 0.05


class MonitorCollector(Collector):
    """Gives a monitor's families to `prometheus_client`, and knows when it was asked."""

    def __init__(self, monitor: LoadMonitor, now_s: Callable[[], float] = time.monotonic) -> None:
        self._monitor = monitor
        self._now_s = now_s
        self.scraped_s: list[float] = []
        """The last few times."""

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: registering is no scrape."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Every family, as of now."""
        self.scraped_s = [*self.scraped_s[1 - _KNOWN_SCRAPES :], self._now_s()]
        with self._monitor.standing_still() as rates:
            return list(families(self._monitor, rates))

    @property
    def interval_s(self) -> float | None:
        """The longest between the last few scrapes; None before there were two.

        Of two alone it may be much too short: behind one that was late the next is on time, and of
        two Prometheus that scrape by turns one may come right behind the other.
        """
        return max((after - before for before, after in pairwise(self.scraped_s)), default=None)

    @property
    def left_s(self) -> float:
        """How long the next scrape is worth waiting for; 0 where none had been coming."""
        if (interval_s := self.interval_s) is None:
            return 0.0
        longest_s = min(max(LATE_SCRAPES * interval_s, interval_s + LATE_S), LONGEST_LINGER_S)
        return max(0.0, self.scraped_s[-1] + longest_s - self._now_s())


class MetricsServer:
    """Serves a monitor from its own thread; a context manager.

    At its end it waits for one more scrape, where scrapes had been coming: the last figures of a
    run would else be seen by nobody.

    Args:
        monitor: what is served.
        port: 0 takes a free one.
    """

    def __init__(self, monitor: LoadMonitor, port: int) -> None:
        self._collector = MonitorCollector(monitor)
        self.port = port
        self._server: Any = None

    def __enter__(self) -> Self:
        """Serve.

        Raises:
            UsageError: the port is taken, or not to be had.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self._collector)
        try:
            self._server, _ = start_http_server(self.port, ALL_INTERFACES, registry)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"--metrics-port {self.port}: {error}", next_step="name a port that is free"
            ) from error
        self.port = self._server.server_port
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the last reader, unless something went wrong; end."""
        try:
            if kind is None:
                wait_for_reader(self._collector)
        finally:
            self._server.shutdown()
            self._server.server_close()


def wait_for_reader(
    collector: MonitorCollector, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Wait for one more scrape, where scrapes had been coming.

    What is slept is counted, and not what a clock shows: in a standstill nobody can read the page.
    """
    left_s, scraped_s = collector.left_s, collector.scraped_s
    while left_s > 0 and collector.scraped_s == scraped_s:
        sleep(_POLL_S)
        left_s -= _POLL_S
