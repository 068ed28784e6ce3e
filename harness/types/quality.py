"""What a variant is worth."""

from __future__ import annotations

from dataclasses import dataclass

from harness.types.variants import Role


@dataclass(frozen=True)
class QualityScore:
    """One metric of one variant, taken through the endpoint, beside the teacher's."""

    variant: str
    family: str
    role: Role
    metric: str
    """One of `harness.metrics`; of an lm-eval task `TASK/METRIC`."""
    value: float
    low: float | None
    """Of the 95% interval; None where the data allows none (a single document)."""
    high: float | None
    samples: int
    sha256: str
    """Of the artefact that answered; empty for a baseline that is not served."""
    relative_to_teacher: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    p_value: float | None = None
    """McNemar's exact test for accuracy and what else is 0 or 1 a sample; None for the rest."""
    outcomes_file: str = ""
    """Per-sample outcomes, relative to the run folder."""
    units: int | None = None
    """What of the samples is independent: documents of windows, contexts of questions, else the
    samples themselves. None in runs from before it was kept."""
    standard_error: float | None = None
    """Of the value; 0 where all units agree, None where it is not to be had."""
    relative_standard_error: float | None = None


@dataclass(frozen=True)
class BatchConsistency:
    """Whether a variant answers alike at every batch size, against batch 1."""

    variant: str
    batch_size: int
    samples: int
    changed_predictions: int
    max_abs_difference: float


@dataclass(frozen=True)
class TaskEntry:
    """One lm-eval task (or group of tasks) as one variant answered it."""

    variant: str
    sha256: str
    task: str
    """As it was asked for."""
    digest: str
    """SHA-256 of every request it made."""
    scores: tuple[QualityScore, ...]
    requests: int
    unanswered: int
    truncated: int
    """Requests whose context was cut from the left to the model's length."""
    windowed: int
    """Texts that took more than one window."""
    from_cache: int = 0
    """Answers that were known from an earlier run, and not asked for again."""
    asked: int = 0
    """Answers that were asked for: a request may take several, or share one."""
    teacher_sha256: str = ""
    """Of the teacher it was held against: beside another it is scored anew."""

    @property
    def key(self) -> str:
        """What a later entry of the same name replaces."""
        return f"{self.variant}/{self.task}"
