"""What a person says of a study that is to be written, and how its file names paths."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FirstStudy:
    """What a person says of the study that is to be written."""

    checkpoints: tuple[str, ...]
    """Folders, or names on the hub."""
    data: Path
    out: Path
    """The study's file; it must not be there."""
    teacher: str | None = None
    """One of the checkpoints; None takes the largest by parameters."""
    columns: Mapping[str, str] | None = None
    """Columns by the task's key (`text`, `label`, ...), where the guess would be another."""
    labels: tuple[str, ...] = ()
    """Names of the classes in the data's order, where the checkpoints do not name them."""
    objective: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other keys of the task's section, as `pooling`."""


def path_beside(path: Path, out: Path) -> str:
    """A path as the study's file names it: relative to its folder, or whole where it is far."""
    relative = Path(os.path.relpath(path.resolve(), out.resolve().parent))
    if relative.parts[:2] == ("..", ".."):
        return str(path.resolve())
    return str(relative) if relative.parts[:1] == ("..",) else f"./{relative}"
