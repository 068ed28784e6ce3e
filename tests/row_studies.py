"""Studies of several labels, and of a number, a row: checkpoints and data made in seconds.

The right answers are those of the teacher's own checkpoint, asked by transformers one text at a
time, with some turned over: so a teacher is good and not perfect, and a student of nearly its
weights keeps most of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tests.local_study import HARMLESS
from tests.tiny_models import LINES, make_alike, make_classifier

TOPICS = ("animals", "servers", "code", "models")
STUDENTS_ORDER = (2, 0, 3, 1)
"""Of the topics, in the student's outputs."""
THRESHOLD = 0.4
ROWS = 60
TRAFFIC = {
    "protocols": ["http"],
    "client_batch_sizes": [4],
    "concurrencies": [2],
    "duration_s": 0.5,
    "warmup_s": 0.1,
    "saturation_shares": [],
}


def texts() -> list[str]:
    """Lines of different lengths, no two alike."""
    return [
        " ".join(LINES[(number * 5) % 6].split()[: 2 + number % 9]) + f" {number}"
        for number in range(ROWS)
    ]


def bare_logits(folder: Path, rows: list[str]) -> NDArray[np.float64]:
    """What transformers alone answers to each text alone, unpadded, (rows, outputs)."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        found = [
            model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0]
            for text in rows
        ]
    return torch.stack(found).double().numpy()


def write_multi_label_study(folder: Path, **changes: Any) -> Path:
    """Write two multi-label classifiers, rows with lists of names, and a study of one short trial.

    The student numbers its labels otherwise than the teacher and is served in int8 as well.
    """
    make_classifier(folder / "teacher", TOPICS, problem_type="multi_label_classification", seed=21)
    make_alike(folder / "student", folder / "teacher", order=STUDENTS_ORDER, noise=0.1)
    logits = bare_logits(folder / "teacher", texts())
    labels = 1 / (1 + np.exp(-logits)) >= THRESHOLD
    labels[::5, 0] ^= True
    labels[3::7, 2] ^= True
    with (folder / "topics.jsonl").open("w") as file:
        for text, row in zip(texts(), labels, strict=True):
            names = [name for name, one in zip(TOPICS, row, strict=True) if one]
            file.write(json.dumps({"text": text, "labels": names}) + "\n")
    task = {
        "kind": "multi-label-classification",
        "data": {"source": "jsonl", "path": "topics.jsonl"},
        "threshold": THRESHOLD,
        "max_length": 24,
        "length_buckets": [12, 24],
    }
    objective = f"{HARMLESS}, micro_f1 >= 50% of teacher, subset_accuracy >= 1%"
    return _write(folder, "topics", task, objective, changes, precisions=("fp32", "int8"))


def write_regression_study(folder: Path, **changes: Any) -> Path:
    """Write two regressions, rows with a grade, and a study of one short trial."""
    make_classifier(folder / "teacher", ("grade",), problem_type="regression", seed=22)
    make_alike(folder / "student", folder / "teacher", noise=0.02)
    grades = bare_logits(folder / "teacher", texts())[:, 0]
    grades = grades + grades.std() * np.random.default_rng(1).normal(size=ROWS) / 2
    with (folder / "grades.jsonl").open("w") as file:
        for text, grade in zip(texts(), grades.tolist(), strict=True):
            file.write(json.dumps({"text": text, "label": grade}) + "\n")
    task = {
        "kind": "regression",
        "data": {"source": "jsonl", "path": "grades.jsonl"},
        "max_length": 24,
        "length_buckets": [12, 24],
    }
    objective = f"{HARMLESS}, pearson >= 50% of teacher, mae <= 2x teacher"
    return _write(folder, "grades", task, objective, changes)


def _write(
    folder: Path,
    name: str,
    task: dict[str, Any],
    objective: str,
    changes: dict[str, Any],
    *,
    precisions: Sequence[str] = ("fp32",),
) -> Path:
    document = {
        "name": name,
        "objective": objective,
        "families": [
            {
                "name": name,
                "ensemble": True,
                "task": task,
                "models": [
                    {"name": f"{name}-teacher", "role": "teacher", "checkpoint": "./teacher"},
                    {
                        "name": f"{name}-student",
                        "role": "student",
                        "checkpoint": "./student",
                        "precisions": [*precisions],
                    },
                ],
            }
        ],
        "search": "grid",
        "traffic": TRAFFIC,
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
