"""Intervals hold the truth as often as they say: also with few rows, at 0% and 100%, by document.

`benchmarks/interval_coverage.py` has the longer table.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from harness.statistics import intervals
from harness.statistics.intervals import Bounds, bounds, side_by_side
from harness.statistics.metrics import mean_sums, perplexity_sums, share_statistic
from harness.statistics.paired import paired_loss
from harness.tasks.classification.statistics import classification_statistics

ROWS = (20, 100, 1000)
SHARES = (0.5, 0.9, 0.99, 1.0)
LEAST = 0.94
"""Of intervals that say 95%."""
STUDIES = 1500
"""Shares are drawn as counts, and each count's interval is computed once."""


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "MOST_DRAWS", 4000)


def holds(found: Bounds, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low - 1e-9 <= truth <= found.high + 1e-9


@cache
def share_of(hits: int, rows: int) -> Bounds:
    return share_statistic("accuracy", np.arange(rows) < hits).bounds(seed=1)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("share", SHARES)
def test_the_interval_of_a_share_covers_it(share: float, rows: int) -> None:
    counts = np.random.default_rng(rows).binomial(rows, share, STUDIES)

    covered = [holds(share_of(int(hits), rows), share) for hits in counts]

    assert np.mean(covered) >= LEAST


@pytest.mark.parametrize(
    ("hits", "low", "high"), [(20, 0.8316, 1.0), (0, 0.0, 0.1684), (19, 0.7513, 0.9987)]
)
def test_the_interval_of_a_share_is_clopper_and_pearsons(
    hits: int, low: float, high: float
) -> None:
    found = share_of(hits, 20)

    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_one_more_row_makes_the_same_of_a_share() -> None:
    """Gaffke's bound of zeros and ones is the exact one: the two ways to it agree."""
    for hits in (0, 3, 17, 20):
        weighted = bounds(mean_sums(np.arange(20) < hits, limits=(0.0, 1.0)), seed=1)
        exact = stats.binomtest(hits, 20).proportion_ci()
        assert weighted.low == pytest.approx(min(exact.low, weighted.low), abs=0.02)
        assert weighted.low <= exact.low + 0.01
        assert weighted.high >= exact.high - 0.01


def paired(teacher: float, kept: float, gained: float, rows: int, studies: int) -> Counter:
    """Studies by how many rows both have right, the teacher alone, the student alone."""
    chances = [teacher * kept, teacher * (1 - kept), (1 - teacher) * gained]
    chances.append(max(0.0, 1 - sum(chances)))
    drawn = np.random.default_rng(rows).multinomial(rows, chances, studies)
    return Counter(map(tuple, drawn[:, :3].tolist()))


def two(counts: tuple[int, int, int], rows: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    both, teacher_alone, student_alone = counts
    place = np.arange(rows)
    teacher = place < both + teacher_alone
    student = (place < both) | (
        (place >= both + teacher_alone) & (place < both + teacher_alone + student_alone)
    )
    return teacher, student


PAIRED = [
    (0.5, 0.5, 0.5),
    (0.5, 0.95, 0.05),
    (0.9, 0.9, 0.9),
    (0.9, 0.99, 0.1),
    (0.99, 0.9, 0.0),
    (0.99, 1.0, 1.0),
    (1.0, 0.5, 0.0),
    (1.0, 0.8, 0.0),
    (1.0, 0.9, 0.0),
    (1.0, 0.99, 0.0),
    (1.0, 1.0, 0.0),
]
"""The teacher's share, the student's on those rows, and on the others."""


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("teacher", "kept", "gained"), PAIRED)
def test_paired_intervals_cover_the_retained_share_and_the_loss(
    teacher: float, kept: float, gained: float, rows: int
) -> None:
    student = teacher * kept + (1 - teacher) * gained
    ratio_held, loss_held, studies = 0, 0, 0

    for counts, times in paired(teacher, kept, gained, rows, 300 if rows < 1000 else 200).items():
        theirs, own = two(counts, rows)
        if not theirs.any():
            continue
        pair = (share_statistic("accuracy", one).sums for one in (own, theirs))
        ratio_held += times * holds(bounds(side_by_side(*pair), seed=2), student / teacher)
        loss_held += times * holds(paired_loss(theirs, own, seed=2), teacher - student)
        studies += times

    assert ratio_held / studies >= LEAST
    assert loss_held / studies >= LEAST


def test_two_models_that_are_right_on_all_of_twenty_rows_may_still_differ() -> None:
    """What is right on 20 of 20 may be wrong on 16.8%, and so may either beside the other."""
    right = np.ones(20, dtype=bool)
    sums = share_statistic("accuracy", right).sums

    kept, lost = bounds(side_by_side(sums, sums), seed=1), paired_loss(right, right, seed=1)

    assert (kept.low, kept.high) == (
        pytest.approx(0.832, abs=0.006), pytest.approx(1.202, abs=0.008)
    )  # fmt: skip
    assert (lost.low, lost.high) == (
        pytest.approx(-0.168, abs=0.006), pytest.approx(0.168, abs=0.006)
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("share", SHARES)
def test_the_interval_of_macro_f1_covers_it(share: float, rows: int) -> None:
    classes, studies, rng = 3, 250, np.random.default_rng(rows)
    held = 0
    for _ in range(studies):
        labels = np.arange(rows) % classes
        wrong = (labels + rng.integers(1, classes, rows)) % classes
        answers = np.where(rng.random(rows) < share, labels, wrong)
        found = classification_statistics(labels, answers)[1].bounds(seed=3)
        held += holds(found, share)  # classes as frequent as each other, errors as well

    assert held / studies >= LEAST - 0.015  # one standard error of this many studies


def test_macro_f1_of_twenty_right_rows_is_not_known_to_be_perfect() -> None:
    labels = np.arange(20) % 3

    found = classification_statistics(labels, labels)[1].bounds(seed=1)

    assert found.high == 1
    assert found.low is not None
    assert 0.7 < found.low < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("wrong", [0.5, 0.1, 0.01, 0.0])
def test_the_interval_of_token_f1_covers_it(wrong: float, rows: int) -> None:
    rng, studies = np.random.default_rng(rows), 200
    held = 0
    for _ in range(studies):
        scores = np.where(rng.random(rows) < wrong, rng.integers(0, 4, rows) / 4, 1.0)
        held += holds(share_statistic("f1", scores).bounds(seed=4), 1 - wrong * (1 - 0.375))

    assert held / studies >= LEAST


def documents(rng: np.random.Generator, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """Nats a token, by window, of documents that are hard or easy as a whole; and which they are.

    The mean over all documents is 3 nats a token.
    """
    document = np.repeat(np.arange(count), 6)
    hard = rng.gamma(16, 3 / 16, count)[document]
    return hard * rng.gamma(50, 1 / 50, len(document)), np.full(len(document), 64.0), document


@pytest.mark.parametrize("count", [4, 10, 20, 100])
def test_the_interval_of_a_perplexity_covers_it_by_document(count: int) -> None:
    rng, studies = np.random.default_rng(count), 300
    held = 0
    for _ in range(studies):
        rate, tokens, document = documents(rng, count)
        sums = perplexity_sums(-rate * tokens, tokens)
        held += holds(bounds(sums, seed=5, groups=document), float(np.exp(3)))

    assert held / studies >= LEAST - 0.015


def test_windows_of_one_document_are_no_sample_of_documents() -> None:
    rate, tokens, _ = documents(np.random.default_rng(1), 20)
    sums = perplexity_sums(-rate * tokens, tokens)

    one = bounds(sums, seed=1, groups=np.zeros(len(tokens), dtype=np.int64))
    by_document = bounds(sums, seed=1, groups=np.repeat(np.arange(20), 6))
    by_window = bounds(sums, seed=1)

    assert (one.low, one.high, one.units) == (None, None, 1)
    assert by_document.high - by_document.low > 1.8 * (by_window.high - by_window.low)
    assert (by_document.units, by_window.units) == (20, 120)


def test_a_share_of_rows_that_belong_together_rests_on_their_groups() -> None:
    """All right: 50 questions of 5 contexts tell no more than 5 contexts do."""
    right = share_statistic("exact_match", np.ones(50, dtype=bool))
    groups = np.repeat(np.arange(5), 10)

    assert right.bounds(seed=1).low == pytest.approx(0.025 ** (1 / 50), abs=1e-6)
    assert right.bounds(seed=1, groups=groups).low == pytest.approx(0.025 ** (1 / 5), abs=0.02)


def test_a_language_model_that_agrees_on_every_window_still_has_an_interval() -> None:
    rng = np.random.default_rng(2)
    tokens = np.full(20, 64.0)
    sums = perplexity_sums(-rng.gamma(16, 3 / 16, 20) * tokens, tokens)

    found = bounds(side_by_side(sums, sums), seed=1)

    assert found.low < 0.95
    assert found.high > 1.05


def test_rows_that_are_all_alike_bound_nothing_where_there_is_no_limit() -> None:
    found = bounds(perplexity_sums(np.full(9, -6.0), np.full(9, 3.0)), seed=1)

    assert (found.low, found.high) == (None, None)
