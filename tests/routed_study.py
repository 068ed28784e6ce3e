"""A teacher and students that differ from it by a known amount, for routers and rollouts.

The labels are what the teacher's checkpoint says of each text, so the teacher is right on every
row, and a student's accuracy is its agreement with the teacher. The students have their classes in
another order than the teacher.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.local_study import HARMLESS, LABELS, write_rows, write_study
from tests.row_studies import bare_logits
from tests.tiny_models import LINES, make_alike, make_classifier

ROWS = 240
LONGEST = 32
"""Tokens that a text may have; no text has as many."""
TEACHER = "teacher"
STUDENTS = {"fair": 0.1, "poor": 0.4}
"""By student the noise on its head: right on about 81 and 48% of the rows."""
STUDENTS_ORDER = (2, 0, 1)
"""Of the teacher's classes, in the students' outputs."""


def texts() -> list[str]:
    """Words in no order, 3 to 11 of them."""
    words = " ".join(LINES).split()
    draws = np.random.default_rng(0)
    return [" ".join(draws.choice(words, draws.integers(3, 12))) for _ in range(ROWS)]


def write_routed_study(folder: Path) -> Path:
    """Write the teacher, its students, their rows, and a study of one short trial."""
    make_classifier(folder / TEACHER, LABELS, seed=3)
    for name, noise in STUDENTS.items():
        make_alike(folder / name, folder / TEACHER, order=STUDENTS_ORDER, noise=noise)
    labels = bare_logits(folder / TEACHER, texts()).argmax(axis=1)
    rows = [
        {"text": text, "label": LABELS[label]}
        for text, label in zip(texts(), labels.tolist(), strict=True)
    ]
    write_rows(folder / "rows.jsonl", rows)
    task = {
        "kind": "sequence-classification",
        "data": {"source": "jsonl", "path": "rows.jsonl"},
        "max_length": LONGEST,
        "length_buckets": [12, LONGEST],
    }
    roles = {TEACHER: "teacher", **dict.fromkeys(STUDENTS, "student")}
    models = [
        {"name": name, "role": role, "checkpoint": f"./{name}"} for name, role in roles.items()
    ]
    return write_study(
        folder,
        "routed",
        [{"name": "texts", "task": task, "models": models}],
        protocols=["http"],
        batches=[4],
        objective=f"{HARMLESS}, accuracy >= 70% of teacher",
        serving={"max_batch_sizes": [4], "instance_counts": [1]},
    )


@cache
def bare_answers(folder: Path, name: str) -> NDArray[np.float64]:
    """What the checkpoint alone answers to each text, in the students' order, (rows, classes)."""
    found = bare_logits(folder / name, texts())
    return found[:, list(STUDENTS_ORDER)] if name == TEACHER else found
