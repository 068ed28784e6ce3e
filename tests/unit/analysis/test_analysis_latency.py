import json
import math
from dataclasses import asdict
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import hdr
from harness.analysis.percentiles import summarise
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import PERCENTILES

LOG_SPREAD = 0.5


def histogram(latencies_us):
    return hdr.of_nanoseconds(np.asarray(latencies_us).astype(np.int64) * 1000)


def slices(latencies_us, count=10):
    return [histogram(part) for part in np.array_split(np.asarray(latencies_us), count)]


def test_nothing_recorded_is_no_summary():
    assert summarise([]) is None
    assert summarise([histogram([]), histogram([])]) is None
    assert summarise([histogram([])], dropped=[7]) is None


def test_values_are_those_of_the_sample():
    latencies_us = np.random.default_rng(1).permutation(np.arange(1000, 101_000, 100))
    summary = summarise(slices(latencies_us))
    assert summary.count == 1000
    assert summary.mean_ms == pytest.approx(latencies_us.mean() / 1000, rel=1e-3)
    assert summary.min_ms == pytest.approx(1.0, rel=1e-3)
    assert summary.max_ms == pytest.approx(100.9, rel=1e-3)
    for name, quantile in PERCENTILES.items():
        expected = np.quantile(latencies_us, quantile, method="inverted_cdf") / 1000
        assert summary.percentiles[name].value_ms == pytest.approx(expected, rel=2e-3)
    assert 1 <= summary.design_effect < 5


def test_a_small_sample_has_no_upper_bound_and_says_so_in_json():
    few = summarise(slices(np.linspace(1000, 2000, 60)))
    assert few.percentiles["p95"].high_ms == UNBOUNDED_MS == 3_600_000
    json.dumps(asdict(few), allow_nan=False)


def test_one_slice_gives_values_without_bounds():
    summary = summarise([histogram(range(1000, 3000))])
    p95 = summary.percentiles["p95"]
    assert p95.value_ms == pytest.approx(2.9, rel=1e-2)
    assert (p95.low_ms, p95.high_ms) == (0, UNBOUNDED_MS)
    assert summary.design_effect == 2000
    assert summary.mean_low_ms is None
    assert summary.mean_high_ms is None


def test_equal_latencies_have_a_sharp_interval():
    p95 = summarise(slices([5000] * 2000)).percentiles["p95"]
    assert p95.low_ms == p95.value_ms == p95.high_ms == pytest.approx(5.0, rel=1e-3)


def test_a_window_that_drifts_has_no_bounds():
    # One long swing: its blocks are ten looks at the same thing.
    drifting = summarise(slices(np.linspace(1000, 9000, 2000), 40))
    assert drifting.percentiles["p95"].high_ms == UNBOUNDED_MS
    assert drifting.percentiles["p95"].low_ms == 0
    assert drifting.mean_high_ms is None


def test_slow_slices_count_for_less_than_slow_requests():
    rng = np.random.default_rng(2)
    latencies_us = rng.integers(1000, 2000, size=(10, 300))
    latencies_us[[2, 7], :80] += 5000  # as many slow requests in two stalls
    stalls = summarise([histogram(one) for one in latencies_us])
    shuffled = summarise(slices(rng.permutation(latencies_us.ravel())))
    assert stalls.percentiles["p95"].value_ms == shuffled.percentiles["p95"].value_ms
    assert stalls.design_effect > 10 * shuffled.design_effect
    assert stalls.percentiles["p95"].low_ms < shuffled.percentiles["p95"].low_ms
    assert stalls.percentiles["p95"].high_ms > shuffled.percentiles["p95"].high_ms


def test_slices_without_requests_keep_their_place():
    rng = np.random.default_rng(3)
    busy = [histogram(rng.integers(1000, 2000, 100)) for _ in range(20)]
    gaps = [one for slice_ in busy for one in (slice_, histogram([]))]
    with_gaps, without = summarise(gaps), summarise(busy)
    assert with_gaps.percentiles["p95"] == without.percentiles["p95"]
    assert with_gaps.count == without.count == 2000


def test_dropped_requests_are_slower_than_any_other():
    latencies = slices([1000] * 9000 + [2000] * 500, 10)
    kept = summarise(latencies, dropped=[0] * 10)
    assert kept.percentiles["p90"].value_ms == pytest.approx(1.0, rel=1e-3)
    lost = summarise(latencies, dropped=[100] * 10)
    assert lost.count == kept.count == 9500
    assert lost.mean_ms == kept.mean_ms
    assert lost.percentiles["p90"].value_ms == pytest.approx(2.0, rel=1e-3)
    assert lost.percentiles["p95"].value_ms == lost.percentiles["p99"].value_ms == UNBOUNDED_MS
    assert lost.percentiles["p50"].high_ms < 3


def independent(rng, count):
    return rng.normal(size=count)


def autoregressive(rng, count, memory=0.9):
    """AR(1) with unit variance over the whole window; about 19 neighbours count as one."""
    noise = rng.normal(size=count) * math.sqrt(1 - memory**2)
    noise[0] = rng.normal()
    for place in range(1, count):
        noise[place] += memory * noise[place - 1]
    return noise


@pytest.mark.parametrize("series", [independent, autoregressive])
@pytest.mark.parametrize("metric", ["p50", "p95", "mean"])
def test_intervals_cover_the_truth_as_often_as_they_say(series, metric):
    rng = np.random.default_rng(7)
    logarithm = LOG_SPREAD**2 / 2
    if metric != "mean":
        logarithm = LOG_SPREAD * NormalDist().inv_cdf(PERCENTILES[metric])
    truth_ms = 10 * math.exp(logarithm)
    inside = 0
    windows = 150
    for _ in range(windows):
        summary = summarise(slices(10_000 * np.exp(LOG_SPREAD * series(rng, 1500)), 20))
        low_ms, high_ms = summary.mean_low_ms or 0, summary.mean_high_ms or math.inf
        if metric != "mean":
            percentile = summary.percentiles[metric]
            low_ms, high_ms = percentile.low_ms, percentile.high_ms
        inside += low_ms <= truth_ms <= high_ms
    # 150 windows of a 95 % interval: fewer than 133 (88.7 %) would come up once in 1000 such tests.
    assert inside >= 133


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 3_600_000_000), max_size=40), st.integers(0, 5)),
        max_size=30,
    ),
    st.floats(0.5, 0.999),
)
def test_bounds_enclose_the_value_whatever_was_measured(measured, confidence):
    latencies = [histogram(answered) for answered, _ in measured]
    dropped = [lost for _, lost in measured]
    summary = summarise(latencies, confidence=confidence, dropped=dropped)
    if summary is None:
        assert not any(answered for answered, _ in measured)
        return
    values = [summary.percentiles[name].value_ms for name in PERCENTILES]
    assert values == sorted(values)
    for percentile in summary.percentiles.values():
        assert 0 <= percentile.low_ms <= percentile.value_ms <= percentile.high_ms <= UNBOUNDED_MS
        assert percentile.value_ms <= summary.max_ms or any(dropped)
    if summary.mean_low_ms is not None:
        assert summary.mean_low_ms <= summary.mean_ms <= summary.mean_high_ms
    assert 1 <= summary.design_effect <= summary.count + sum(dropped)
