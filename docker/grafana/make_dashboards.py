"""Writes the dashboards beside this file: `python docker/grafana/make_dashboards.py`.

Every query is run against a real Prometheus in tests/integration/test_dashboards.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from capacity_board import CAPACITY
from live_board import LIVE
from panels import Dashboard, document
from variants_board import COMPARED

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {"live": LIVE, "variants": COMPARED, "capacity": CAPACITY}
"""By file name."""


def text_of(dashboard: Dashboard) -> str:
    """Of its file."""
    return json.dumps(document(dashboard), indent=2) + "\n"


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for name, dashboard in DASHBOARDS.items():
        (FOLDER / f"{name}.json").write_text(text_of(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
