"""What open loops show beyond the model: carried over where they agree, not where they scatter."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from harness.planning.capacity import discrepancy
from harness.planning.capacity.discrepancy import Discrepancy, discrepancies

SHARES = (0.4, 0.6, 0.8)


def test_one_size_and_scatter_are_scikit_learns_gaussian_process(monkeypatch):
    logs = (0.5, 0.2, -0.1)
    monkeypatch.setattr(discrepancy, "_DEVIATIONS", (0.4,))
    monkeypatch.setattr(discrepancy, "_SCATTERS", (0.2,))
    monkeypatch.setattr(discrepancy, "_COMMON", (0.0,))
    kernel = ConstantKernel(0.16, "fixed") * RBF(discrepancy._REACH, "fixed")
    reference = GaussianProcessRegressor(kernel, alpha=0.04, optimizer=None)
    reference.fit(np.array(SHARES)[:, None], np.array(logs))
    for share in (0.1, 0.5, 0.95):
        mean, deviation = reference.predict(np.array([[share]]), return_std=True)
        found = Discrepancy(SHARES, logs).at(share)
        assert found == pytest.approx((mean[0], np.hypot(deviation[0], 0.2)))


def test_the_likelier_of_two_counts_by_its_likelihood(monkeypatch):
    """Averaged over two scatters by scikit-learn's marginal likelihood of each."""
    logs = (0.5, 0.2, -0.1)
    monkeypatch.setattr(discrepancy, "_DEVIATIONS", (0.4,))
    monkeypatch.setattr(discrepancy, "_SCATTERS", (0.05, 0.4))
    monkeypatch.setattr(discrepancy, "_COMMON", (0.0,))
    means, likely = [], []
    for scatter in (0.05, 0.4):
        kernel = ConstantKernel(0.16, "fixed") * RBF(discrepancy._REACH, "fixed")
        one = GaussianProcessRegressor(kernel, alpha=scatter**2, optimizer=None)
        one.fit(np.array(SHARES)[:, None], np.array(logs))
        means.append(one.predict(np.array([[0.5]]))[0])
        likely.append(np.exp(one.log_marginal_likelihood_value_))
    expected = np.average(means, weights=likely)
    assert Discrepancy(SHARES, logs).at(0.5)[0] == pytest.approx(expected)


def test_what_all_trials_show_is_followed():
    mean, deviation = Discrepancy(SHARES, (0.5, 0.5, 0.5)).at(0.5)
    assert 0.4 < mean <= 0.5
    assert deviation < 0.25


def test_trials_that_contradict_each_other_widen_the_interval_and_move_nothing():
    mean, deviation = Discrepancy((0.4, 0.41, 0.6, 0.61), (0.6, -0.6, 0.6, -0.6)).at(0.5)
    assert abs(mean) < 0.05
    assert deviation > 0.5


def test_a_deviation_that_rises_with_the_load_is_told_from_one_that_does_not():
    at = Discrepancy((0.3, 0.4, 0.5, 0.6, 0.7, 0.8), (0.0, 0.16, 0.32, 0.48, 0.64, 0.8)).at
    assert at(0.35)[0] == pytest.approx(0.08, abs=0.08)
    assert at(0.75)[0] == pytest.approx(0.72, abs=0.08)


def test_one_open_loop_is_too_few():
    check = {"p95": (20.0, 10.0)}
    assert discrepancies([(0.5, check), (0.6, {})]) == {}
    found = discrepancies([(0.5, check), (0.6, {"p95": (10.0, 10.0)})])
    assert found["p95"].logs == pytest.approx((np.log(2), 0.0))
