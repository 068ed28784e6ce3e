"""lm-eval tasks with local files: multiple choice, perplexity of texts, greedy generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_models import LINES


def write_tasks(folder: Path, *, documents: int = 24) -> Path:
    """Write `local_mc`, `local_ppl` and `local_gen` with their data; some texts are long."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = [
        {
            "question": " ".join(LINES[(number + part) % 6] for part in range(1 + number % 4)),
            "choices": [LINES[(number + 2) % 6][:9], LINES[(number + 3) % 6][:14], "both"],
            "answer": number % 3,
        }
        for number in range(documents)
    ]
    texts = [
        {"text": " ".join(LINES[part % 6] for part in range(number, number + 1 + number % 5))}
        for number in range(documents)
    ]
    _write_lines(folder / "questions.jsonl", questions)
    _write_lines(folder / "texts.jsonl", texts)
    for task in (multiple_choice(folder), perplexity(folder), generation(folder)):
        write_task(folder, task)
    return folder


def write_task(folder: Path, task: dict[str, Any]) -> Path:
    """Write one task's YAML file."""
    path = folder / f"{task['task']}.yaml"
    path.write_text(yaml.safe_dump(task))
    return path


def multiple_choice(folder: Path, **changes: Any) -> dict[str, Any]:
    """Which of three continuations follows."""
    return {
        "task": "local_mc",
        **_local(folder / "questions.jsonl"),
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [_metric("acc", "mean", True), _metric("acc_norm", "mean", True)],
        **changes,
    }


def perplexity(folder: Path, **changes: Any) -> dict[str, Any]:
    """Running text."""
    return {
        "task": "local_ppl",
        **_local(folder / "texts.jsonl"),
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            _metric("word_perplexity", "weighted_perplexity", False),
            _metric("byte_perplexity", "weighted_perplexity", False),
            _metric("bits_per_byte", "bits_per_byte", False),
        ],
        **changes,
    }


def generation(folder: Path, **changes: Any) -> dict[str, Any]:
    """Text up to a stop string."""
    return {
        "task": "local_gen",
        **_local(folder / "questions.jsonl"),
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[2]}}",
        "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 8},
        "metric_list": [_metric("exact_match", "mean", True)],
        **changes,
    }


def _local(file: Path) -> dict[str, Any]:
    return {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
    }


def _metric(name: str, aggregation: str, higher: bool) -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": higher}


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
