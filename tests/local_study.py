"""A study of the user's own kind: checkpoints and a CSV file in a folder, made in seconds."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import yaml

from tests.tiny_models import (
    LINES,
    make_classifier,
    make_language_model,
    make_question_answerer,
    make_sentence_encoder,
    make_token_classifier,
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
            "saturation_shares": [],
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
            "saturation_shares": [],
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
            "saturation_shares": [],
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


def tagged_rows(count: int = 48) -> list[dict[str, object]]:
    """Sentences of the lines' words with IOB2 tags that have nothing to do with them."""
    draw = random.Random(4)
    words = " ".join(LINES).split()
    rows = []
    for number in range(count):
        size = number % 9 + 1
        tags: list[str] = []
        for _ in range(size):
            kind = draw.choice(("O", "PER", "LOC"))
            inside = bool(tags) and tags[-1][2:] == kind and draw.random() < 0.5
            tags.append("O" if kind == "O" else f"{'I' if inside else 'B'}-{kind}")
        rows.append({"tokens": [draw.choice(words) for _ in range(size)], "ner_tags": tags})
    return rows


def scored_pairs(count: int = 36) -> list[dict[str, object]]:
    """Pairs of the lines' words with a score that has nothing to do with them."""
    draw = random.Random(5)
    words = " ".join(LINES).split()

    def text() -> str:
        return " ".join(draw.choice(words) for _ in range(draw.randint(1, 9)))

    return [{"text": text(), "text_pair": text(), "score": draw.random() * 5} for _ in range(count)]


def write_words_study(folder: Path) -> Path:
    """Write a study of two families, token classifiers and sentence encoders, with pipelines.

    The tagger's student is DistilBERT's kind; the encoder's pools [CLS] through a Dense layer.
    """
    make_token_classifier(folder / "tagger", seed=0)
    make_token_classifier(folder / "small-tagger", architecture="distilbert", seed=1)
    make_sentence_encoder(folder / "encoder", seed=2)
    make_sentence_encoder(folder / "small-encoder", pooling="cls", dense=16, seed=3)
    pairs = scored_pairs()
    documents = [{"_id": f"d{n}", "text": pair["text"]} for n, pair in enumerate(pairs)]
    queries = [{"_id": f"q{n}", "text": pair["text_pair"]} for n, pair in enumerate(pairs[:24])]
    relevance = [f"q{n}\td{place}\t{1 + n % 2}" for n in range(24) for place in (n, (7 * n) % 36)]
    for name, rows in (
        ("tagged.jsonl", tagged_rows()),
        ("pairs.jsonl", pairs),
        ("corpus.jsonl", documents),
        ("queries.jsonl", queries),
    ):
        (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
    header = "query-id\tcorpus-id\tscore"
    (folder / "test.tsv").write_text("\n".join([header, *dict.fromkeys(relevance)]))
    names = {"ner": ("tagger", "small-tagger"), "search": ("encoder", "small-encoder")}
    tasks = {
        "ner": {
            "kind": "token-classification",
            "data": {"source": "jsonl", "path": "tagged.jsonl"},
            "max_length": 24,
            "length_buckets": [12, 24],
        },
        "search": {
            "kind": "sentence-embedding",
            "data": {"source": "jsonl", "path": "pairs.jsonl"},
            "text_pair": "text_pair",
            "score": "score",
            "retrieval": {
                "corpus": "corpus.jsonl", "queries": "queries.jsonl", "relevance": "test.tsv",
            },
            "max_length": 24,
        },
    }  # fmt: skip
    objectives = {
        "ner": f"{HARMLESS}, entity_f1 >= 1% of teacher",
        "search": f"{HARMLESS}, ndcg_at_10 >= 1% of teacher",
    }
    families = [
        {
            "name": name,
            "ensemble": True,
            "objective": objectives[name],
            "task": tasks[name],
            "models": [
                {"name": model, "role": role, "checkpoint": f"./{model}"}
                for model, role in zip(models, ("teacher", "student"), strict=True)
            ],
        }
        for name, models in names.items()
    ]
    document = {
        "name": "words",
        "families": families,
        "search": "grid",
        "traffic": {
            "saturation_shares": [],
            "protocols": ["grpc"],
            "client_batch_sizes": [2],
            "concurrencies": [2],
            "duration_s": 0.5,
            "warmup_s": 0.1,
        },
    }
    path = folder / "words.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
