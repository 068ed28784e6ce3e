"""What a training process is told and what it says back: one JSON document in, JSON lines out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import errors
from harness.errors import EnvironmentFailure, HarnessError
from harness.reference.recipes import Recipe
from harness.types import Role


@dataclass(frozen=True)
class Job:
    """Units to be made by one process, in order, under the store `root`."""

    root: Path
    seed: int
    units: tuple[str, ...]
    recipes: tuple[Recipe, ...]

    def to_json(self) -> str:
        """As the process reads it on its standard input."""
        return json.dumps(asdict(self) | {"root": str(self.root)})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What `to_json` wrote."""
        fields = json.loads(text)
        recipes = tuple(
            Recipe(**{**recipe, "role": Role(recipe["role"])}) for recipe in fields["recipes"]
        )
        return cls(Path(fields["root"]), fields["seed"], tuple(fields["units"]), recipes)


@dataclass(frozen=True)
class Advanced:
    """Work done on a unit since the last message, on the recipes' scale."""

    unit: str
    cost_ms: float

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"unit": self.unit, "cost_ms": self.cost_ms})


@dataclass(frozen=True)
class Failed:
    """The harness's error that ended the process."""

    kind: str
    message: str
    next_step: str

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"failed": asdict(self)})

    def to_error(self) -> HarnessError:
        """The error, as the process raised it."""
        kind = getattr(errors, self.kind, EnvironmentFailure)
        error: HarnessError = kind.__new__(kind)
        HarnessError.__init__(error, self.message, next_step=self.next_step)
        return error


def read_message(line: str) -> Advanced | Failed:
    """The message of one line."""
    fields: Mapping[str, object] = json.loads(line)
    if "failed" in fields:
        failed = fields["failed"]
        assert isinstance(failed, dict)  # noqa: S101  (what Failed.to_json wrote)
        return Failed(**failed)
    return Advanced(str(fields["unit"]), float(str(fields["cost_ms"])))
