"""How many requests count as one, by how their failures fall."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from harness.analysis.throughput import failure_design_effect
from harness.types import RESPONSE, Latencies, SparseHistogram, TimeSlice

REQUESTS = 20
"""A slice."""


def window(lost: NDArray[np.int64]) -> list[TimeSlice]:
    return [
        TimeSlice(
            index,
            ok=Latencies({RESPONSE: SparseHistogram((1000,), (REQUESTS - n,))}),
            failures={"timeout": n} if n else {},
        )
        for index, n in enumerate(lost.tolist())
    ]


def test_failures_one_by_one_count_nearly_all() -> None:
    rng = np.random.default_rng(1)
    effects = [failure_design_effect(window(rng.binomial(REQUESTS, 0.1, 100)), 0.95)
               for _ in range(100)]  # fmt: skip

    assert 1.3 < np.median(effects) < 2  # (t / z)^2 of ten blocks is 1.33


def test_failures_in_bursts_count_by_the_burst() -> None:
    """One stretch of 0.5 s in 5 s fails whole: ten requests in a hundred, and one event."""
    lost = np.zeros(100, dtype=np.int64)
    lost[40:50] = REQUESTS

    assert failure_design_effect(window(lost), 0.95) > 100


@pytest.mark.parametrize("lost", [0, REQUESTS])
def test_where_all_go_one_way_there_is_nothing_to_see(lost: int) -> None:
    assert failure_design_effect(window(np.full(100, lost)), 0.95) == 1


def test_an_interval_over_the_effective_number_covers_a_rate_of_bursts() -> None:
    """A slice in ten fails whole: the plain exact interval holds the truth far too seldom."""
    rng = np.random.default_rng(2)
    plain, allowing = 0, 0
    for _ in range(300):
        lost = REQUESTS * rng.binomial(1, 0.1, 200)
        total, failed = 200 * REQUESTS, int(lost.sum())
        effective = total / failure_design_effect(window(lost), 0.95)
        exact = stats.binomtest(failed, total).proportion_ci()
        plain += exact.low <= 0.1 <= exact.high
        hits = failed / total * effective
        low = stats.beta.ppf(0.025, hits, effective - hits + 1)
        high = stats.beta.ppf(0.975, hits + 1, effective - hits)
        allowing += low <= 0.1 <= high

    assert plain / 300 < 0.6
    assert allowing / 300 >= 0.94
