"""The training loop: it learns, repeats itself, and leaves torch as it was."""

import dataclasses

import pytest
import torch

from harness.reference.recipes import RECIPES
from harness.reference.training import RECORDED_LOSSES, THREADS, deterministic, fit

RECIPE = dataclasses.replace(
    RECIPES["topics-student"], steps=60, batch=16, learning_rate=0.05, teacher=None
)


def train(seed: int) -> tuple[torch.nn.Linear, list[float], list[torch.Tensor]]:
    """Fits y = 3x - 1 over 50 points."""
    seen: list[torch.Tensor] = []
    with deterministic(seed):
        points = torch.linspace(-1, 1, 50)[:, None]
        model = torch.nn.Linear(1, 1)

        def loss_of(batch: torch.Tensor) -> torch.Tensor:
            seen.append(batch)
            return ((model(points[batch]) - 3 * points[batch] + 1) ** 2).mean()

        losses = fit(model, RECIPE, 50, loss_of, lambda: None)
    return model, losses, seen


def test_it_learns():
    model, losses, _ = train(seed=1)
    assert losses[-1] < losses[0] / 4
    assert len(losses) == RECORDED_LOSSES
    assert not model.training


def test_the_seed_decides_the_weights_to_the_last_bit():
    first, again, other = train(seed=1)[0], train(seed=1)[0], train(seed=2)[0]
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_each_pass_sees_every_row_once():
    batches = train(seed=1)[2]
    assert [len(batch) for batch in batches] == [RECIPE.batch] * RECIPE.steps
    rows = torch.cat(batches)
    assert sorted(rows[:50].tolist()) == list(range(50))
    assert sorted(rows[50:100].tolist()) == list(range(50))
    assert rows[:50].tolist() != rows[50:100].tolist()


def test_every_step_is_told():
    steps = []
    model = torch.nn.Linear(1, 1)
    fit(model, RECIPE, 4, lambda batch: model(torch.ones(1)).sum() ** 2, lambda: steps.append(1))
    assert len(steps) == RECIPE.steps


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt])
def test_the_callers_settings_come_back(failure):
    torch.manual_seed(5)
    expected = torch.rand(3)
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    try:
        with deterministic(seed=1):
            assert torch.get_num_threads() == THREADS
            assert torch.are_deterministic_algorithms_enabled()
            torch.rand(10)
            if failure:
                raise failure
    except KeyboardInterrupt:
        pass
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(3), expected)
