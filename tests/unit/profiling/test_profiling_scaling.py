import itertools
import random

import pytest

from harness.profiling.scaling import (
    IN_PROCESS,
    LARGEST_BATCH,
    find_knee,
    growth_of,
    measure_growth,
)


def machine(saturates_at, noise=0.0, seed=0):
    """Rates of a machine whose throughput is b / (b + saturates_at), times noise."""
    generator = random.Random(seed)

    def rates(*batches):
        return tuple(
            1000 * b / (b + saturates_at) * (1 + noise * generator.uniform(-1, 1)) for b in batches
        )

    return rates


@pytest.mark.parametrize(("saturates_at", "knee"), [(0.05, 1), (1, 8), (4, 32)])
def test_the_knee_is_where_doubling_brings_less_than_asked(saturates_at, knee):
    # From b to 2 b throughput grows by s / (2 b + s).
    steps, found, ended = find_knee(machine(saturates_at), 0.1)
    assert found == knee
    assert [step.batch_size for step in steps] == [2**n for n in range(len(steps))]
    assert steps[-1].batch_size == 2 * knee
    assert steps[-1].growth < 0.1 <= min((s.growth for s in steps[1:-1]), default=1)
    assert "confidence" in ended


@pytest.mark.parametrize("seed", range(5))
def test_noise_asks_for_more_rounds_and_not_for_another_answer(seed):
    _, found, _ = find_knee(machine(1, noise=0.03, seed=seed), 0.1)
    assert found in {4, 8}  # at 4 doubling brings 11.1%


def test_clear_growth_takes_few_rounds_and_unclear_growth_all():
    clear = measure_growth(lambda: (100.0, 190.0), 0.1)
    assert len(clear.pairs) == IN_PROCESS.looks[0]
    swings = itertools.cycle([0.8, 1.2])
    unclear = measure_growth(lambda: (100.0, 110.0 * next(swings)), 0.1)
    assert len(unclear.pairs) == IN_PROCESS.looks[-1]
    assert unclear.low < 0.1 < unclear.high


def test_a_machine_that_never_saturates_ends_at_the_largest_batch():
    steps, knee, ended = find_knee(lambda a, b: (float(a), float(b)), 0.1)
    assert knee is None
    assert steps[-1].batch_size == LARGEST_BATCH
    assert "largest" in ended


def test_the_interval_of_growth_covers_the_truth_about_as_often_as_it_says():
    generator = random.Random(3)
    covered = 0
    for _ in range(300):
        pairs = [(100.0, 130.0 * (1 + generator.gauss(0, 0.05))) for _ in range(6)]
        growth = growth_of(pairs, 0.95)
        covered += growth.low <= 0.3 <= growth.high
    assert covered >= 270
