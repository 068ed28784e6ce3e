"""What speculation gains, by the acceptance rate and the cost of a draft.

Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding" (2023):
theorem 3.8 has the speed-up, equation 1 the tokens of a round.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_DRAFT_TOKENS = 16
"""Longest drafts that are looked at."""


@dataclass(frozen=True)
class Speedup:
    """What a draft of some length is predicted to gain."""

    draft_tokens: int
    tokens_per_run: float
    """Tokens that a run of the teacher adds, on average."""
    factor: float
    """How many times as fast as the teacher alone; below 1 it is slower."""


def tokens_per_run(acceptance: float, draft_tokens: int) -> float:
    """Tokens that a run of the teacher adds, when each draft token is accepted alike.

    (1 - a^(d + 1)) / (1 - a), the paper's equation 1.

    Args:
        acceptance: chance that a token is accepted, 0 to 1.
        draft_tokens: proposed in a round.

    Raises:
        ValueError: a chance outside 0 to 1, or fewer than no tokens.
    """
    if not 0 <= acceptance <= 1 or draft_tokens < 0:
        raise ValueError(f"an acceptance of {acceptance} and drafts of {draft_tokens} tokens")
    return sum(acceptance**place for place in range(draft_tokens + 1))


def speedup(
    tokens: float, draft_tokens: int, *, draft_cost: float, verification_cost: float = 1.0
) -> float:
    """How many times as fast as the teacher alone a round is, token for token.

    Args:
        tokens: that a run of the teacher adds, on average.
        draft_tokens: proposed in a round.
        draft_cost: time of the draft's run for one token over the teacher's run for one.
        verification_cost: time of the teacher's run over all proposed tokens and one more, over
            its run for one token. The paper takes 1: an accelerator that waits for memory checks
            several tokens as fast as one. A CPU does not, so there it is measured.

    Raises:
        ValueError: a cost is not above 0.
    """
    if draft_cost <= 0 or verification_cost <= 0:
        raise ValueError(f"costs of {draft_cost} and {verification_cost}: both are above 0")
    return tokens / (draft_tokens * draft_cost + verification_cost)


def predicted(acceptance: float, *, draft_cost: float, draft_tokens: int) -> Speedup:
    """The paper's speed-up for drafts of some length (theorem 3.8)."""
    tokens = tokens_per_run(acceptance, draft_tokens)
    return Speedup(draft_tokens, tokens, speedup(tokens, draft_tokens, draft_cost=draft_cost))


def best_draft(acceptance: float, *, draft_cost: float) -> Speedup:
    """The length that gains most, of 0 (no speculation at all) to `MOST_DRAFT_TOKENS`."""
    lengths = range(MOST_DRAFT_TOKENS + 1)
    found = (predicted(acceptance, draft_cost=draft_cost, draft_tokens=one) for one in lengths)
    return max(found, key=lambda one: one.factor)
