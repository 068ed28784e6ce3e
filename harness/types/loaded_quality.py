"""Quality while a load runs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.types.losses import PairedMeasure
from harness.types.variants import QualityScore


@dataclass(frozen=True)
class LoadedQuality:
    """A variant scored while the load of its verdict ran, beside the same rows without a load."""

    variant: str
    sha256: str
    """Digest of the artefact that answered."""
    teacher_sha256: str
    trial_id: str
    """The trial whose load ran."""
    samples: int
    """Rows that were asked."""
    changed: int | None
    """Rows whose answer was another one than without a load; None where its task does not tell."""
    requests_per_s: float
    """Requests that the load completed meanwhile; the rows that were scored came on top."""
    scores: tuple[QualityScore, ...]
    """Scores under the load, beside the teacher's answers to the same rows without one."""
    alone: tuple[QualityScore, ...]
    """Scores of the same rows without a load, beside the teacher's answers."""
    pairs: tuple[PairedMeasure, ...] = ()
    """The answers under the load compared with the same variant's without one, row by row."""
    problem: str = ""
    """Why there are no scores; empty where there are."""
