"""The e-processes of a rollout against independent computations, and the error they promise."""

from __future__ import annotations

from itertools import product
from math import comb, exp, log, prod

import numpy as np
import pytest
import scipy

from harness.planning.rollout.evidence import bound, log_e_mean, log_e_share, log_e_two_shares

JEFFREYS = scipy.stats.beta(0.5, 0.5)


def likelihood(bad: int, total: int, share: float) -> float:
    return share**bad * (1 - share) ** (total - bad)


@pytest.mark.parametrize(("bad", "total", "limit"), [(0, 40, 0.1), (3, 50, 0.05), (30, 40, 0.6)])
def test_a_share_is_the_mixture_of_likelihood_ratios(bad: int, total: int, limit: float) -> None:
    """By numerical integration over the alternatives below the limit."""

    def ratio(share: float) -> float:
        return likelihood(bad, total, share) / likelihood(bad, total, limit)

    mixed, _ = scipy.integrate.quad(lambda q: ratio(q) * JEFFREYS.pdf(q), 0, limit, limit=500)
    expected = log(mixed / JEFFREYS.cdf(limit))
    assert log_e_share(bad, total, limit, above=True) == pytest.approx(expected, rel=1e-6)


def test_a_share_known_by_hand() -> None:
    """No bad request: against p >= 1/2 the mixture of (2(1 - q))^n over q < 1/2, for n = 1."""
    # Integral of 2(1 - q) over the arcsine law below 1/2: 2 (1/2 - (1/4 - 1/(2 pi))) / (1/2)
    expected = 2 * (0.5 - (0.25 - 1 / (2 * np.pi))) / 0.5
    assert exp(log_e_share(0, 1, 0.5, above=True)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize(("limit", "total"), [(0.05, 30), (0.3, 12)])
def test_a_share_on_its_limit_has_a_mean_of_one(limit: float, total: int, above: bool) -> None:
    """All outcomes enumerated; farther inside the hypothesis the mean is below 1."""
    bad = np.arange(total + 1)
    evidence = np.exp(log_e_share(bad, total, limit, above=above))
    assert scipy.stats.binom.pmf(bad, total, limit) @ evidence == pytest.approx(1, rel=1e-9)
    inside = limit + 0.04 if above else limit - 0.04
    assert scipy.stats.binom.pmf(bad, total, inside) @ evidence < 0.99


@pytest.mark.parametrize(
    ("student", "teacher", "factor", "margin"),
    [((3, 200), (400, 9000), 1.0, 0.0), ((30, 100), (20, 150), 1.2, -0.02), ((0, 9), (0, 9), 1, 0)],
)
def test_two_shares_are_both_mixtures_over_the_best_of_the_line(
    student: tuple[int, int], teacher: tuple[int, int], factor: float, margin: float
) -> None:
    """Mixtures by numerical integration, the line by a fine grid."""
    mixed = 0.0
    for bad, total in (student, teacher):
        top = bad / total
        peak = scipy.special.xlogy(bad, top) + scipy.special.xlog1py(total - bad, -top)

        def scaled(angle: float, bad: int = bad, total: int = total, peak: float = peak) -> float:
            share = np.sin(angle) ** 2  # the arcsine law is uniform in the angle
            whole = scipy.special.xlogy(bad, share) + scipy.special.xlog1py(total - bad, -share)
            return exp(whole - peak) * 2 / np.pi

        middle = np.arcsin(np.sqrt(top))
        whole, _ = scipy.integrate.quad(scaled, 0, np.pi / 2, points=[middle], limit=500)
        mixed += log(whole) + peak
    theirs = np.linspace(max(0, -margin / factor), min(1, (1 - margin) / factor), 2_000_001)
    line = sum(
        scipy.special.xlogy(bad, share) + scipy.special.xlog1py(total - bad, -share)
        for (bad, total), share in ((student, factor * theirs + margin), (teacher, theirs))
    )
    for above in (True, False):
        beyond = student[0] / student[1] - factor * teacher[0] / teacher[1] - margin
        if (beyond > 0) is above and beyond:
            continue  # the hypothesis allows the likeliest shares: they count, not the line
        found = log_e_two_shares(*student, *teacher, factor=factor, margin=margin, above=above)
        assert found == pytest.approx(mixed - line.max(), abs=1e-5)


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize(("factor", "margin"), [(1.0, 0.0), (1.0, 0.1), (2.0, -0.1)])
def test_two_shares_on_the_line_have_no_mean_above_one(
    factor: float, margin: float, above: bool
) -> None:
    """All outcomes of 12 and 20 requests enumerated."""
    student, teacher = np.meshgrid(np.arange(13), np.arange(21), indexing="ij")
    evidence = np.exp(
        log_e_two_shares(student, 12, teacher, 20, factor=factor, margin=margin, above=above)
    )
    for share in (0.1, 0.25, 0.4):
        chances = scipy.stats.binom.pmf(student, 12, factor * share + margin)
        mean = (chances * scipy.stats.binom.pmf(teacher, 20, share) * evidence).sum()
        assert 0.01 < mean <= 1


def test_shares_that_no_teacher_allows_are_rejected() -> None:
    """Twice the teacher's share plus 1 is never a share: 'at least' it is impossible."""
    found = log_e_two_shares(1, 10, 1, 10, factor=2.0, margin=1.5, above=True)
    assert found == np.inf


def test_the_mean_of_pairs_is_the_wealth_of_bets() -> None:
    """Multiplied out bet by bet, in another order of the requests."""
    counts, values, limit = (5, 2, 3, 1), (0.0, 1.0, -1.0, 0.0), 0.2
    drawn = [value for value, number in zip(values, counts, strict=True) for _ in range(number)]
    bets = [share / (1 - limit) for share in np.geomspace(1e-3, 0.99, 64)]
    wealth = [prod(1 + bet * (limit - one) for one in reversed(drawn)) for bet in bets]
    found = log_e_mean(counts, values, limit, above=True)
    assert exp(found) == pytest.approx(np.mean(wealth), rel=1e-12)


@pytest.mark.parametrize("above", [True, False])
def test_pairs_on_their_limit_have_a_mean_of_one(above: bool) -> None:
    """All outcomes of 8 requests that both models answered, enumerated."""
    values, chances = (0.0, 1.0, -0.9, 0.1), (0.5, 0.2, 0.1, 0.2)
    limit = float(np.dot(values, chances))
    mean = 0.0
    for student, teacher, both in product(range(9), repeat=3):
        neither = 8 - student - teacher - both
        if neither < 0:
            continue
        counts = (neither, student, teacher, both)
        ways = comb(8, student) * comb(8 - student, teacher) * comb(8 - student - teacher, both)
        chance = ways * prod(p**n for p, n in zip(chances, counts, strict=True))
        mean += chance * exp(log_e_mean(counts, values, limit, above=above))
    assert mean == pytest.approx(1, rel=1e-9)


def test_a_bound_lies_where_the_evidence_begins_to_suffice() -> None:
    """Both sides of 30 bad requests of 1,000, on a finer grid than the bound's own."""
    for upper in (True, False):
        found = bound(
            lambda at, upper=upper: log_e_share(30, 1000, at, above=upper),
            (0.0, 1.0),
            error=0.05,
            upper=upper,
        )
        assert log_e_share(30, 1000, found, above=upper) == pytest.approx(log(20), abs=1e-3)
        assert (found > 0.03) is upper
    # Wider than the exact interval for one look, as it must be, but of its kind.
    exact = scipy.stats.binomtest(30, 1000).proportion_ci(0.90, method="exact")
    assert exact.high < 0.0496 == pytest.approx(found_upper(), abs=1e-3)


def found_upper() -> float:
    return bound(
        lambda at: log_e_share(30, 1000, at, above=True), (0.0, 1.0), error=0.05, upper=True
    )


def ever(evidence: np.ndarray, error: float = 0.05) -> float:
    """Share of rollouts, (rollouts, looks), in which any look rejects."""
    return float((evidence >= -np.log(error)).any(axis=1).mean())


def errors_under_continuous_looking(rollouts: int, looks: int, batch: int) -> dict[str, float]:
    """How often a true hypothesis is rejected at any look, for each kind of evidence."""
    draws = np.random.default_rng(5)
    sizes = np.arange(1, looks + 1) * batch

    def sums(share: float, requests: int = batch) -> np.ndarray:
        return draws.binomial(requests, share, (rollouts, looks)).cumsum(axis=1)

    pairs = draws.multinomial(batch, (0.75, 0.1, 0.08, 0.07), (rollouts, looks)).cumsum(axis=1)
    values = (0.0, 1.0, -1.0, 0.0)
    student, teacher = sums(0.1), sums(0.08, 3 * batch)
    found = {}
    for above in (True, False):
        found[f"share {above}"] = ever(log_e_share(sums(0.05), sizes, 0.05, above=above))
        found[f"pairs {above}"] = ever(log_e_mean(pairs, values, 0.02, above=above))
        two = log_e_two_shares(student, sizes, teacher, 3 * sizes, margin=0.02, above=above)
        found[f"two {above}"] = ever(two)
    return found


def test_the_error_is_held_though_looked_at_all_the_time() -> None:
    """On the limit itself, where it is greatest; three standard errors of 5% of 400 are 3.3%."""
    found = errors_under_continuous_looking(400, 60, 20)
    assert max(found.values()) <= 0.05 + 0.033, found
    assert max(found.values()) > 0, "a test that never rejects holds every error"


def test_a_test_for_one_look_would_not_hold_it() -> None:
    """The same rollouts by the exact binomial test at every look: several times its 5%."""
    draws = np.random.default_rng(5)
    bad = draws.binomial(20, 0.05, (400, 60)).cumsum(axis=1)
    p_values = scipy.stats.binom.cdf(bad, 20 * np.arange(1, 61), 0.05)
    assert (p_values < 0.05).any(axis=1).mean() > 0.12


@pytest.mark.slow
def test_the_error_is_held_in_two_thousand_rollouts() -> None:
    """Three standard errors of 5% of 2,000 are 1.5%."""
    found = errors_under_continuous_looking(2000, 300, 20)
    assert max(found.values()) <= 0.05 + 0.015, found
    assert found["share True"] > 0.01, "a test that never rejects holds every error"
