"""That Locust shows of batches what it would show of the same requests logged one by one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "locust_statistics.py"
CHECKOUT = Path(__file__).resolve().parents[2]
MS = 1_000_000
EDGES_MS = [0, 0.5, 1.5, 99.4, 99.5, 100, 104.9, 105, 115, 994, 995, 1000, 1050, 1150, 9949, 9950]
EDGES_MS += [10_000, 10_500, 11_500, 3_599_999]


def batches(*, failures: int = 0, dropped: int = 0) -> list[dict[str, Any]]:
    """Forty batches over 12 s: every edge of Locust's rounding, and a wide spread."""
    draw = random.Random(7)
    made = []
    for place in range(40):
        latencies = [int(draw.lognormvariate(2, 2) * MS) for _ in range(draw.randint(0, 60))]
        if place % 10 == 3:
            latencies += [int(one * MS) for one in EDGES_MS]
        kinds = [draw.choice(["timeout", "http_503"]) for _ in range(failures)]
        failed = [[int(draw.uniform(1, 3000) * MS), kind] for kind in kinds]
        made.append({"latencies_ns": latencies, "failures": failed, "dropped": dropped})
    return made


def said_by_locust(load: list[dict[str, Any]]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        input=json.dumps(load),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def shown(said: dict[str, Any], *names: str) -> list[Any]:
    """The named parts, with sums rounded: floats depend on the order they are added in."""
    entries = [
        entry | {"total_response_time": pytest.approx(entry["total_response_time"])}
        for entry in said["entries"]
    ]
    rows = [row | {"Average Response Time": None} for row in said["csv"]]
    parts = said | {"entries": entries, "csv": rows}
    return [parts[name] for name in names]


@pytest.mark.parametrize(
    ("failures", "dropped"), [(0, 0), (2, 0), (1, 9), (250, 0)],
    ids=["successes", "few failures", "drops", "more failures than are fired"],
)  # fmt: skip
def test_batches_count_as_requests_logged_one_by_one(failures: int, dropped: int) -> None:
    load = batches(failures=failures, dropped=dropped)
    said = said_by_locust(load)
    everything = ("entries", "percentiles", "now", "rates", "errors", "csv")
    assert shown(said["batched"], *everything) == shown(said["single"], *everything)
    assert said["batched"]["told"] == min(failures, 100) * len(load)
    (entry, total) = said["batched"]["entries"]
    succeeded = sum(len(one["latencies_ns"]) for one in load)
    assert entry["num_requests"] == total["num_requests"] == succeeded + failures * len(load)
    assert entry["num_failures"] == (failures + dropped) * len(load)
    assert entry["total_content_length"] == succeeded * 80


def test_two_workers_add_up_to_one_on_the_master() -> None:
    said = said_by_locust(batches(failures=150, dropped=3))
    parts = ("percentiles", "errors")
    assert shown(said["distributed"], *parts) == shown(said["single"], *parts)
    for merged, single in zip(
        said["distributed"]["entries"], shown(said["single"], "entries")[0], strict=True
    ):
        assert merged | {"start_time": 0} == single | {"start_time": 0}
