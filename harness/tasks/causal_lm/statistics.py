"""How probable text is to a language model, beside its teacher and along its making.

Perplexity is per token of the model's own tokenizer; the other three metrics compare across
tokenizers (as lm-evaluation-harness defines them, whose words are what white space parts).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from harness.statistics.intervals import Bounds, RowSums, bounds, on_units, side_by_side
from harness.statistics.metrics import Statistic, bit_sums, perplexity_sums, sums_statistic
from harness.statistics.paired import Measure, PairedRows, mean_and_tail
from harness.tasks.causal_lm.outcomes import WindowOutcomes
from harness.tasks.losses import MOST_EXAMPLES, Step, shortened
from harness.tasks.rowwise import take
from harness.types.losses import ChainLink, Estimate, LossChain, WorstExample

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def language_statistics(
    log_likelihood: Floats, tokens: Integers, byte_counts: Integers, words: Integers
) -> tuple[Statistic, ...]:
    """Perplexity by token, word and byte, and bits per byte, of windows of text.

    Args:
        log_likelihood: natural logarithm, summed over a window's scored tokens, (rows,).
        tokens: scored tokens of each window, (rows,).
        byte_counts: UTF-8 bytes that these tokens stand for, (rows,).
        words: words between white space that end in those bytes, (rows,). Without any (text in
            a script that parts no words) there is no perplexity by word.
    """
    statistics = [
        sums_statistic("perplexity", perplexity_sums(log_likelihood, tokens)),
        sums_statistic("bits_per_byte", bit_sums(log_likelihood, byte_counts)),
        sums_statistic("byte_perplexity", perplexity_sums(log_likelihood, byte_counts)),
    ]
    if words.any():
        by_word = perplexity_sums(log_likelihood, words)
        statistics.insert(2, sums_statistic("word_perplexity", by_word))
    return tuple(statistics)


def log_likelihood_change_nats(outcomes: WindowOutcomes, teacher: WindowOutcomes) -> Floats | None:
    """A language model's log likelihood less its teacher's, (windows,); NaN where unanswered.

    None where the windows hold different text, so that nothing pairs.
    """
    if not np.array_equal(outcomes.bytes, teacher.bytes):
        return None
    return outcomes.log_likelihood - teacher.log_likelihood


def paired_measures(outcomes: WindowOutcomes, teacher: WindowOutcomes, seed: int) -> list[Measure]:
    """Changes of likelihood and agreement of the next token, of a model beside its teacher."""
    change = log_likelihood_change_nats(outcomes, teacher)
    if change is None:
        return []
    names = ("log_likelihood_change_nats", "log_likelihood_change_p5_nats")
    measures = list(mean_and_tail(change, names, 0.05, seed, groups=outcomes.groups))
    return [*measures, *_greedy(outcomes, teacher, seed)]


def _greedy(outcomes: WindowOutcomes, teacher: WindowOutcomes, seed: int) -> Iterator[Measure]:
    """The share of scored tokens for which both would have said the same."""
    own, theirs = outcomes.greedy, teacher.greedy
    if not np.array_equal(outcomes.tokens, teacher.tokens):
        return
    rows = np.flatnonzero(~outcomes.unanswered & ~teacher.unanswered)
    if not len(rows):
        return
    same = np.array([float((own[row] == theirs[row]).sum()) for row in rows])
    table = np.column_stack([same, [float(len(own[row])) for row in rows]])
    total = table.sum(axis=0)
    if total[1] == 0:
        return
    tokens = total[1] / len(rows)
    found = bounds(
        RowSums(
            table,
            lambda sums: sums[..., 0] / np.maximum(sums[..., 1], np.finfo(float).tiny),
            possible=np.array([[0.0, tokens], [tokens, tokens]]),
            limits=(0.0, 1.0),
        ),
        seed=seed,
        groups=rows if outcomes.groups is None else outcomes.groups[rows],
    )
    yield "greedy_agreement", float(total[0] / total[1]), found.low, found.high, len(rows)


def paired_bits(outcomes: WindowOutcomes, teacher: WindowOutcomes, seed: int) -> PairedRows | None:
    """Bits of each window, of a variant and its teacher; None where the windows differ.

    A window that one of the two left unanswered is left out.
    """
    change = log_likelihood_change_nats(outcomes, teacher)
    if change is None:
        return None

    def interval(before: Floats, after: Floats, weight: Floats, groups: Integers | None) -> Bounds:
        nats = -np.log(2)
        own, theirs = bit_sums(nats * after, weight), bit_sums(nats * before, weight)
        return bounds(side_by_side(own, theirs, difference=True), seed=seed, groups=groups)

    bits = -teacher.log_likelihood / np.log(2)
    return PairedRows(
        teacher=bits,
        variant=bits - change / np.log(2),
        weight=np.maximum(outcomes.bytes, 1).astype(np.float64),
        answered=np.isfinite(change),
        higher_is_better=False,
        interval=interval,
        groups=outcomes.groups,
    )


def worst_windows(
    outcomes: WindowOutcomes, teacher: WindowOutcomes, texts: Sequence[str]
) -> tuple[WorstExample, ...]:
    """The windows whose text became the least probable a token beside the teacher."""
    change = log_likelihood_change_nats(outcomes, teacher)
    if change is None:
        return ()
    drop = np.where(np.isfinite(change), -change / np.maximum(outcomes.tokens, 1), -np.inf)
    order = [row for row in np.argsort(-drop)[:MOST_EXAMPLES] if drop[row] > 0]
    return tuple(
        WorstExample(int(row), shortened(texts[row]), "", "", "", float(drop[row])) for row in order
    )


VISIBLE_NATS = 1e-3
"""A token's change of log likelihood; kernels that sum in another order stay far below."""


@dataclass(frozen=True)
class _Windows:
    """A language model's windows that count."""

    nats: NDArray[np.float64]
    bytes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    documents: NDArray[np.int64] | None

    @property
    def bits_per_byte(self) -> float:
        return float(-self.nats.sum() / (self.bytes.sum() * np.log(2)))

    @property
    def sums(self) -> RowSums:
        return bit_sums(self.nats, self.bytes)


def likelihood_chain(steps: Sequence[Step[WindowOutcomes]], seed: int) -> LossChain | None:
    """The loss in bits per byte from step to step, over the windows that every step answered.

    Where the teacher's tokenizer cuts other windows than the variant's, that one difference is
    paired by document; it is the same text in both. None where no window is left.
    """
    usable = _usable_windows([step.outcomes for step in steps])
    windows = [_windows(step.outcomes, usable[_size_and_bytes(step.outcomes)]) for step in steps]
    if any(not one.bytes.sum() for one in windows):
        return None

    loss = partial(_lost_bits, seed=seed)
    links = [ChainLink(steps[0].name, windows[0].bits_per_byte, Estimate(0.0), 0)]
    for step, before, after in zip(steps[1:], windows[:-1], windows[1:], strict=True):
        changed = _visibly_changed(before, after)
        links.append(ChainLink(step.name, after.bits_per_byte, loss(before, after), changed))
    samples = len(windows[-1].nats)
    left_out = steps[-1].outcomes.size - samples
    total = loss(windows[0], windows[-1])
    return LossChain("bits_per_byte", samples, left_out, tuple(links), total)


def _lost_bits(before: _Windows, after: _Windows, *, seed: int) -> Estimate:
    first, second, groups = after.sums, before.sums, after.documents
    if not np.array_equal(before.bytes, after.bytes):
        first, second = on_units(first, after.documents, second, before.documents)
        groups = None
    found = bounds(side_by_side(first, second, difference=True), seed=seed, groups=groups)
    return Estimate(after.bits_per_byte - before.bits_per_byte, found.low, found.high)


def _size_and_bytes(outcomes: WindowOutcomes) -> bytes:
    """What tells one way of cutting the text from another."""
    return outcomes.bytes.tobytes()


def _usable_windows(outcomes: Sequence[WindowOutcomes]) -> dict[bytes, NDArray[np.bool_]]:
    """By way of cutting, the windows that every step answered."""
    usable: dict[bytes, NDArray[np.bool_]] = {}
    for one in outcomes:
        key = _size_and_bytes(one)
        usable[key] = usable.get(key, np.ones(one.size, dtype=np.bool_)) & ~one.unanswered
    return usable


def _windows(outcomes: WindowOutcomes, kept: NDArray[np.bool_]) -> _Windows:
    rows = take(outcomes, kept)
    return _Windows(
        rows.log_likelihood,
        rows.bytes,
        rows.tokens,
        rows.groups,
    )


def _visibly_changed(before: _Windows, after: _Windows) -> int:
    if not np.array_equal(before.bytes, after.bytes):
        return len(after.nats)
    return int((np.abs(after.nats - before.nats) > VISIBLE_NATS * after.tokens).sum())
