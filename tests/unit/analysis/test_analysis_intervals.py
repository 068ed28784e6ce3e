import numpy as np
import pytest
import scipy

from harness import hdr
from harness.analysis.percentiles import (
    HIGHEST_CORRELATION,
    ROOM,
    BlockCounts,
    autocorrelation,
    design_effect,
    fewest_requests,
    order_statistic_ranks,
    quantile_bounds_us,
)


def blocks_of(rows, dropped=()):
    histograms = [hdr.of_nanoseconds(np.asarray(row).astype(np.int64) * 1000) for row in rows]
    return BlockCounts.of(histograms, dropped, blocks=len(histograms))


@pytest.mark.parametrize(("slow", "samples"), [(0, 90), (10, 398), (50, 1372)])
def test_the_upper_bound_is_loadgen_s_early_stopping(slow, samples):
    # MLPerf LoadGen, p95 at 99 %: so many samples pass with this many over the bound. One-sided 99
    # % is the upper end of a two-sided 98 %.
    def slower_than_the_bound(n):
        return n - order_statistic_ranks(n, 0.95, 0.98)[1]

    assert slower_than_the_bound(samples) >= slow
    assert slower_than_the_bound(samples - 1) < slow


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99])
def test_fewest_requests_are_those_with_an_upper_order_statistic(quantile):
    fewest = fewest_requests(quantile, 0.95)
    assert order_statistic_ranks(fewest, quantile, 0.95)[1] <= fewest
    assert order_statistic_ranks(fewest - 1, quantile, 0.95)[1] > fewest - 1


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99, 0.9999])
def test_ranks_are_the_quantiles_of_the_binomial_distribution(quantile, confidence):
    tail = (1 - confidence) / 2
    for samples in (*range(1, 41), 90, 398, 1372, 10_000, 1_000_003):
        low, above = scipy.stats.binom.ppf([tail, 1 - tail], samples, quantile)
        assert order_statistic_ranks(samples, quantile, confidence) == (low, above + 1)


def test_slices_merge_into_blocks_and_nothing_is_lost():
    rng = np.random.default_rng(1)
    slices = [hdr.of_nanoseconds(rng.integers(10**6, 10**7, size)) for size in range(23)]
    merged = BlockCounts.of(slices, [1] * 23, blocks=10)
    assert len(merged.counts) == 10
    assert merged.answered == sum(range(23))
    assert merged.offered == merged.answered + 23
    whole = hdr.merge(slices)
    for rank in (1, 100, merged.answered):
        expected_ms = hdr.value_at(whole, rank / merged.answered)
        assert merged.value_at(rank) == expected_ms * 1000


def test_ranks_average_to_one_half_with_ties_and_drops():
    blocks = blocks_of([[1, 1, 5], [5, 9], [2]], dropped=[0, 2, 1])
    assert blocks.block_ranks.sum() == pytest.approx(blocks.offered / 2)
    assert blocks.block_quantiles_us(0.75).tolist() == [5, hdr.HIGHEST_US, hdr.HIGHEST_US]
    assert blocks.block_quantiles_us(0.5).tolist() == [1, 9, 2]


def test_too_few_independent_requests_leave_room_above_the_greatest():
    # Slow requests in two blocks of ten: the effective number is too small for an order statistic.
    rows = [[1000] * 60 for _ in range(10)]
    for block in (2, 7):
        rows[block][:14] = [1100] * 14
    blocks = blocks_of(rows)
    effective = blocks.offered / design_effect(blocks, 0.95, 0.99)
    assert effective < fewest_requests(0.95, 0.99) < blocks.offered
    assert quantile_bounds_us(blocks, 0.95, 0.99)[1] == ROOM * blocks.value_at(600)


def test_correlation_of_short_series():
    assert autocorrelation(np.zeros(10)) == 0
    assert autocorrelation(np.array([1.0, -1.0] * 5)) < -0.7
    assert autocorrelation(np.linspace(-1, 1, 10)) == HIGHEST_CORRELATION
    rng = np.random.default_rng(2)
    independent = [series - series.mean() for series in rng.normal(size=(2000, 10))]
    assert abs(np.mean([autocorrelation(series) for series in independent])) < 0.06
