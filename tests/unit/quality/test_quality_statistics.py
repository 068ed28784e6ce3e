"""McNemar's test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from harness.statistics.paired import mcnemar_p_value

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)


@given(pairs)
def test_mcnemar_is_statsmodels_exact_one(rows: list[tuple[bool, bool]]) -> None:
    first, second = np.array(rows).T
    table = [
        [(first & second).sum(), (first & ~second).sum()],
        [(~first & second).sum(), (~first & ~second).sum()],
    ]
    expected = mcnemar(table, exact=True).pvalue

    assert mcnemar_p_value(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p_value(second, first) == pytest.approx(mcnemar_p_value(first, second))


def test_one_sided_discord_is_significant() -> None:
    better = np.ones(100, dtype=bool)
    worse = np.arange(100) >= 10

    assert mcnemar_p_value(better, worse) == pytest.approx(2 / 2**10)
