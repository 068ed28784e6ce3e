"""A router's threshold: its p-value against others' computations, and its guarantee."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest
import scipy

from harness.errors import DataError, UsageError
from harness.planning.routing.curve import EVERYTHING, curve_of, point_at
from harness.planning.routing.guarantee import THRESHOLDS, calibrate, keeps_less_p_value
from harness.planning.routing.rows import RoutedRows, confidence_of, split_rows
from harness.types.routing import ServedModel

KNOWN = ServedModel(10.0, 1.0), ServedModel(40.0, 8.0)


def rows_of(size: int, seed: int, *, harm: float = 0.03) -> RoutedRows:
    """A student that is the more often right the surer it is; the teacher is right on 85%."""
    draws = np.random.default_rng(seed)
    confidence = scipy.special.expit(draws.normal(2.0, 1.5, size))
    teacher = draws.random(size) < 0.85
    with_teacher = draws.random(size) < 0.6 + 0.4 * confidence
    student = np.where(teacher, with_teacher, draws.random(size) < harm)
    return RoutedRows(confidence, student, teacher)


def kept(rows: RoutedRows, threshold: float) -> float:
    return float(rows.right(threshold).mean() / rows.teacher_right.mean())


def p_value_by_hand(rows: RoutedRows, threshold: float, keep: float, error: float) -> float:
    """Bet by bet, in plain Python."""
    wealth = greatest = 1.0
    total = squares = 0.0
    variance = 0.25
    for place in range(rows.size):
        routed = rows.confidence[place] < threshold
        right = rows.teacher_right[place] if routed else rows.student_right[place]
        loss = keep * float(rows.teacher_right[place]) - float(right)
        bet = min(sqrt(2 * log(1 / error) / (rows.size * variance)), 0.75 / keep)
        wealth *= 1 - bet * loss
        greatest = max(greatest, wealth)
        total += loss
        squares += (loss - total / (place + 2)) ** 2
        variance = (10 * 0.25 + squares) / (place + 11)
    return 1 / greatest


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, 0.99, 2.0])
def test_the_p_value_is_that_of_a_game_of_bets(threshold: float) -> None:
    rows = rows_of(300, 1)
    found = keeps_less_p_value(rows, threshold, keep=0.95, error=0.05)
    assert found == pytest.approx(p_value_by_hand(rows, threshold, 0.95, 0.05), rel=1e-9)


def test_the_p_value_of_rows_that_are_all_alike_is_known() -> None:
    """Both always right, all bets at their largest: 1 + 0.75 / 0.9 x 0.1 a row."""
    one = np.ones(4000, dtype=bool)
    rows = RoutedRows(np.ones(4000), one, one)
    found = keeps_less_p_value(rows, 0.5, keep=0.9, error=1e-300)
    # The bets are sqrt(2 x 690.8 / (4000 s^2)), beyond the largest from the first row on.
    assert log(found) == pytest.approx(-4000 * log(1 + 0.75 / 0.9 * 0.1), rel=1e-9)


def test_the_p_value_is_one_where_every_row_is_lost() -> None:
    rows = RoutedRows(np.ones(50), np.zeros(50, dtype=bool), np.ones(50, dtype=bool))
    assert keeps_less_p_value(rows, 0.5, keep=0.95, error=0.05) == 1.0


def test_a_true_hypothesis_is_rejected_no_more_often_than_stated() -> None:
    """The router keeps exactly 95%, the edge: 8.25% of the rows lost and 4% won."""
    draws = np.random.default_rng(3)
    rejected = 0
    for _ in range(1000):
        # Both right, teacher only, student only, neither: (0.7675 + 0.04) / 0.85 = 0.95
        kind = draws.choice(4, 400, p=[0.7675, 0.0825, 0.04, 0.11])
        rows = RoutedRows(np.ones(400), np.isin(kind, (0, 2)), np.isin(kind, (0, 1)))
        rejected += keeps_less_p_value(rows, 0.5, keep=0.95, error=0.05) <= 0.05
    assert rejected / 1000 <= 0.05 + 0.021
    assert rejected


def test_bets_show_what_hoeffding_and_bentkus_cannot() -> None:
    """1,000 rows, keeping 98% with 6% of the rows lost or won: their p-value is not below 0.05."""
    counts = {0: 800, 1: 40, 2: 25, 3: 135}
    kind = np.random.default_rng(4).permutation(np.repeat(list(counts), list(counts.values())))
    rows = RoutedRows(np.ones(1000), np.isin(kind, (0, 2)), np.isin(kind, (0, 1)))
    loss = (0.95 * rows.teacher_right - rows.student_right + 1) / 1.95
    mean, edge = loss.mean(), 1 / 1.95
    divergence = scipy.special.rel_entr(mean, edge) + scipy.special.rel_entr(1 - mean, 1 - edge)
    hoeffding = exp(-1000 * divergence)
    bentkus = np.e * scipy.stats.binom.cdf(np.ceil(1000 * mean), 1000, edge)
    assert min(hoeffding, bentkus) > 0.2
    assert keeps_less_p_value(rows, 0.5, keep=0.95, error=0.05) < 0.05


def guarantee_fails(splits: int, size: int, keep: float) -> tuple[float, float]:
    """Share of calibration splits whose threshold keeps less, and that found one, of 400,000 rows.

    Splits are drawn with replacement, so what a threshold keeps of the population is the truth.
    """
    population = rows_of(400_000, 7)
    truth = {threshold: kept(population, threshold) for threshold in THRESHOLDS}
    draws = np.random.default_rng(8)
    failed = found = 0
    for _ in range(splits):
        rows = population.of(draws.integers(0, population.size, size))
        try:
            chosen = calibrate(rows, keep=keep, confidence_level=0.9)
        except UsageError:
            continue
        found += 1
        failed += truth[chosen.threshold] < keep
    return failed / splits, found / splits


def test_the_guarantee_holds_over_resampled_splits() -> None:
    """Stated: 10% of splits. Three standard errors of 60 splits are 11.6%."""
    failed, found = guarantee_fails(60, 600, 0.95)
    assert failed <= 0.1 + 0.116
    assert found > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("size", "keep"), [(300, 0.9), (600, 0.95), (2000, 0.98)])
def test_the_guarantee_holds_over_five_hundred_resampled_splits(size: int, keep: float) -> None:
    """Stated: 10% of splits. Three standard errors of 500 splits are 4%."""
    failed, found = guarantee_fails(500, size, keep)
    assert failed <= 0.1 + 0.04
    assert found > 0.5


def test_choosing_by_the_point_value_would_fail_half_the_time() -> None:
    """The boldest threshold whose calibration rows keep 95%: no guarantee at all."""
    population = rows_of(400_000, 7)
    truth = {threshold: kept(population, threshold) for threshold in THRESHOLDS}
    draws = np.random.default_rng(8)
    failed = 0
    for _ in range(60):
        rows = population.of(draws.integers(0, population.size, 600))
        boldest = min(one for one in THRESHOLDS if kept(rows, one) >= 0.95)
        failed += truth[boldest] < 0.95
    assert failed / 60 > 0.35


def test_deferring_is_for_the_benefit_and_not_for_the_students_errors() -> None:
    """Where the student is unsure and wrong, so is the teacher: nothing has to be routed."""
    draws = np.random.default_rng(2)
    confidence = draws.random(2000)
    right = draws.random(2000) < confidence
    chosen = calibrate(RoutedRows(confidence, right, right), keep=0.95, confidence_level=0.95)
    assert right.mean() < 0.55
    assert chosen.threshold == THRESHOLDS[-1]


def test_the_share_that_must_be_routed_is_found_where_it_is_known() -> None:
    """Below 0.7 the student is always wrong, from there on always right; the teacher always is."""
    confidence = np.random.default_rng(2).random(4000)
    rows = RoutedRows(confidence, confidence >= 0.7, np.ones(4000, dtype=bool))
    chosen = calibrate(rows, keep=0.9, confidence_level=0.95)
    # Every tenth row may be lost: a threshold of 0.6 is the boldest that is true.
    assert 0.6 <= chosen.threshold < 0.65


def test_no_draw_of_the_rows_is_lucky_more_often_than_stated() -> None:
    """Below 0.65 a tenth and more is lost: 95% of draws must find no bolder threshold.

    A few may: that is the error that the guarantee states.
    """
    too_bold = 0
    for seed in range(1, 101):
        confidence = np.random.default_rng(seed).uniform(0.5, 1.0, 600)
        rows = RoutedRows(confidence, confidence >= 0.7, np.ones(600, dtype=bool))
        chosen = calibrate(rows, keep=0.9, confidence_level=0.95)
        assert chosen.threshold < 0.7
        too_bold += chosen.threshold < 0.65
    assert too_bold / 100 <= 0.05 + 0.065  # three standard errors of 100 draws


@pytest.mark.parametrize(
    ("rows", "keep", "reason"),
    [
        (rows_of(60, 1), 0.95, "60 calibration rows cannot show 95% of the teacher's accuracy"),
        (
            RoutedRows(np.ones(500), np.zeros(500, dtype=bool), np.ones(500, dtype=bool)),
            0.95,
            r"at the first that leaves the student anything \(0.0% of the rows to the teacher\)",
        ),
        (
            RoutedRows(np.full(500, 0.5), np.zeros(500, dtype=bool), np.ones(500, dtype=bool)),
            0.95,
            "the router keeps 0.0%",
        ),
        (
            RoutedRows(np.ones(50), np.zeros(50, dtype=bool), np.zeros(50, dtype=bool)),
            0.95,
            "right on none of the 50",
        ),
        (rows_of(500, 1), 1.0, "must be above 0% and below 100%"),
    ],
)
def test_a_threshold_that_nothing_supports_is_refused(
    rows: RoutedRows, keep: float, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        calibrate(rows, keep=keep, confidence_level=0.95)
    assert refused.value.exit_code == 2


def test_a_point_of_the_curve_is_counted_by_hand() -> None:
    rows = RoutedRows(
        np.array([0.1, 0.2, 0.3, 0.9, 0.95]),
        np.array([False, True, False, True, False]),
        np.array([True, False, True, True, True]),
    )
    point = point_at(rows, 0.5, KNOWN, seed=1)
    assert point.routed.value == 0.6
    assert point.accuracy.value == 0.6
    assert point.kept is not None
    assert point.kept.value == pytest.approx(0.75)
    assert (point.gained, point.lost) == (0.4, 0.2)
    assert point.latency_ms == pytest.approx(10 + 0.6 * 40)
    assert point.usd_per_million == pytest.approx(1 + 0.6 * 8)
    assert point.routed.low == pytest.approx(
        scipy.stats.binomtest(3, 5).proportion_ci(0.95, method="exact").low
    )
    assert point_at(rows, 0.5, (ServedModel(), KNOWN[1]), seed=1).latency_ms is None


def test_the_curve_goes_from_the_student_alone_to_the_teacher_alone() -> None:
    rows = rows_of(500, 6)
    curve = curve_of(rows, KNOWN, seed=1)
    assert curve[0].accuracy.value == rows.student_right.mean()
    assert curve[-1].threshold == EVERYTHING
    assert curve[-1].kept is not None
    assert curve[-1].kept.value == 1.0
    shares = [one.routed.value for one in curve]
    assert shares == sorted(shares)
    assert 10 < len(curve) <= 22
    assert np.diff(shares[:-1]).min() >= 0.05 - 1e-9


def test_the_halves_share_no_row_and_leave_none_out() -> None:
    rows = rows_of(101, 1)
    numbered = RoutedRows(np.arange(101) / 200, rows.student_right, rows.teacher_right)
    halves = split_rows(numbered, seed=3)
    assert [half.size for half in halves] == [50, 51]
    both = np.concatenate([half.confidence for half in halves])
    assert np.array_equal(np.sort(both), numbered.confidence)
    assert np.array_equal(split_rows(numbered, seed=3)[0].confidence, halves[0].confidence)
    with pytest.raises(UsageError, match="39 rows are too few"):
        split_rows(rows_of(39, 1), seed=3)


def test_confidence_is_the_greatest_softmax_and_nothing_without_an_answer() -> None:
    logits = np.array([[0.0, log(3)], [100.0, -100.0], [np.nan, np.nan]], dtype=np.float32)
    assert confidence_of(logits) == pytest.approx([0.75, 1.0, 0.0], abs=1e-6)


def test_columns_of_other_rows_are_refused() -> None:
    one = np.ones(3, dtype=bool)
    with pytest.raises(DataError, match="not of the same rows"):
        RoutedRows(np.ones(2), one, one)
    with pytest.raises(DataError, match="from 0 to 1"):
        RoutedRows(np.full(3, np.nan), one, one)
