"""The benchmark of the capacity model: its yardsticks, and how it scores, on a made-up server."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from capacity_accuracy import HELD_OUT, Case, little_ms, mm1_ms, scores_of, summary_of

from harness.types import RESPONSE, ServingConfig
from tests.simulated_server import SimulatedServer, measure


def trial(seed, **load):
    server = SimulatedServer(ServingConfig(8), lambda rows, _: (3.0 + rows) / 1e3)
    return measure(server, seed=seed, requests=1500, **load)


@pytest.fixture(scope="module")
def closed():
    return tuple(trial(n, clients=n) for n in (1, 4, 8))


def test_an_exponential_sojourn_s_quantiles_and_none_at_saturation():
    assert mm1_ms(50.0, 100.0, 0.5) == pytest.approx(1e3 * math.log(2) / 50)
    assert mm1_ms(50.0, 100.0, 0.95) == pytest.approx(1e3 * math.log(20) / 50)
    assert mm1_ms(100.0, 100.0, 0.5) == math.inf


def test_little_s_law_is_clients_over_throughput_between_the_measured_points(closed):
    one = closed[0].throughput_requests_per_s
    assert little_ms(closed, one) == pytest.approx(1e3 / one)
    most = closed[-1]
    assert little_ms(closed, 10 * most.throughput_requests_per_s) == pytest.approx(
        1e3 * 8 / most.throughput_requests_per_s
    )


def test_a_held_out_loop_is_scored_at_its_share_with_its_interval(closed):
    held_out = trial(30, rate_per_s=360.0)
    held_out = replace(held_out, trial=replace(held_out.trial, stage=HELD_OUT))
    scores = list(scores_of(Case("student", ServingConfig(8), 1, closed, (held_out,))))
    # 8 rows in 11 ms are 727 per second: 360 are half of that.
    assert [(one.statistic, one.share) for one in scores] == [("p50", 0.5), ("p95", 0.5)]
    assert all(one.held and abs(one.error("model")) < 0.15 for one in scores)
    assert [row["interval_held"] for row in summary_of(scores)] == [1.0, 1.0]
    wrong = replace(scores[0], low_ms=0.01, high_ms=0.1)
    assert summary_of([wrong, scores[0]])[0]["interval_held"] == 0.5


def test_a_second_measurement_of_the_same_load_says_what_no_model_can_foretell(closed):
    held_out = trial(30, rate_per_s=360.0)
    first = replace(held_out, trial=replace(held_out.trial, stage=HELD_OUT))
    summary = first.latency
    slower = {
        name: replace(one, value_ms=1.25 * one.value_ms)
        for name, one in summary.percentiles.items()
    }
    second = replace(
        first,
        trial=replace(first.trial, repeat=1),
        latencies={RESPONSE: replace(summary, percentiles=slower)},
    )
    scores = list(scores_of(Case("student", ServingConfig(8), 1, closed, (first, second))))
    # The first is 1 / 1.25 of the second; each pair counts once.
    assert [one.repeat_error for one in scores] == [pytest.approx(-0.2)] * 2 + [None] * 2
    assert [row["repeat_error"] for row in summary_of(scores)] == [pytest.approx(0.2)] * 2
