"""Whether a graph answers single rows as the bare library does, without padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import ParityError
from harness.export.library import LibraryAnswer, foresight, foresight_error, other_end
from harness.export.parity import LARGEST_TOKENS, Executor
from harness.tasks.family import AnyFamily
from harness.words.numbers import number

DIFFERENCE = 1e-3
"""Largest difference, times the row's largest value where that is above 1."""
SHARE_OF_SPREAD = 0.02
"""Root mean square of a row's difference over the spread of all rows' values."""
NOISE = 1e-5
"""Share of the largest value below which a difference is rounding, however small the spread."""


def check_rows(
    executor: Executor, family: AnyFamily, answers: Sequence[LibraryAnswer], name: str
) -> float:
    """Ask a graph the same rows: each in its own bucket, and all padded to the longest.

    Args:
        executor: the graph, in single precision.
        family: whose outputs it has.
        answers: the bare library's.
        name: of the checkpoint, for messages.

    Returns:
        The largest difference, relative to the row's largest value where that is above 1.

    Raises:
        ParityError: a row is answered otherwise, with what would differ.
        CheckpointError: a language model sees what it is to predict.
    """
    spread = _spread(answers)
    largest = 0.0
    longest = max(len(one.inputs["input_ids"]) for one in answers)
    buckets = {len(one.inputs["input_ids"]) for one in answers}
    batches = [
        ([one for one in answers if len(one.inputs["input_ids"]) == length], length)
        for length in sorted(buckets)
    ]
    for batch, length in [*batches, (list(answers), longest)]:
        for one, got in zip(batch, _ask(executor, family, batch, length), strict=True):
            scaled = _scaled_difference(one.values, got)
            if _differs(one.values, got, spread):
                raise _refusal(executor, family, one, got, length, spread, name)
            largest = max(largest, scaled)
    if family.causal:
        _check_foresight(executor, family, answers, longest, name)
    return largest


def _ask(
    executor: Executor, family: AnyFamily, answers: Sequence[LibraryAnswer], length: int
) -> list[NDArray[np.float32]]:
    """What a graph answers to rows padded to a length, shaped as the library's values."""
    found: list[NDArray[np.float32]] = []
    size = max(2, LARGEST_TOKENS // length)
    for start in range(0, len(answers), size):
        batch = answers[start : start + size]
        names = batch[0].inputs
        rows = {name: np.stack([_padded(one, name, length) for one in batch]) for name in names}
        outputs = executor.run(rows)
        found += [
            family.graph_values(outputs, place, one.tokens) for place, one in enumerate(batch)
        ]
    return found


def _padded(answer: LibraryAnswer, name: str, length: int) -> NDArray[np.int64]:
    """A row cut or padded further, with the padding that it has; with zeros where it has none."""
    values = answer.inputs[name][:length]
    end = values[-1] if answer.tokens < len(values) else 0
    return np.pad(values, (0, length - len(values)), constant_values=end)


def _scaled_difference(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    size = max(1.0, float(np.abs(expected).max(initial=0)))
    return float(np.abs(got - expected).max(initial=0)) / size


def _differs(expected: NDArray[np.float32], got: NDArray[np.float32], spread: float) -> bool:
    scaled = _scaled_difference(expected, got)
    if not scaled <= DIFFERENCE:  # also where it is not a number
        return True
    typical = float(np.sqrt(np.mean((got - expected) ** 2)))
    noise = NOISE * float(np.abs(expected).max(initial=0))
    return typical > max(SHARE_OF_SPREAD * spread, noise)


def _spread(answers: Sequence[LibraryAnswer]) -> float:
    """How much the library's answers differ: of a class from row to row, else from token to token.

    A row alone has no other to differ from: then its values among themselves.
    """
    values = [one.values for one in answers]
    if len(values) > 1 and len({one.shape for one in values}) == 1:
        return float(np.std(np.stack(values), axis=0).max())
    return float(np.std(np.concatenate([one.ravel() for one in values])))


def _refusal(
    executor: Executor,
    family: AnyFamily,
    answer: LibraryAnswer,
    got: NDArray[np.float32],
    length: int,
    spread: float,
    name: str,
) -> ParityError:
    (alone,) = _ask(executor, family, [answer], answer.tokens)
    told = f"{answer.name}, {answer.tokens} tokens padded to {length}: {_how(answer.values, got)}"
    if not _differs(answer.values, alone, spread):
        return ParityError(
            f"{name} answers otherwise where a row is padded, and all that is served is: {told}",
            next_step="its architecture does not leave padding out; it cannot be served in "
            "batches: take another architecture",
        )
    return ParityError(
        f"{name} would be served differently from how transformers runs it: {told}",
        next_step="report it with the checkpoint's config.json and tokenizer_config.json",
    )


def _how(expected: NDArray[np.float32], got: NDArray[np.float32]) -> str:
    difference = float(np.abs(got - expected).max())
    if expected.ndim == 1 and got.shape == expected.shape and len(expected):
        ours, theirs = int(got.argmax()), int(expected.argmax())
        if ours != theirs:
            return f"output {ours} is its highest, for the library output {theirs}"
    reach = number(np.abs(expected).max())
    return f"off by up to {number(difference)}, where the values reach {reach}"


def _check_foresight(
    executor: Executor,
    family: AnyFamily,
    answers: Sequence[LibraryAnswer],
    length: int,
    name: str,
) -> None:
    """Language models: another last token changes no log probability before it."""
    one = max(answers, key=lambda answer: answer.tokens)
    ids = one.inputs["input_ids"].copy()
    ids[: one.tokens] = other_end(ids[: one.tokens])
    changed = LibraryAnswer(one.name, {**one.inputs, "input_ids": ids}, one.values)
    before, after = (_ask(executor, family, [row], length)[0] for row in (one, changed))
    if moved := foresight(before, after):
        raise foresight_error(f"what was exported of {name}", one.tokens, moved)
