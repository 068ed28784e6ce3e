"""What other documents of a run folder add to a decision: costs, a router, replicas, savings.

A new kind of document is one entry of `CONTRIBUTORS`: its name, its dataclass, and a function that
says what it adds. Nothing else has to know of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.runs.documents import read_document
from harness.types.review import DecisionCandidate, Figure, PlannedFact, Risk


@dataclass(frozen=True)
class VariantFigure:
    """A figure of a variant that the run itself does not hold: a cost."""

    variant: str
    figure: Figure


@dataclass(frozen=True)
class Contribution:
    """What a document adds to the decision."""

    figures: tuple[VariantFigure, ...] = ()
    candidates: tuple[tuple[str, DecisionCandidate], ...] = ()
    """A family's name and a further candidate of it: a router."""
    facts: tuple[tuple[str, PlannedFact], ...] = ()
    """A family's name (empty for all) and what is shown under a heading of the page."""
    risks: tuple[tuple[str, Risk], ...] = ()
    """A family's name (empty for all) and what whoever signs should know."""


@dataclass(frozen=True)
class Contributor:
    """A kind of document."""

    name: str
    """Of its files: `plan` for plan.json."""
    kind: type[Any]
    """Its frozen dataclass."""
    contribute: Callable[[Any, str], Contribution]
    """From the document and the run folder's path."""


CONTRIBUTORS: list[Contributor] = []
"""Every kind that is known."""


@dataclass(frozen=True)
class Contributions:
    """All that the documents of one run folder add."""

    parts: tuple[Contribution, ...] = field(default=())

    def figures(self, variant: str) -> tuple[Figure, ...]:
        """The further figures of a variant."""
        return tuple(
            one.figure for part in self.parts for one in part.figures if one.variant == variant
        )

    def candidates(self, family: str) -> tuple[DecisionCandidate, ...]:
        """The further candidates of a family."""
        return tuple(one for part in self.parts for name, one in part.candidates if name == family)

    def facts(self, family: str) -> tuple[PlannedFact, ...]:
        """What is shown of a family."""
        return tuple(one for part in self.parts for name, one in part.facts if name in {"", family})

    def risks(self, family: str) -> tuple[Risk, ...]:
        """What whoever signs for a family should know."""
        return tuple(one for part in self.parts for name, one in part.risks if name in {"", family})


def contributions_of(folder: Path) -> Contributions:
    """Read every known document of a run folder that is there.

    Raises:
        RunFolderError: a document cannot be read as one of its kind.
    """
    read = ((one, read_document(folder, one.name, one.kind)) for one in CONTRIBUTORS)
    return Contributions(
        tuple(one.contribute(found, str(folder)) for one, found in read if found is not None)
    )
