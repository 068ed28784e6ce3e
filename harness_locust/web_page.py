"""Locust's web page with the harness's tables, and its start form with the harness's checks."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request
from locust.util.timespan import parse_timespan
from locust.web import WebUI

from harness.errors import HarnessError
from harness_locust.conductor import Conductor, one_line
from harness_locust.results import Results
from harness_locust.serving_page import DOWNLOADS, TAB, add_serving_tab
from harness_locust.serving_watch import ServingWatch
from harness_locust.session_log import SessionLog
from harness_locust.summary import (
    Row,
    as_document,
    latency_rows,
    outcome_rows,
    phase_rows,
    worker_rows,
)

DOCUMENT = "hdr-histograms.json"

TABS: dict[str, tuple[str, Callable[[Results, float], list[Row]], dict[str, str]]] = {
    "hdr-latency": (
        "HDR latency",
        latency_rows,
        {
            "latency": "Latency (successes)",
            "window": "Window",
            "count": "Requests",
            "p50": "p50 (ms)",
            "p90": "p90 (ms)",
            "p95": "p95 (ms)",
            "p99": "p99 (ms)",
            "p99.9": "p99.9 (ms)",
            "max": "Max (ms)",
        },
    ),
    "phases": (
        "Phases",
        phase_rows,
        {
            "phase": "Phase",
            "seconds": "Seconds",
            "requests_per_s": "Requests/s",
            "inferences_per_s": "Inferences/s",
            "p50": "p50 (ms)",
            "p95": "p95 (ms)",
            "p99": "p99 (ms)",
            "failed": "Failed",
            "dropped": "Dropped",
        },
    ),
    "outcomes": (
        "Outcomes",
        outcome_rows,
        {
            "outcome": "Outcome",
            "requests": "Requests",
            "share": "Share",
            "per_second": "Per second",
        },
    ),
    "generators": (
        "Load generators",
        worker_rows,
        {
            "process": "Process",
            "cpu": "CPU (of a core)",
            "lag_p99": "Event loop lag, p99 (ms)",
            "memory": "Memory",
            "remark": "Remark",
        },
    ),
}
"""By key: title, rows, and the columns' titles."""

logger = logging.getLogger("harness")


def extend_page(web_ui: WebUI, conductor: Conductor, watch: ServingWatch, log: SessionLog) -> None:
    """Add the tabs, their data, a download, and the check of the start form."""
    app: Any = web_ui.app
    # The form in the order of `arguments.py`: what is tested first.
    app.json.sort_keys = False
    app.jinja_env.policies["json.dumps_kwargs"] = {"sort_keys": False}
    web_ui.template_args |= _template()
    app.before_request(lambda: _check_form(conductor))
    app.after_request(lambda response: _with_tables(response, conductor))
    app.register_blueprint(_download(web_ui, conductor))
    add_serving_tab(web_ui, conductor, watch, log)


def _template() -> dict[str, Any]:
    return {
        "extended_tabs": [
            TAB,
            *({"title": title, "key": key} for key, (title, _, _) in TABS.items()),
        ],
        "extended_tables": [
            {
                "key": key,
                "structure": [
                    {"key": _plain(column), "title": title} for column, title in columns.items()
                ],
            }
            for key, (_, _, columns) in TABS.items()
        ],
        "extended_csv_files": [
            {"href": f"./{DOCUMENT}", "title": "Download HDR histograms (JSON)"},
            *DOWNLOADS,
        ],
    }


def _check_form(conductor: Conductor) -> Response | None:
    """Check the form before Locust acts on it: a mistake is shown, and nothing starts."""
    if not request.path.endswith("/swarm") or request.method != "POST" or conductor.running:
        return None
    try:
        conductor.prepare(*_read_form(conductor))
    except HarnessError as error:
        message = one_line(error)
        logger.error("%s", message)
        if conductor.environment.runner is not None:
            conductor.environment.runner.log_exception("the start form", message, message)
        return jsonify({"success": False, "message": message, "host": request.form.get("host")})
    if conductor.environment.shape_class is not None:
        # Of a test that ended before its run time: starting a shape Locust leaves it running.
        web_ui: Any = conductor.environment.web_ui
        web_ui._cancel_run_time_timer()
    return None


def _read_form(conductor: Conductor) -> tuple[Namespace, str | None]:
    """The arguments as Locust will have them once it has read the form."""
    options = Namespace(**vars(conductor.options))
    for name, value in request.form.items():
        if isinstance(getattr(options, name, None), bool):
            setattr(options, name, value == "true")
        elif name == "run_time":
            options.run_time = _run_time_s(value)
        elif isinstance(getattr(options, name, None), str):
            setattr(options, name, value)
    return options, request.form.get("host") or conductor.environment.host


def _run_time_s(text: str) -> int | None:
    """The run time in seconds; None where Locust itself will say what is wrong with it."""
    try:
        seconds: int = parse_timespan(text) if text else 0
    except ValueError:
        return None
    return seconds or None


def _with_tables(response: Response, conductor: Conductor) -> Response:
    """Put our rows beside Locust's, in the answer its page polls.

    Locust remembers that answer for two seconds, its state included: a page opened just after the
    start would read "ready", show the form, and never ask again. So the state is told as it is.
    """
    if not request.path.endswith("/stats/requests") or not response.is_json:
        return response
    document = dict(response.json or {})
    if conductor.environment.runner is not None:
        document["state"] = conductor.environment.runner.state
    results = conductor.results
    if results is not None:
        document["extended_stats"] = [
            {"key": key, "data": [_for_page(row) for row in rows(results, conductor.elapsed_s)]}
            for key, (_, rows, _) in TABS.items()
        ]
    response.set_data(json.dumps(document))
    return response


def _for_page(row: Row) -> Row:
    return {_plain(column): value for column, value in row.items()}


def _plain(column: str) -> str:
    """The page turns names into camelCase, which a dot would survive in one place only."""
    return column.replace(".", "_")


def _download(web_ui: WebUI, conductor: Conductor) -> Blueprint:
    prefix = conductor.options.web_base_path or ""
    blueprint = Blueprint("harness", __name__, url_prefix=prefix)

    def histograms() -> Response:
        plan, results = conductor.plan, conductor.results
        if plan is None or results is None:
            return Response("no test has run yet\n", status=404, mimetype="text/plain")
        return jsonify(as_document(plan, results, conductor.elapsed_s))

    guard: Any = web_ui.auth_required_if_enabled
    blueprint.add_url_rule(f"/{DOCUMENT}", view_func=guard(histograms))
    return blueprint
