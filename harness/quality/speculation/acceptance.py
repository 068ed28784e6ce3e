"""How many of a draft's tokens its teacher accepts, by their position in the draft.

A teacher's greedy text is known before anything is drafted, because speculation does not change
it. So it is enough to ask the draft once for its own likeliest token in each place of that text:
a draft that begins at any place is accepted as far as the two are the same from there on. Every
round of every draft length follows exactly from that, without another run of either model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.statistics.intervals import Bounds, RowSums, bounds
from harness.statistics.metrics import columns, ratio
from harness.statistics.paired import Measure

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Matches = NDArray[np.bool_]
"""Whether the draft's likeliest token is the teacher's in each place of one text, (tokens,)."""


@dataclass(frozen=True)
class Replay:
    """Drafts of one length on the teacher's texts, as greedy speculation would go."""

    draft_tokens: int
    """Tokens that are proposed in a round, at most."""
    tokens: Integers
    """Length of each text, (texts,)."""
    rounds: Integers
    """Runs of the teacher for each text, (texts,)."""
    proposed: Integers
    """(texts, draft_tokens) how often a token was proposed at each position of a draft whose
    earlier ones were all accepted. Those behind a rejected one are not counted."""
    accepted: Integers
    """(texts, draft_tokens) how many of the proposed tokens were accepted."""
    drafted: Integers
    """Tokens that the draft made for each text, whatever came of them, (texts,)."""

    @property
    def tokens_per_run(self) -> float:
        """Mean number of tokens that a run of the teacher adds: 1 is the teacher alone."""
        return float(self.tokens.sum() / self.rounds.sum())


def replay(matches: Sequence[Matches], draft_tokens: int) -> Replay:
    """Go through the rounds of greedy speculation on texts that the teacher wrote.

    Args:
        matches: of each text, none of them empty.
        draft_tokens: proposed in a round, at most; at least 1.
    """
    count = len(matches)
    proposed = np.zeros((count, draft_tokens), dtype=np.int64)
    accepted = np.zeros_like(proposed)
    rounds, drafted = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for text, same in enumerate(matches):
        place = 0
        while place < len(same):
            # The round's last token is the teacher's own: what is proposed leaves room for it.
            ahead = same[place : place + min(draft_tokens, len(same) - place - 1)]
            kept = int(np.logical_and.accumulate(ahead).sum())
            proposed[text, : min(kept + 1, len(ahead))] += 1
            accepted[text, :kept] += 1
            drafted[text] += len(ahead)
            rounds[text] += 1
            place += kept + 1
    lengths = np.array([len(same) for same in matches], dtype=np.int64)
    return Replay(draft_tokens, lengths, rounds, proposed, accepted, drafted)


def acceptance_bounds(
    matches: Sequence[Matches], *, seed: int, groups: Integers | None = None
) -> tuple[float, Bounds]:
    """The share of places in which the draft says what the teacher wrote, and its 95% interval.

    It is the paper's alpha at temperature 0: a text is a unit, because its places are not
    independent.

    Args:
        matches: of each text, none of them empty.
        seed: of the interval's weights.
        groups: texts that belong together, (texts,).
    """
    same = np.array([one.sum() for one in matches], dtype=np.float64)
    lengths = np.array([len(one) for one in matches], dtype=np.float64)
    return _share_of(same, lengths, seed=seed, groups=groups)


def run_bounds(
    matches: Sequence[Matches],
    draft_tokens: int,
    *,
    seed: int,
    groups: Integers | None = None,
) -> tuple[float, Bounds]:
    """How many tokens a run of the teacher adds on average, and the 95% interval of that.

    Args:
        matches: of each text, none of them empty.
        draft_tokens: proposed in a round, at most; at least 1.
        seed: of the interval's weights.
        groups: texts that belong together, (texts,).
    """
    told = replay(matches, draft_tokens)
    a_run = RowSums(
        columns(told.tokens, told.rounds),
        lambda sums: ratio(sums[..., 0], sums[..., 1]),
        limits=(1.0, draft_tokens + 1.0),
    )
    unit = np.arange(len(matches)) if groups is None else groups
    return told.tokens_per_run, bounds(a_run, seed=seed, groups=unit)


def _share_of(
    part: Floats, whole: Floats, *, seed: int, groups: Integers | None
) -> tuple[float, Bounds]:
    mean = float(whole.mean())
    share = RowSums(
        columns(part, whole),
        lambda sums: ratio(sums[..., 0], sums[..., 1]),
        possible=np.array([[0.0, mean], [mean, mean]]),
        limits=(0.0, 1.0),
    )
    unit = np.arange(len(part)) if groups is None else groups
    return float(part.sum() / whole.sum()), bounds(share, seed=seed, groups=unit)


DRAFT_TOKENS = 4
"""Drafts that a student is judged by where nobody says how long they are."""


def draft_measures(
    matches: Sequence[Matches], *, seed: int, groups: Integers | None = None
) -> list[Measure]:
    """A student as its teacher's draft: acceptance, tokens of a run, acceptance by position.

    `draft_acceptance` is of all places; `draft_tokens_per_run` how many tokens a run of the
    teacher adds with drafts of `DRAFT_TOKENS`, which is the speed-up if drafts cost nothing;
    `draft_accepted_1` and so on the share accepted at each position of these drafts, given that
    the earlier ones were.

    Args:
        matches: of each text, none of them empty.
        seed: of the intervals' weights.
        groups: texts that belong together, (texts,).
    """
    told, count = replay(matches, DRAFT_TOKENS), len(matches)
    a_run, of_runs = run_bounds(matches, DRAFT_TOKENS, seed=seed, groups=groups)
    value, found = acceptance_bounds(matches, seed=seed, groups=groups)
    measures: list[Measure] = [("draft_acceptance", value, found.low, found.high, count)]
    measures.append(("draft_tokens_per_run", a_run, of_runs.low, of_runs.high, count))
    for place in range(DRAFT_TOKENS):
        proposed = told.proposed[:, place].astype(np.float64)
        if proposed.any():
            accepted = told.accepted[:, place].astype(np.float64)
            share, found = _share_of(accepted, proposed, seed=seed, groups=groups)
            measures.append((f"draft_accepted_{place + 1}", share, found.low, found.high, count))
    return measures
