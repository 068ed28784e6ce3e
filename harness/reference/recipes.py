"""Which models there are, how large they are, and how long they learn: all numbers in one place.

Chosen on the validation splits of seeds 20 and 21. The test splits were looked at for the room that
the decision leaves, but no number was picked by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from harness.types import Role

RECIPE_VERSION = 1
"""Raise it when the code that trains changes in a way that the recipes do not show."""

TOPICS, PROSE = "topics", "prose"
FAMILIES = (TOPICS, PROSE)
CONTINUATIONS = "continuations"
"""Beginnings of the prose's paragraphs with how they go on, for the same models to write."""
DATA_SETS = (*FAMILIES, CONTINUATIONS)

TOPICS_VOCABULARY = 4096
TOPICS_LENGTH = 32
"""Tokens; also what the reference study pads to."""
PROSE_VOCABULARY = 2048
PROSE_LENGTH = 64
NEW_TOKENS = 24
"""Longest continuation that is written in the embedded task."""


@dataclass(frozen=True)
class Recipe:
    """One model: its size, its teacher and its budget in steps (never in seconds).

    A budget in seconds would give other weights on a busy machine. `step_ms` is only the weight
    of a step in the progress bar: milliseconds of one core with AVX-512.
    """

    name: str
    family: str
    role: Role
    layers: int
    hidden: int
    heads: int
    steps: int
    batch: int
    learning_rate: float
    step_ms: float
    teacher: str | None = None
    """Name of the model whose soft answers it learns from; None for plain training on labels or
    tokens."""

    def deciding_fields(self) -> dict[str, Any]:
        """All that decides the weights: every field but the progress bar's."""
        return {name: value for name, value in asdict(self).items() if name != "step_ms"}


_STUDENT_STEPS = 280
_DISTILLATION_COST = 1.96
"""CPU time of a distilled step of the prose student over that of a plain one (see `RECIPES`)."""

_ALL = (
    Recipe(
        "topics-teacher", TOPICS, Role.TEACHER,
        layers=3, hidden=192, heads=3, steps=288, batch=32, learning_rate=1.5e-3, step_ms=88,
    ),
    Recipe(
        "topics-student", TOPICS, Role.STUDENT,
        layers=1, hidden=64, heads=2, steps=400, batch=64, learning_rate=4e-3, step_ms=12.5,
        teacher="topics-teacher",
    ),
    Recipe(
        "topics-tiny", TOPICS, Role.STUDENT,
        layers=1, hidden=8, heads=1, steps=400, batch=64, learning_rate=1e-2, step_ms=4,
        teacher="topics-teacher",
    ),
    Recipe(
        "prose-teacher", PROSE, Role.TEACHER,
        layers=2, hidden=128, heads=2, steps=340, batch=16, learning_rate=5e-3, step_ms=58,
    ),
    Recipe(
        "prose-student", PROSE, Role.STUDENT,
        layers=1, hidden=64, heads=2, steps=_STUDENT_STEPS, batch=16, learning_rate=1.4e-2,
        step_ms=50, teacher="prose-teacher",
    ),
    Recipe(
        "prose-control", PROSE, Role.CONTROL,
        layers=1, hidden=64, heads=2, steps=round(_STUDENT_STEPS * _DISTILLATION_COST), batch=16,
        learning_rate=1.4e-2, step_ms=25,
    ),
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
"""Every model by name.

`prose-control` is the student trained *without* distillation for the same wall time: a distilled
step costs the student's own work, the teacher's forward pass and a softmax more, together
`_DISTILLATION_COST` plain steps, so the control makes that many times the steps. The ratio was
measured once (CPU time of one thread, AVX-512) and is fixed here: measured at run time it would
give other weights each time. What each training took is in its `training.json`.
"""
