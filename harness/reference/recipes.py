"""Which models there are, how large they are, and how long they learn: all numbers in one place.

Chosen on the validation splits (seeds 20 to 22), never on the test splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.types import Role

RECIPE_VERSION = 1
"""Raise it when the code that trains changes in a way that the recipes do not show."""

TOPICS, PROSE = "topics", "prose"
FAMILIES = (TOPICS, PROSE)

TOPICS_VOCABULARY = 4096
TOPICS_LENGTH = 32
"""Tokens; also what the reference study pads to."""
PROSE_VOCABULARY = 2048
PROSE_LENGTH = 64


@dataclass(frozen=True)
class Recipe:
    """One model: its size, its teacher and its budget in steps (never in seconds).

    A budget in seconds would give other weights on a busy machine. `step_ms` is only the weight
    of a step in the progress bar: milliseconds on two cores of 2.5 GHz with AVX-512.
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
    """Whose soft answers it learns from; None for plain training on the labels or tokens."""
    prior_embeddings: bool = True
    """Start from word embeddings made of co-occurrence counts, not from noise."""


_TEACHER_PASS_STEPS = 340
"""What the teacher's pass over the prose training split costs, in steps of the plain student."""

_STUDENT_STEPS = 600

_ALL = (
    Recipe(
        "topics-teacher", TOPICS, Role.TEACHER,
        layers=3, hidden=192, heads=3, steps=300, batch=64, learning_rate=1e-3, step_ms=85,
    ),
    Recipe(
        "topics-student", TOPICS, Role.STUDENT,
        layers=1, hidden=64, heads=2, steps=800, batch=64, learning_rate=4e-3, step_ms=7,
        teacher="topics-teacher",
    ),
    Recipe(
        "topics-tiny", TOPICS, Role.STUDENT,
        layers=1, hidden=16, heads=1, steps=500, batch=64, learning_rate=6e-3, step_ms=3,
        teacher="topics-teacher", prior_embeddings=False,
    ),
    Recipe(
        "prose-teacher", PROSE, Role.TEACHER,
        layers=2, hidden=128, heads=2, steps=750, batch=16, learning_rate=5e-3, step_ms=32,
    ),
    Recipe(
        "prose-student", PROSE, Role.STUDENT,
        layers=1, hidden=64, heads=2, steps=_STUDENT_STEPS, batch=16, learning_rate=8e-3,
        step_ms=15, teacher="prose-teacher",
    ),
    Recipe(
        "prose-control", PROSE, Role.CONTROL,
        layers=1, hidden=64, heads=2, steps=_STUDENT_STEPS + _TEACHER_PASS_STEPS, batch=16,
        learning_rate=8e-3, step_ms=14,
    ),
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
"""Every model by name.

`prose-control` is the student trained *without* distillation at the same cost. The student's
cost is one pass of the teacher over the training split and its own steps; the pass costs as much
as `_TEACHER_PASS_STEPS` plain steps of the student, so the control gets that many more. The
number is a ratio of CPU times measured once (one thread, idle machine) and then fixed: measuring
it at run time would give other weights each time.
"""
