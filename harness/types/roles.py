"""What a student that writes is worth beside its teacher: as its draft, and in front of it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.types.estimates import Interval
from harness.types.routing import RoutePoint


@dataclass(frozen=True)
class StepCosts:
    """Medians of runs of the two decoders, taken in turn in one process."""

    teacher_ms: float
    """The teacher's run for one token."""
    verification_ms: float
    """The teacher's run over all proposed tokens and one more."""
    draft_ms: float
    """The draft's run for one token."""


@dataclass(frozen=True)
class Cascade:
    """The student first; where its own text is too improbable to it, the teacher. An estimate.

    It is put together from the stored answers of both, prompt by prompt; nothing was served so.
    """

    at: RoutePoint
    """The cascade on prompts that the threshold was not chosen on. `accuracy` is the share of
    prompts whose answer is the teacher's own text; latency and cost are left out."""
    keep: float
    """Share of the teacher's own texts that the threshold was to keep."""
    guaranteed: bool
    """Whether the prompts that the threshold was chosen on were enough to be sure of `keep`."""
    calibration_prompts: int
    held_out_prompts: int
    rouge_kept: float | None = None
    """Mean ROUGE-L of the cascade over the teacher's, on the prompts held out; None without
    references."""


@dataclass(frozen=True)
class StudentRoles:
    """A student as its teacher's draft and as the first stage of a cascade."""

    family: str
    teacher: str
    student: str
    speculative: str
    """The model that is served: the teacher with the student as its draft."""
    sha256: str
    """Digest of the speculative model's files."""
    draft_tokens: int
    """Tokens that the draft proposes in a step, at most."""
    texts: int
    """Texts that the speculative model wrote, greedily."""
    same_texts: int
    """Texts of the speculative model that are the teacher's own, token for token."""
    acceptance: Interval
    """Share of all places behind the first token in which the draft's likeliest token is what the
    teacher wrote."""
    tokens_per_run: Interval
    """Tokens that a run of the teacher adds, with drafts of `draft_tokens`."""
    costs: StepCosts
    predicted_speedup: float
    """Time per token of the teacher alone over that with the draft, by the four values above."""
    cascade: Cascade | None
    no_cascade: str = ""
    """Why no cascade could be estimated; empty where one was."""
