"""A load test on a stack, started as its page's form starts one, and what both sides counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from stack import Stack

from harness import hdr

VARIANTS = ("own-teacher-fp32", "own-student-fp32")
WORKERS = 2
STATUSES = (
    "import collections, glob, json, pyarrow.parquet as p; "
    "rows = (p.read_table(one)['status'].to_pylist() for one in glob.glob('{}/*.parquet')); "
    "print(json.dumps([collections.Counter(one) for one in rows]))"
)
"""Run inside the master, where the workers' records come: by worker, requests by status."""


def start_test(stack: Stack, variant: str, *, seconds: int, **form: str) -> None:
    """Four users, each with one request in flight."""
    filled = {
        "user_count": "4",
        "spawn_rate": "4",
        "run_time": f"{seconds}s",
        "host": "grpc://triton:8001",
        "variant": variant,
        **form,
    }
    answer = stack.post("LOCUST_PORT", "swarm", **filled)
    assert answer["success"], answer


def state(stack: Stack) -> str:
    """Of the test, as the page tells it."""
    return str(stack.get("LOCUST_PORT", "stats/requests")["state"])


def wait_until_stopped(stack: Stack) -> None:
    """Until its time is over and its results are in."""
    stack.wait_for(lambda: state(stack) == "stopped", "the test's end")
    stack.wait_for(lambda: serving(stack)["verdict"]["final"], "the last verdict")


def histograms(stack: Stack) -> dict[str, Any]:
    """The page's download: totals and exact histograms of the last test, merged over workers."""
    document: dict[str, Any] = stack.get("LOCUST_PORT", "hdr-histograms.json")
    return document


def serving(stack: Stack) -> dict[str, Any]:
    """What the tab Serving shows of the last test; KeyError where there was none yet."""
    shown: dict[str, Any] | None = stack.get("LOCUST_PORT", "serving/data.json")["shown"]
    if shown is None:
        raise KeyError("shown")
    return shown


def merged(stack: Stack) -> Counter[str]:
    """Requests of the last test by status; the successes as the merged histogram holds them."""
    counted: Counter[str] = Counter()
    for phase in histograms(stack)["phases"]:
        counted["ok"] += hdr.total(hdr.decode(phase["ok"]["response"]["encoded"]))
        counted.update(phase["failures"])
    return counted


def recorded(stack: Stack, folder: str) -> list[Counter[str]]:
    """Requests by status as each worker wrote them down one by one (the form's `records`)."""
    (master,) = stack.containers("locust-master")
    counted = json.loads(stack.engine.run("exec", master, "python", "-c", STATUSES.format(folder)))
    return [Counter(one) for one in counted]


def total(counted: list[Counter[str]]) -> Counter[str]:
    """Over the workers."""
    return sum(counted, Counter())


def successes_at_triton(stack: Stack, model: str) -> int:
    """Triton's own count since it loaded the model."""
    statistics = stack.get("TRITON_HTTP_PORT", f"v2/models/{model}/stats")["model_stats"][0]
    return int(statistics["inference_stats"]["success"]["count"])
