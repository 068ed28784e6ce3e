"""The page that is signed, and its document, written into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.report.review.decision import build_decision
from harness.runs.documents import write_document
from harness.system.storage import storage_errors
from harness.types.review import DecisionReview

DECIDE = "decide"
"""Name of the document that a decision is kept in."""


@dataclass(frozen=True)
class DecisionFiles:
    """Where a decision was written."""

    html: Path
    markdown: Path
    document: Path


def write_decision(review: DecisionReview, folder: Path) -> DecisionFiles:
    """Write decide.json, decision.html and decision.md.

    Args:
        review: every family's matrix.
        folder: made if it is not there.

    Raises:
        StorageError: they cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    document = write_document(folder, DECIDE, review)
    html, markdown = build_decision(review, folder)
    return DecisionFiles(html, markdown, document)
