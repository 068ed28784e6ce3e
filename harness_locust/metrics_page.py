"""The test's metrics for a Prometheus: `/metrics` beside Locust's page, or on its own port.

Of a master they are the merged results of all workers. Counters go on over resets and from test to
test. docs/telemetry.md lists every metric.
"""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Response, request
from locust.env import Environment
from locust.web import WebUI
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from harness.errors import UsageError
from harness.load.generators.messages import LoadProgress
from harness.telemetry.exposition.monitor import LoadMonitor, labels_of
from harness.telemetry.exposition.page import MetricsServer, MonitorCollector
from harness_locust.conductor import Conductor, Watcher, one_line
from harness_locust.plan import Plan
from harness_locust.results import Results

PATH = "/metrics"

logger = logging.getLogger("harness")


def show_metrics(conductor: Conductor, web_ui: WebUI | None) -> None:
    """Serve them wherever this process is looked at.

    Raises:
        SystemExit: `--metrics-port` is not a port, or taken (exit code 2).
    """
    monitor = LoadMonitor()
    _Feed(conductor, monitor)
    if web_ui is not None:
        app: Any = web_ui.app
        app.register_blueprint(_page(web_ui, conductor, monitor))
    if port := conductor.options.metrics_port:
        _serve(conductor.environment, monitor, port)


class _Feed(Watcher):
    """Hands the monitor what the conductor hears."""

    def __init__(self, conductor: Conductor, monitor: LoadMonitor) -> None:
        self._conductor, self._monitor = conductor, monitor
        conductor.watchers.append(self)

    def test_began(self, plan: Plan, results: Results) -> None:
        del results
        self._monitor.begin(
            labels_of(plan.model, plan.workload),
            plan.slo,
            family=plan.model,
            concurrency=None,
            rate_per_s=plan.workload.rate_per_s,
        )

    def reported(self, worker: str, report: LoadProgress) -> None:
        runner, plan = self._conductor.environment.runner, self._conductor.plan
        if runner is not None and plan is not None and not plan.is_open_loop:
            self._monitor.ask_in_flight(runner.target_user_count)
        self._monitor.add(report.slices)
        self._monitor.add_generator(
            worker,
            cpu_s=report.cpu_s,
            loop_lag=report.loop_lag,
            memory_bytes=report.memory_bytes,
        )

    def test_ended(self) -> None:
        self._monitor.end()


def _page(web_ui: WebUI, conductor: Conductor, monitor: LoadMonitor) -> Blueprint:
    prefix = conductor.options.web_base_path or ""
    blueprint = Blueprint("harness_metrics", __name__, url_prefix=prefix)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MonitorCollector(monitor))

    def metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)

    guard: Any = web_ui.auth_required_if_enabled
    blueprint.add_url_rule(PATH, view_func=guard(metrics))
    return blueprint


def _serve(environment: Environment, monitor: LoadMonitor, text: str) -> None:
    try:
        server = MetricsServer(monitor, int(text)).__enter__()
    except ValueError as error:
        logger.error("--metrics-port %s: no number", text)
        raise SystemExit(UsageError.exit_code) from error
    except UsageError as error:
        logger.error("%s", one_line(error))
        raise SystemExit(error.exit_code) from error
    logger.info("metrics at http://127.0.0.1:%d%s", server.port, PATH)
    events: Any = environment.events  # Locust's hooks are untyped
    events.quit.add_listener(lambda **_: server.__exit__(None, None, None))
