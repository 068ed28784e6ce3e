"""A step of a long piece of work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A step of a long piece of work, for the bar on standard error."""

    stage: str
    done: float
    total: float
    note: str = ""
