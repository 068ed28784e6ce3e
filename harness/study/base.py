"""What all sections of a study share: strictness, names, counts, paths beside the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
PositiveInt = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Unknown keys and wrong types are refused; a section never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def resolve(path: Path, info: ValidationInfo) -> Path:
    """A path as the study file means it: relative to its own folder."""
    base: Path = (info.context or {}).get("base", Path.cwd())
    return (base / path.expanduser()).resolve()
