"""The tab 'Serving' of Locust's page: its script, its data, its downloads.

Locust's own tabs for extensions show plain tables. So a script of ours travels with the page and
draws into the empty panel of a tab that Locust made (`static/serving.js`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request, send_from_directory
from locust.web import WebUI

from harness_locust.conductor import Conductor
from harness_locust.serving_document import summary_rows, test_document
from harness_locust.serving_watch import ServingWatch
from harness_locust.session_log import SessionLog

KEY = "serving"
TAB = {"title": "Serving", "key": KEY}
STATIC = Path(__file__).parent / "static"
DOWNLOADS = [
    {"href": "./serving/trials.csv", "title": "Download trials (CSV)"},
    {"href": "./serving/series.csv", "title": "Download per-second series (CSV)"},
]
FRESH_S = 0.9
"""However many pages are open, the document is made about once per second."""
_SCRIPT = b'<script type="module" src="./serving/static/serving.js"></script>'


def add_serving_tab(
    web_ui: WebUI, conductor: Conductor, watch: ServingWatch, log: SessionLog
) -> None:
    """Serve the tab's script and data, behind Locust's login where there is one."""
    app: Any = web_ui.app
    base = conductor.options.web_base_path or ""
    blueprint = Blueprint("serving", __name__, url_prefix=f"{base}/serving")
    guard: Any = web_ui.auth_required_if_enabled
    views: dict[str, Callable[..., Response]] = {
        "/data.json": _Documents(conductor, watch, log).answer,
        "/trials.csv": lambda: _csv("trials", log.trials_csv()),
        "/series.csv": lambda: _csv("series", log.series_csv()),
        "/static/<path:name>": lambda name: send_from_directory(STATIC, name),
    }
    for path, view in views.items():
        name = path.split("/")[1].replace(".", "_")
        blueprint.add_url_rule(path, view_func=guard(_named(view, name)))
    app.register_blueprint(blueprint)
    app.after_request(lambda response: _with_script(response, base))


class _Documents:
    """The document, made again only when it is asked for and old."""

    def __init__(self, conductor: Conductor, watch: ServingWatch, log: SessionLog) -> None:
        self._conductor, self._watch, self._log = conductor, watch, log
        self._made: tuple[float, str] = (0.0, "")

    def answer(self) -> Response:
        """The document of the test asked for (`?test=2`), by default the running or last one."""
        number = request.args.get("test", type=int)
        current = self._watch.current
        if number is not None and number in self._log.documents:
            shown = self._with_session(self._log.documents[number])
            return Response(json.dumps(shown), mimetype="application/json")
        made_s, text = self._made
        over = current is not None and current.ended_s is not None
        if over or time.monotonic() - made_s > FRESH_S:
            text = json.dumps(self._with_session(self._current()))
            self._made = time.monotonic(), text
        return Response(text, mimetype="application/json")

    def _current(self) -> dict[str, Any] | None:
        current = self._watch.current
        if current is None:
            return None
        over_s = current.ended_s
        if over_s is not None:
            return self._log.documents.get(current.number) or test_document(current, over_s)
        return test_document(current, self._conductor.elapsed_s)

    def _with_session(self, shown: dict[str, Any] | None) -> dict[str, Any]:
        rows, current = list(self._log.rows), self._watch.current
        if current is not None and current.ended_s is None:
            rows += summary_rows(current)
        folder = self._log.folder
        return {
            "shown": shown,
            "tests": rows,
            "folder": str(folder) if folder else None,
            "folder_problem": self._log.problem,
        }


def _named(view: Callable[..., Response], name: str) -> Callable[..., Response]:
    """Locust's guard copies a view's name, which a method of an object lacks."""

    def answer(**arguments: str) -> Response:
        response = view(**arguments)
        response.headers["Cache-Control"] = "no-cache"
        return response

    answer.__name__ = name
    return answer


def _csv(name: str, text: str) -> Response:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"Content-Disposition": f'attachment; filename="{name}-{stamp}.csv"'}
    return Response(text, mimetype="text/csv", headers=headers)


def _with_script(response: Response, base: str) -> Response:
    """Put the script into Locust's page, and into no other."""
    at_index = request.path.rstrip("/") == base.rstrip("/")
    if at_index and response.status_code == 200 and response.mimetype == "text/html":  # noqa: PLR2004  (HTTP's OK)
        page = response.get_data()
        response.set_data(page.replace(b"</body>", _SCRIPT + b"</body>", 1))
    return response
