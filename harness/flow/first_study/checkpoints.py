"""The checkpoints of a first study: opened, of one kind of task, and which is the teacher."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, count
from pathlib import Path

from harness.errors import CheckpointError, UsageError
from harness.export.checkpoint import (
    Checkpoint,
    CheckpointPreview,
    inspect_checkpoint,
    open_checkpoint,
)
from harness.export.checkpoint_files import positions_held, read_config
from harness.flow.first_study.asked import FirstStudy, path_beside
from harness.study import Model
from harness.tasks.label_values import listed
from harness.types import Role

_NAME = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint that was looked at."""

    model: Model
    written: str
    """The checkpoint, as the study names it."""
    preview: CheckpointPreview
    checkpoint: Checkpoint
    positions: int | None
    """Tokens that it takes; None without a limit."""


def open_checkpoints(asked: FirstStudy) -> list[FoundCheckpoint]:
    """Every checkpoint, in the order given."""
    names = distinct_names([Path(one).name for one in asked.checkpoints])
    found: list[FoundCheckpoint] = []
    for name, given in zip(names, asked.checkpoints, strict=True):
        _check_folder(given)
        written = path_beside(Path(given), asked.out) if Path(given).is_dir() else given
        location = str(Path(given).resolve()) if Path(given).is_dir() else given
        model = Model(name=name, role=Role.STUDENT, checkpoint=location)
        preview = _inspect(model, given)
        if found and preview.family.kind != found[0].preview.family.kind:
            raise UsageError(
                f"{given} does {preview.family.kind}, and {asked.checkpoints[0]} does "
                f"{found[0].preview.family.kind}: a family of models has one task",
                next_step="write one study for each kind of model",
            )
        checkpoint = open_checkpoint(model, folder=None)
        positions = positions_held(read_config(model, checkpoint.folder))
        found.append(FoundCheckpoint(model, written, preview, checkpoint, positions))
    return found


def _inspect(model: Model, given: str) -> CheckpointPreview:
    """Look at a checkpoint; of a name that no folder here has, say so beside the hub's answer."""
    try:
        return inspect_checkpoint(model, None)
    except CheckpointError as error:
        if Path(given).exists():
            raise
        here = [str(one.parent) for one in Path(given).parent.glob("*/config.json")]
        meant = get_close_matches(given, here, n=1)
        raise CheckpointError(
            f"no folder {given} is here ({error})",
            next_step=f"did you mean {meant[0]}?" if meant else error.next_step,
        ) from error


def _check_folder(given: str) -> None:
    """Raises UsageError for a path that is not a checkpoint; a hub name is asked for elsewhere."""
    path = Path(given)
    if not path.exists() and not given.startswith((".", "/", "~")):
        return
    if (path / "config.json").is_file():
        return
    step = "name the folder that save_pretrained wrote, which holds config.json; or a hub name"
    if path.is_file():
        raise UsageError(f"{given} is a file, and a checkpoint is a folder", next_step=step)
    if not path.is_dir():
        raise UsageError(f"no such folder: {given}", next_step=step)
    inner = sorted(one.parent.name for one in path.glob("*/config.json"))
    if inner:
        step = f"name one of the folders in it: {listed(inner)}"
    raise UsageError(f"no checkpoint there: {given} has no config.json", next_step=step)


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names that a study takes, each once: `a`, `a-2`."""
    plain = [_NAME.sub("-", name.lower()).strip("-._")[:56] or "model" for name in names]
    distinct: list[str] = []
    for place, name in enumerate(plain):
        # A number that another one is called by already is not given again.
        others = {*distinct, *plain[place + 1 :]} if name in distinct else set()
        numbered = (f"{name}-{number}" for number in count(2))
        distinct.append(next(one for one in chain([name], numbered) if one not in others))
    return distinct


def choose_teacher(found: Sequence[FoundCheckpoint], asked: FirstStudy) -> FoundCheckpoint:
    """The checkpoint that a person names as the teacher, or else the largest by parameters.

    Raises:
        UsageError: the one that is named is none of them.
    """
    if asked.teacher is None:
        return max(found, key=lambda one: one.checkpoint.parameters)
    for one, given in zip(found, asked.checkpoints, strict=True):
        if asked.teacher in {given, one.model.name}:
            return one
    raise UsageError(
        f"the teacher {asked.teacher} is none of the checkpoints",
        next_step=f"name one of: {', '.join(asked.checkpoints)}",
    )
