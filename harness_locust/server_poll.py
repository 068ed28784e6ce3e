"""The server's side of a running test, read about once per second by the process people look at."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import gevent

from harness.errors import HarnessError
from harness.load.records.series import MOST
from harness.serving.external.server import ExternalServer, serving_of
from harness.telemetry import triton
from harness.telemetry.readings import RunningCounters
from harness.telemetry.triton import MetricsPage, scrape
from harness.types import HostMetrics, ServingConfig
from harness_locust.plan import Plan
from harness_locust.preflight import server_of

READ_WITHIN_S = 3.0
"""A server that takes longer to say how it fares is taken as one that does not say it."""
RUNNING, WAITING = "generation_running", "generation_queued"
"""Gauges of the embedded engine of models that write."""
SERIES = ("nv_gpu_", "nv_inference_request_failure", RUNNING, WAITING)
"""The series that are read of the metrics page: parsing the rest would take milliseconds from the
load."""
REFUSED = "connection refused"
"""The words of every transport where no process listens: the server has ended."""
BEGUN_ANEW = (
    "the server's counters were reset: it or the model was restarted; totals go on from what was "
    "read before"
)

logger = logging.getLogger("harness")


class EngineReading(NamedTuple):
    """Requests on the engine of a model that writes, at an instant."""

    at_s: float
    running: float
    waiting: float


class ServerPoll:
    """Reads counters and gauges; what is not offered stays missing, and why is said.

    Args:
        plan: the test, with its server and model.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._server: ExternalServer | None = None
        self.counters = RunningCounters()
        self.serving = ServingConfig(0, 0, 0, "cpu", 0)
        """The server's configuration as it tells it; 0 where it does not."""
        self.problem = ""
        """Why there are no statistics at present; empty where there are."""
        self.gpu_problem = ""
        """Why there are no GPU numbers at present; empty where there are."""
        self.engine: deque[EngineReading] = deque(maxlen=MOST)
        """The latest of a model that writes on the embedded engine; none of others."""
        self._version = ""
        """The version that answered when it was asked last."""
        self._gone = False
        """Whether nobody listened there when it was asked last."""
        self.notices: list[tuple[float, str]] = []
        """When, and what happened to the statistics."""

    def read(self, clock: Callable[[], float]) -> None:
        """Take one reading.

        Args:
            clock: seconds of the test. What is read is as old as the middle of the time it takes:
                at the edge of a window that tells which requests lie in it.
        """
        at_s = clock()
        try:
            with gevent.Timeout(READ_WITHIN_S):
                if self._server is None:
                    self._server = server_of(self._plan)
                    self.serving = serving_of(self._server.config(self._plan.model) or {})
                asked_s = clock()
                statistics = self._server.statistics(self._plan.model)
                at_s = (asked_s + clock()) / 2
        except (HarnessError, gevent.Timeout) as error:
            self._note_missing(at_s, error)
            self._note_engine(at_s, self._metrics())
            return
        page = self._metrics()  # behind the statistics: it may take long, and they are the edge's
        self._note_engine(at_s, page)
        version = str(statistics.get("version", ""))
        self._note_back(at_s)
        resets = self.counters.resets
        utilizations = page.values("nv_gpu_utilization")
        memory = page.values("nv_gpu_memory_used_bytes")
        self.counters.take(
            at_s,
            triton.read_counters(statistics, page.failed_by_reason(self._plan.model, version)),
            restarted=self._gone,
            gpu_utilization=sum(utilizations) / len(utilizations) if utilizations else None,
            gpu_memory_bytes=int(sum(memory)) if memory else None,
        )
        self._gone = False
        if self.counters.resets > resets:
            self.notices.append((at_s, BEGUN_ANEW))
        if self._version and version != self._version:
            told = f"version {version} of the model answers from here on, {self._version} before"
            self.notices.append((at_s, told))
        self._version = version

    @property
    def host(self) -> HostMetrics:
        """The GPU as it was read last."""
        if not self.counters.stretches:
            return HostMetrics()
        last = self.counters.stretches[-1]
        return HostMetrics(
            gpu_utilization=last.gpu_utilization, gpu_memory_bytes=last.gpu_memory_bytes
        )

    def close(self) -> None:
        """Close the connection to the server."""
        if self._server is not None:
            with closing(self._server):
                self._server = None

    def _metrics(self) -> MetricsPage:
        url = self._plan.metrics_url
        text = scrape(url) if url else None
        lines = [one for one in (text or "").splitlines() if one.startswith(SERIES)]
        page = MetricsPage.parse("\n".join(lines) + "\n")
        if not url:
            self.gpu_problem = "the metrics page is unknown: give it with --metrics-url"
        elif text is None:
            self.gpu_problem = f"no metrics page answers at {url}: give it with --metrics-url"
        elif not page.values("nv_gpu_utilization") and not page.values("nv_gpu_memory_used_bytes"):
            self.gpu_problem = "the server's metrics show no GPU"
        else:
            self.gpu_problem = ""
        return page

    def _note_engine(self, at_s: float, page: MetricsPage) -> None:
        if self._plan.workload.generation is None:
            return
        here = {"model": self._plan.model}
        running, waiting = page.values(RUNNING, **here), page.values(WAITING, **here)
        if running and waiting:
            self.engine.append(EngineReading(at_s, running[0], waiting[0]))

    def _note_missing(self, at_s: float, error: BaseException) -> None:
        slow = f"no answer within {READ_WITHIN_S:g} s"
        said = slow if isinstance(error, gevent.Timeout) else " ".join(str(error).split())
        if not self.problem and self.counters.stretches:
            self.notices.append((at_s, f"server statistics are missing from here on: {said}"))
            logger.warning("server statistics are missing: %s", said)
        self.problem = said
        self._gone = self._gone or REFUSED in said.lower()

    def _note_back(self, at_s: float) -> None:
        if self.problem and self.counters.stretches:
            self.notices.append((at_s, "server statistics are available again"))
        self.problem = ""
