"""The training loop that every reference model goes through, and what makes it repeatable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.errors import MissingExtraError
from harness.reference.recipes import Recipe

if TYPE_CHECKING:
    import torch

THREADS = 1
"""Fixed, because sums in another order give other weights. One, because the families train side by
side in a process each: on a busy machine two threads mostly wait for each other."""

WARMUP_SHARE = 0.15
WEIGHT_DECAY = 0.02
BETAS = (0.9, 0.98)
GRADIENT_NORM = 1.0
RECORDED_LOSSES = 20


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Seeded, repeatable, single-threaded torch inside; the caller's settings come back after.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "export") from error
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # a module that stands in for its attributes
    fills = memory.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        torch.use_deterministic_algorithms(mode=True)
        # Ours reads no uninitialised memory, and filling it costs a fifth of a small step.
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(mode=strict)
            memory.fill_uninitialized_memory = fills
            torch.set_num_threads(threads)


def fit(
    model: torch.nn.Module,
    recipe: Recipe,
    rows: int,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    on_step: Callable[[], None],
) -> list[float]:
    """Trains `model` in place for `recipe.steps` steps.

    AdamW under one linear rise and fall of the learning rate (Smith and Topin, 'Super-convergence',
    2018, arXiv:1708.07120).

    Args:
        model: Whose parameters are trained.
        recipe: Steps, batch and the learning rate's peak.
        rows: Size of the training split; batches are drawn from shuffled passes over it.
        loss_of: The scalar loss of a batch, given its row numbers (batch,).
        on_step: Called after every step.

    Returns:
        The mean loss of each of `RECORDED_LOSSES` equal spans of steps.
    """
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=BETAS,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=recipe.steps,
        pct_start=WARMUP_SHARE,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    model.train()
    losses: list[float] = []
    for batch in _batches(rows, recipe.batch, recipe.steps):
        loss = loss_of(batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        on_step()
    model.eval()
    return _spans(losses)


def _batches(rows: int, batch: int, steps: int) -> Iterator[torch.Tensor]:
    """Row numbers of each step, from as many shuffled passes over the rows as it takes."""
    import torch

    passes = math.ceil(steps * batch / rows)
    order = torch.cat([torch.randperm(rows) for _ in range(passes)])
    for step in range(steps):
        yield order[step * batch : (step + 1) * batch]


def _spans(losses: list[float]) -> list[float]:
    span = max(1, math.ceil(len(losses) / RECORDED_LOSSES))
    chunks = [losses[start : start + span] for start in range(0, len(losses), span)]
    return [round(sum(chunk) / len(chunk), 4) for chunk in chunks]
