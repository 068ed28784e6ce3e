"""Arrival processes: their laws, their seeds, and how workers share them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.errors import DataError, UsageError
from harness.load.schedule.arrivals import arrival_times_ns, check_workload, share
from harness.load.schedule.shapes import nominal_seconds
from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    LoadMode,
    LoadShape,
    ShapeKind,
    WireProtocol,
    Workload,
)
from harness.types.workloads import arrivals_text, parse_arrivals

CONSTANT = ArrivalProcess(ArrivalKind.CONSTANT)
POISSON = ArrivalProcess(ArrivalKind.POISSON)
BURSTY = ArrivalProcess(ArrivalKind.GAMMA, burstiness_cv=2.0)
SMOOTH = ArrivalProcess(ArrivalKind.GAMMA, burstiness_cv=0.5)
SHAPES = [
    LoadShape(ShapeKind.RAMP, 0.2, 1.5, 20),
    LoadShape(ShapeKind.STEP, 0.3, 1.0, 12),
    LoadShape(ShapeKind.SPIKE, 0.5, 4.0, 10),
    LoadShape(ShapeKind.SINE, 0.1, 1.0, 16),
]


def seconds(
    process: ArrivalProcess, rate_per_s: float, *, until_s: float, seed: int = 1
) -> np.ndarray:
    """All arrivals before an instant, in seconds."""
    chunks = arrival_times_ns(process, rate_per_s=rate_per_s, seed=seed)
    taken = itertools.takewhile(lambda chunk: chunk[0] < until_s * 1e9, chunks)
    times_s = np.concatenate(list(taken)) / 1e9
    assert (np.diff(times_s) >= 0).all()
    return times_s[times_s < until_s]


def test_constant_arrivals_are_a_gap_apart_from_half_a_gap_on() -> None:
    times_s = seconds(CONSTANT, 250, until_s=60)
    assert times_s == pytest.approx((np.arange(60 * 250) + 0.5) / 250, abs=2e-9)


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(seconds(POISSON, 400, until_s=60))
    assert stats.kstest(gaps, stats.expon(scale=1 / 400).cdf).pvalue > 0.01
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.03


def test_poisson_counts_vary_as_much_as_their_mean() -> None:
    counts, _ = np.histogram(seconds(POISSON, 50, until_s=2000), bins=2000, range=(0, 2000))
    # Index of dispersion: (n - 1) times it is chi-squared.
    index = counts.var(ddof=1) / counts.mean()
    assert 0.01 < stats.chi2(1999).cdf(1999 * index) < 0.99


@pytest.mark.parametrize("process", [BURSTY, SMOOTH])
def test_gamma_gaps_have_the_asked_variation(process: ArrivalProcess) -> None:
    gaps = np.diff(seconds(process, 100, until_s=600))
    cv = process.burstiness_cv
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
    law = stats.gamma(1 / cv**2, scale=cv**2 / 100)
    # Bursts have gaps below the clock's nanosecond, so the law is compared from a microsecond on.
    least = law.cdf(1e-6)
    assert np.mean(gaps < 1e-6) == pytest.approx(least, abs=0.01)
    seen = stats.kstest(gaps[gaps >= 1e-6], lambda gap: (law.cdf(gap) - least) / (1 - least))
    assert seen.pvalue > 0.01


@pytest.mark.parametrize("process", [CONSTANT, POISSON, BURSTY, SMOOTH])
def test_the_mean_rate_is_the_asked_one(process: ArrivalProcess) -> None:
    count = len(seconds(process, 80, until_s=1000))
    assert abs(count - 80_000) <= 4 * process.burstiness_cv * np.sqrt(80_000)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_arrivals_follow_the_shape(shape: LoadShape) -> None:
    edges_s = np.linspace(0, 40, 81)
    expected = np.diff(nominal_seconds(shape, edges_s)) * 500
    constant, _ = np.histogram(
        seconds(ArrivalProcess(ArrivalKind.CONSTANT, shape=shape), 500, until_s=40), edges_s
    )
    assert np.abs(constant - expected).max() < 1.5  # to the request
    poisson, _ = np.histogram(
        seconds(ArrivalProcess(ArrivalKind.POISSON, shape=shape), 500, until_s=40), edges_s
    )
    distance = ((poisson - expected) ** 2 / expected).sum()
    assert 0.005 < stats.chi2(len(expected)).cdf(distance) < 0.995


def test_a_load_that_ends_at_nothing_ends_the_arrivals() -> None:
    shape = LoadShape(ShapeKind.RAMP, 1.0, 0.0, 10)
    process = ArrivalProcess(ArrivalKind.CONSTANT, shape=shape)
    times_ns = np.concatenate(list(arrival_times_ns(process, rate_per_s=1000, seed=0)))
    assert len(times_ns) == 5000
    assert times_ns[-1] <= 10e9


@pytest.mark.parametrize("process", [POISSON, BURSTY])
def test_the_seed_says_which_arrivals(process: ArrivalProcess) -> None:
    first, again, other = (seconds(process, 100, until_s=100, seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:100], other[:100])


@given(st.integers(1, 16), st.integers(0, 3), st.sampled_from([CONSTANT, POISSON, BURSTY]))
def test_the_workers_shares_are_the_one_sequence(
    workers: int, seed: int, process: ArrivalProcess
) -> None:
    def sequence() -> itertools.islice:
        return itertools.islice(arrival_times_ns(process, rate_per_s=900, seed=seed), 3)

    whole = np.concatenate(list(sequence()))
    shares = [np.concatenate(list(share(sequence(), k, workers))) for k in range(workers)]
    for worker, part in enumerate(shares):
        assert np.array_equal(part, whole[worker::workers])
    assert np.array_equal(np.sort(np.concatenate(shares)), whole)


def test_a_trace_is_replayed_once(tmp_path: Path) -> None:
    stamps = np.cumsum(np.random.default_rng(3).exponential(0.01, 10_000)).round(6)
    path = tmp_path / "busy-hour.csv"
    path.write_text("timestamp\n" + "\n".join(f"{1e6 + stamp:.6f}" for stamp in stamps))
    chunks = list(arrival_times_ns(parse_arrivals(f"trace:{path}"), rate_per_s=None, seed=0))
    assert max(map(len, chunks)) < len(stamps)
    assert np.concatenate(chunks) / 1e9 == pytest.approx(stamps - stamps[0], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "process"),
    [
        ("constant", CONSTANT),
        ("poisson", POISSON),
        ("gamma:2.0", BURSTY),
        ("gamma:0.5", SMOOTH),
    ],
)
def test_arrivals_are_named(text: str, process: ArrivalProcess) -> None:
    assert parse_arrivals(text) == process


@pytest.mark.parametrize(
    "text", ["", "uniform", "gamma", "gamma:", "gamma:much", "poisson:2", "trace", "trace:"]
)
def test_what_is_no_arrival_process_shows_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="is not an arrival process") as caught:
        parse_arrivals(text)
    assert "gamma:CV" in caught.value.next_step


@pytest.mark.parametrize("cv", ["0", "-1", "nan", "inf", "1000"])
def test_a_burstiness_that_cannot_be_drawn_is_refused(cv: str) -> None:
    with pytest.raises(UsageError, match="coefficient of variation"):
        parse_arrivals(f"gamma:{cv}")


def test_a_missing_trace_is_refused_at_once(tmp_path: Path) -> None:
    arrivals = parse_arrivals(f"trace:{tmp_path / 'none.csv'}")
    workload = Workload(
        WireProtocol.HTTP, 1, 16, 1.0, 0.0, 0, LoadMode.OPEN, rate_per_s=None, arrivals=arrivals
    )
    with pytest.raises(DataError, match="no trace can be read"):
        check_workload(workload)


@pytest.mark.parametrize("text", ["constant", "poisson", "gamma:2", "gamma:0.123456789"])
def test_arrivals_are_written_as_they_are_read(text: str) -> None:
    assert arrivals_text(parse_arrivals(text)) == text
    assert parse_arrivals(arrivals_text(parse_arrivals(text))) == parse_arrivals(text)
