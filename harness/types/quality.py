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
    """One of `harness.planning.objective.QUALITY_METRICS`; of an lm-eval task `TASK/METRIC`."""
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
    samples themselves. None in runs from before it was told."""
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
