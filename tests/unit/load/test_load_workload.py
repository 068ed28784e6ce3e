"""Workloads that cannot be driven are refused in one line, before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.load.schedule.arrivals import check_workload
from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    LoadMode,
    LoadShape,
    ShapeKind,
    WireProtocol,
    Workload,
)

CLOSED = Workload(WireProtocol.HTTP, 4, 16, duration_s=10, warmup_s=2, seed=0)
OPEN = replace(CLOSED, load_mode=LoadMode.OPEN, rate_per_s=100.0)


def trace(folder: Path, *, last_s: float) -> ArrivalProcess:
    path = folder / "trace.csv"
    path.write_text("\n".join(f"{n * last_s / 100:.3f}" for n in range(101)))
    return ArrivalProcess(ArrivalKind.TRACE, trace=path)


@pytest.mark.parametrize(
    "workload",
    [
        CLOSED,
        OPEN,
        replace(CLOSED, warmup_s=0, min_duration_s=10),
        replace(CLOSED, batch_mix=((1, 0.5), (4, 0.5)), length_mix=((32, 1.0),)),
        replace(OPEN, arrivals=ArrivalProcess(ArrivalKind.GAMMA, burstiness_cv=3)),
    ],
)
def test_a_workload_that_makes_sense_passes(workload: Workload) -> None:
    check_workload(workload)


@pytest.mark.parametrize(
    ("workload", "changes", "why"),
    [
        (CLOSED, {"duration_s": 0}, "a duration of 0 s"),
        (CLOSED, {"duration_s": -3.0}, "a duration of -3 s"),
        (CLOSED, {"duration_s": float("nan")}, "a duration of nan s"),
        (CLOSED, {"duration_s": float("inf")}, "a duration of inf s"),
        (CLOSED, {"warmup_s": -1}, "a warm-up of -1 s"),
        (CLOSED, {"warmup_s": float("nan")}, "a warm-up of nan s"),
        (CLOSED, {"min_duration_s": 0}, "a shortest duration of 0 s"),
        (CLOSED, {"min_duration_s": float("nan")}, "a shortest duration of nan s"),
        (CLOSED, {"min_duration_s": 11}, "a shortest duration of 11 s in a trial of 10 s"),
        (CLOSED, {"concurrency": 0}, "0 requests in flight"),
        (CLOSED, {"concurrency": -2}, "-2 requests in flight"),
        (CLOSED, {"seed": -1}, "a seed of -1"),
        (CLOSED, {"client_batch_size": 0}, "a client batch size of 0"),
        (CLOSED, {"rate_per_s": 10.0}, "only an open loop has a rate"),
        (CLOSED, {"batch_mix": ((0, 1.0), (4, 1.0))}, "mix of batch sizes has a size of 0"),
        (CLOSED, {"batch_mix": ((4, 0.0),)}, "mix of batch sizes gives 4 a weight of 0"),
        (CLOSED, {"batch_mix": ((1, 1.0), (8, 1.0))}, "up to 8 with a client batch size of 4"),
        (CLOSED, {"length_mix": ((-32, 1.0),)}, "mix of lengths has a size of -32"),
        (OPEN, {"rate_per_s": None}, "an open loop without a rate"),
        (OPEN, {"rate_per_s": 0}, "a rate of 0 requests/s"),
        (OPEN, {"rate_per_s": -5.0}, "a rate of -5 requests/s"),
        (OPEN, {"rate_per_s": float("nan")}, "a rate of nan requests/s"),
        (OPEN, {"rate_per_s": float("inf")}, "a rate of inf requests/s"),
        (OPEN, {"rate_per_s": 1e9}, "at most 1,000,000 can be asked"),
        (OPEN, {"arrivals": ArrivalProcess(ArrivalKind.GAMMA, 0.0)}, "coefficient of variation"),
        (OPEN, {"arrivals": ArrivalProcess(ArrivalKind.TRACE)}, "no trace file named"),
        (
            OPEN,
            {"arrivals": ArrivalProcess(shape=LoadShape(ShapeKind.STEP, 1, -2))},
            "factors are 0 or more",
        ),
    ],
)
def test_what_cannot_be_driven_is_refused(
    workload: Workload, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_workload(replace(workload, **changes))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_peak_of_the_shape_counts() -> None:
    shape = LoadShape(ShapeKind.SPIKE, 1, 20, 10)
    with pytest.raises(UsageError, match="2,000,000 requests/s"):
        check_workload(replace(OPEN, rate_per_s=100_000, arrivals=ArrivalProcess(shape=shape)))


def test_a_trace_brings_its_own_rate(tmp_path: Path) -> None:
    arrivals = trace(tmp_path, last_s=20)
    check_workload(replace(OPEN, rate_per_s=None, arrivals=arrivals))
    shaped = replace(arrivals, shape=LoadShape(ShapeKind.SINE, 0, 1))
    for changes in ({"arrivals": arrivals}, {"arrivals": shaped, "rate_per_s": None}):
        with pytest.raises(UsageError, match="with a rate or a shape besides"):
            check_workload(replace(OPEN, **changes))


def test_a_trial_longer_than_its_trace_is_refused(tmp_path: Path) -> None:
    arrivals = trace(tmp_path, last_s=11)
    with pytest.raises(UsageError, match=r"lasts 11\.11 s, the trial up to 12 s") as caught:
        check_workload(replace(OPEN, rate_per_s=None, arrivals=arrivals))
    assert "where a trace ends, the load ends" in caught.value.next_step


def test_a_trial_as_long_as_its_trace_is_not_refused_by_rounding(tmp_path: Path) -> None:
    """1,000 arrivals every 60 ms last 59.99999999999999 s, as floats have it."""
    path = tmp_path / "trace.csv"
    path.write_text("timestamp_s\n" + "".join(f"{n * 0.06:.2f}\n" for n in range(1000)))
    arrivals = ArrivalProcess(ArrivalKind.TRACE, trace=path)
    check_workload(replace(OPEN, rate_per_s=None, arrivals=arrivals, duration_s=58.0, warmup_s=2.0))


def test_a_trace_that_is_not_there_is_refused(tmp_path: Path) -> None:
    arrivals = ArrivalProcess(ArrivalKind.TRACE, trace=tmp_path / "none.csv")
    with pytest.raises(UsageError, match=r"none\.csv: no trace can be read"):
        check_workload(replace(OPEN, rate_per_s=None, arrivals=arrivals))
