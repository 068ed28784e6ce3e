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


NLI = ("entailment", "neutral", "contradiction")
"""The classes of MNLI, in the order of its gold label."""


def write_class_tasks(folder: Path, *, documents: int = 48) -> Path:
    """Write tasks in the shape of GLUE's: `mnli`, `sst2`, and one of its own, `local_topics`."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [
        {
            "premise": LINES[number % 6],
            "hypothesis": f"{LINES[(number * 5 + 1) % 6]} {number}",
            "label": number % 3,
        }
        for number in range(documents)
    ]
    sentences = [
        {"sentence": f"{LINES[number % 6]} {number}", "label": (number // 2) % 2}
        for number in range(documents)
    ]
    topics = [
        {"body": f"{LINES[number % 6]} {number}", "topic": ("code", "prose", "other")[number % 3]}
        for number in range(documents)
    ]
    for name, rows in {"pairs": pairs, "sentences": sentences, "topics": topics}.items():
        _write_lines(folder / f"{name}.jsonl", rows)
    for task in (mnli(folder), sst2(folder), topics_task(folder)):
        write_task(folder, task)
    return folder


def mnli(folder: Path, **changes: Any) -> dict[str, Any]:
    """Natural language inference, worded as lm-eval's `mnli`."""
    return {
        "task": "mnli",
        **_local(folder / "pairs.jsonl"),
        "output_type": "multiple_choice",
        "doc_to_text": "{{premise}}\nQuestion: {{hypothesis}} True, False or Neither?\nAnswer:",
        "doc_to_choice": ["True", "Neither", "False"],
        "doc_to_target": "label",
        "metric_list": [_metric("acc", "mean", True), _metric("acc_norm", "mean", True)],
        **changes,
    }


def sst2(folder: Path, **changes: Any) -> dict[str, Any]:
    """Sentiment, worded as lm-eval's `sst2`."""
    return {
        "task": "sst2",
        **_local(folder / "sentences.jsonl"),
        "output_type": "multiple_choice",
        "doc_to_text": "{{sentence}}\nQuestion: positive or negative?\nAnswer:",
        "doc_to_choice": ["negative", "positive"],
        "doc_to_target": "label",
        "metric_list": [_metric("acc", "mean", True), {"metric": "f1"}],
        **changes,
    }


def topics_task(folder: Path, **changes: Any) -> dict[str, Any]:
    """A task that is none of GLUE's: its file says what a classifier reads."""
    return {
        "task": "local_topics",
        **_local(folder / "topics.jsonl"),
        "output_type": "multiple_choice",
        "doc_to_text": "{{body}}\nTopic:",
        "doc_to_choice": ["a program", "a text", "neither"],
        "doc_to_target": "{{['code', 'prose', 'other'].index(topic)}}",
        "metric_list": [_metric("acc", "mean", True)],
        "metadata": {
            "version": 1.0,
            "classifier": {"text": "body", "classes": ["code", "prose", "other"]},
        },
        **changes,
    }
