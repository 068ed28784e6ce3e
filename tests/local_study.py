"""A study of the user's own kind: checkpoints and a CSV file in a folder, made in seconds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import yaml

from tests.tiny_models import (
    LINES,
    make_classifier,
    make_language_model,
    make_question_answerer,
)

HARMLESS = "p50 < 60 s"
"""An objective that only a dead server misses, and that ten requests decide."""
LABELS = ("code", "prose", "other")


def write_local_study(folder: Path, **changes) -> Path:
    """Write two classifiers, their data and a study of one short trial a point."""
    make_classifier(folder / "teacher", LABELS, seed=0)
    make_classifier(folder / "student", LABELS, seed=1)
    with (folder / "test.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "kind"])
        for number in range(60):
            writer.writerow([f"{LINES[number % len(LINES)]} {number}", LABELS[number % 3]])
    document = {
        "name": "local",
        "objective": "p95 < 500 ms",
        "families": [
            {
                "name": "sentences",
                "task": {
                    "kind": "sequence-classification",
                    "data": {"source": "csv", "path": "test.csv"},
                    "text": "sentence",
                    "label": "kind",
                    "max_length": 16,
                },
                "models": [
                    {"name": "own-teacher", "role": "teacher", "checkpoint": "./teacher"},
                    {"name": "own-student", "role": "student", "checkpoint": "./student"},
                ],
            }
        ],
        "traffic": {
            "protocols": ["http", "grpc"],
            "client_batch_sizes": [1, 4],
            "concurrencies": [2],
            "duration_s": 0.5,
            "warmup_s": 0.1,
        },
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def write_pair_study(folder: Path, data: str = "pairs.jsonl", **changes) -> Path:
    """Write a study of pairs with labels of their own, served as a whole pipeline too.

    The student has its classes in another order than teacher and data.
    """
    verdicts = ("follows", "unrelated", "contradicts")
    make_classifier(folder / "pair-teacher", verdicts, seed=6)
    make_classifier(folder / "pair-student", verdicts[::-1], seed=7)
    rows = [
        {
            "first": f"{LINES[number % len(LINES)]} {number}",
            "second": LINES[(number * 5 + 1) % len(LINES)],
            "verdict": verdicts[number % 3],
        }
        for number in range(48)
    ]
    with (folder / data).open("w", encoding="utf-8", newline="") as file:
        if data.endswith(".csv"):
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    models = [
        {"name": f"pair-{role}", "role": role, "checkpoint": f"./pair-{role}"}
        for role in ("teacher", "student")
    ]
    document = {
        "name": "pairs",
        "objective": "p95 < 500 ms",
        "families": [
            {
                "name": "pairs",
                "pipeline": True,
                "task": {
                    "kind": "sequence-classification",
                    "data": {"source": data.rpartition(".")[2], "path": data},
                    "text": "first",
                    "text_pair": "second",
                    "label": "verdict",
                    "max_length": 48,
                    "length_buckets": [32, 48],
                },
                "models": models,
            }
        ],
        "traffic": {
            "protocols": ["http", "grpc"],
            "client_batch_sizes": [4],
            "concurrencies": [2],
            "duration_s": 0.5,
            "warmup_s": 0.1,
        },
        **changes,
    }
    path = folder / "pairs.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def question_rows() -> list[dict[str, object]]:
    """SQuAD-like rows about the lines; every third context is longer than a window of 24 tokens."""
    rows = []
    for number, line in enumerate(LINES * 4):
        context = " ".join((line, *LINES)) if number % 3 == 0 else line
        answer = " ".join(line.split()[1:3])
        start = context.index(answer)
        rows.append(
            {
                "question": f"what comes after {line.split()[0]}",
                "context": context,
                "answers": {"text": [answer], "answer_start": [start]},
            }
        )
    return rows


def write_question_study(folder: Path, **changes) -> Path:
    """Write two question answerers, their data and a study of one short trial a point."""
    make_question_answerer(folder / "qa-teacher", seed=4)
    make_question_answerer(folder / "qa-student", architecture="distilbert", seed=5)
    (folder / "questions.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in question_rows()), encoding="utf-8"
    )
    document = {
        "name": "questions",
        "objective": "p95 < 500 ms, exact_match >= 0.1%",
        "families": [
            {
                "name": "questions",
                "task": {
                    "kind": "question-answering",
                    "data": {"source": "jsonl", "path": "questions.jsonl"},
                    "max_length": 32,
                    "doc_stride": 6,
                    "length_buckets": [24, 32],
                    "max_answer_length": 8,
                },
                "models": [
                    {
                        "name": "qa-teacher",
                        "role": "teacher",
                        "checkpoint": "./qa-teacher",
                        "precisions": ["fp32", "int8"],
                    },
                    {"name": "qa-student", "role": "student", "checkpoint": "./qa-student"},
                ],
            }
        ],
        "traffic": {
            "protocols": ["http"],
            "client_batch_sizes": [4],
            "concurrencies": [2],
            "duration_s": 0.5,
            "warmup_s": 0.1,
        },
        **changes,
    }
    path = folder / "questions.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def add_language_model_family(study: Path) -> None:
    """Add a family of two language models with JSON lines of their own."""
    folder = study.parent
    make_language_model(folder / "lm-teacher", seed=2)
    make_language_model(folder / "lm-student", seed=3)
    (folder / "texts.jsonl").write_text(
        "".join(f'{{"text": "{line}, {number}"}}\n' for number in range(3) for line in LINES)
    )
    document = yaml.safe_load(study.read_text())
    document["families"].append(
        {
            "name": "texts",
            "task": {
                "kind": "causal-lm",
                "data": {"source": "jsonl", "path": "texts.jsonl"},
                "max_length": 16,
            },
            "models": [
                {"name": "lm-teacher", "role": "teacher", "checkpoint": "./lm-teacher"},
                {"name": "lm-student", "role": "student", "checkpoint": "./lm-student"},
            ],
        }
    )
    study.write_text(yaml.safe_dump(document))
