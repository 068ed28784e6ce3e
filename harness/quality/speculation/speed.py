"""What speculation gains, by what a draft's tokens are worth and what they cost.

Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding" (2023),
theorem 3.8, with the tokens of a run counted on real texts, and the cost of checking several tokens
measured: the paper takes it for that of one, which holds on an accelerator that waits for memory,
and not on a CPU.
"""

from __future__ import annotations

from harness.types.roles import StepCosts


def predicted_speedup(tokens_per_run: float, draft_tokens: int, costs: StepCosts) -> float:
    """How many times as fast as the teacher alone a text is written; below 1 it is slower.

    Args:
        tokens_per_run: that a run of the teacher adds, on average.
        draft_tokens: proposed for it.
        costs: of the runs.

    Raises:
        ValueError: a cost is not above 0.
    """
    if min(costs.teacher_ms, costs.verification_ms, costs.draft_ms) <= 0:
        raise ValueError(f"{costs}: each is above 0")
    round_ms = draft_tokens * costs.draft_ms + costs.verification_ms
    return tokens_per_run * costs.teacher_ms / round_ms
