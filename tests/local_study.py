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


def write_study(
    folder: Path,
    name: str,
    families: list[dict],
    *,
    protocols: list[str],
    batches: list[int],
    **changes,
) -> Path:
    """Write `<name>.yaml`: a study of one short trial a point.

    Args:
        folder: where checkpoints and data lie.
        name: the study's name.
        families: its families, as a study's file has them.
        protocols: of its trials.
        batches: client batch sizes of its trials.
        changes: further keys of the document, or others in their place.
    """
    traffic = {
        "saturation_shares": [],
        "protocols": protocols,
        "client_batch_sizes": batches,
        "concurrencies": [2],
        "duration_s": 0.5,
        "warmup_s": 0.1,
    }
    path = folder / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({"name": name, "families": families, "traffic": traffic, **changes})
    )
    return path


def model_entries(teacher: str, student: str) -> list[dict]:
    """Two models of a study whose checkpoints lie in folders of their names."""
    return [
        {"name": name, "role": role, "checkpoint": f"./{name}"}
        for name, role in ((teacher, "teacher"), (student, "student"))
    ]


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV or as lines of JSON, by the file's ending."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_local_study(folder: Path, **changes) -> Path:
    """Write two classifiers, their data and a study of one short trial a point."""
    make_classifier(folder / "teacher", LABELS, seed=0)
    make_classifier(folder / "student", LABELS, seed=1)
    rows = [
        {"sentence": f"{LINES[number % len(LINES)]} {number}", "kind": LABELS[number % 3]}
        for number in range(60)
    ]
    write_rows(folder / "test.csv", rows)
    task = {
        "kind": "sequence-classification",
        "data": {"source": "csv", "path": "test.csv"},
        "text": "sentence",
        "label": "kind",
        "max_length": 16,
    }
    models = [
        {"name": "own-teacher", "role": "teacher", "checkpoint": "./teacher"},
        {"name": "own-student", "role": "student", "checkpoint": "./student"},
    ]
    family = {"name": "sentences", "task": task, "models": models}
    settings = {"objective": "p95 < 500 ms", **changes}
    path = write_study(
        folder, "local", [family], protocols=["http", "grpc"], batches=[1, 4], **settings
    )
    return path.rename(folder / "study.yaml")


def write_pair_study(folder: Path, data: str = "pairs.jsonl", **changes) -> Path:
    """Write a study of pairs with labels of their own, served as a whole ensemble too.

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
    write_rows(folder / data, rows)
    task = {
        "kind": "sequence-classification",
        "data": {"source": data.rpartition(".")[2], "path": data},
        "text": "first",
        "text_pair": "second",
        "label": "verdict",
        "max_length": 48,
        "length_buckets": [32, 48],
    }
    models = model_entries("pair-teacher", "pair-student")
    family = {"name": "pairs", "ensemble": True, "task": task, "models": models}
    settings = {"objective": "p95 < 500 ms", **changes}
    return write_study(
        folder, "pairs", [family], protocols=["http", "grpc"], batches=[4], **settings
    )


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
    write_rows(folder / "questions.jsonl", question_rows())
    task = {
        "kind": "question-answering",
        "data": {"source": "jsonl", "path": "questions.jsonl"},
        "max_length": 32,
        "doc_stride": 6,
        "length_buckets": [24, 32],
        "max_answer_length": 8,
    }
    teacher, student = model_entries("qa-teacher", "qa-student")
    teacher["precisions"] = ["fp32", "int8"]
    family = {"name": "questions", "task": task, "models": [teacher, student]}
    settings = {"objective": "p95 < 500 ms, exact_match >= 0.1%", **changes}
    return write_study(folder, "questions", [family], protocols=["http"], batches=[4], **settings)


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
            "models": model_entries("lm-teacher", "lm-student"),
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
    """Write a study of two families, token classifiers and sentence encoders, with ensembles.

    The tagger's student is DistilBERT's kind; the encoder's pools [CLS] through a Dense layer.
    """
    families = [_tagging_family(folder), _search_family(folder)]
    return write_study(folder, "words", families, protocols=["grpc"], batches=[2], search="grid")


def _tagging_family(folder: Path) -> dict:
    make_token_classifier(folder / "tagger", seed=0)
    make_token_classifier(folder / "small-tagger", architecture="distilbert", seed=1)
    write_rows(folder / "tagged.jsonl", tagged_rows())
    task = {
        "kind": "token-classification",
        "data": {"source": "jsonl", "path": "tagged.jsonl"},
        "max_length": 24,
        "length_buckets": [12, 24],
    }
    return {
        "name": "ner",
        "ensemble": True,
        "objective": f"{HARMLESS}, entity_f1 >= 1% of teacher",
        "task": task,
        "models": model_entries("tagger", "small-tagger"),
    }


def _search_family(folder: Path) -> dict:
    make_sentence_encoder(folder / "encoder", seed=2)
    make_sentence_encoder(folder / "small-encoder", pooling="cls", dense=16, seed=3)
    pairs = scored_pairs()
    write_rows(folder / "pairs.jsonl", pairs)
    write_rows(
        folder / "corpus.jsonl",
        [{"_id": f"d{n}", "text": pair["text"]} for n, pair in enumerate(pairs)],
    )
    write_rows(
        folder / "queries.jsonl",
        [{"_id": f"q{n}", "text": pair["text_pair"]} for n, pair in enumerate(pairs[:24])],
    )
    relevance = [f"q{n}\td{place}\t{1 + n % 2}" for n in range(24) for place in (n, (7 * n) % 36)]
    header = "query-id\tcorpus-id\tscore"
    (folder / "test.tsv").write_text("\n".join([header, *dict.fromkeys(relevance)]))
    task = {
        "kind": "sentence-embedding",
        "data": {"source": "jsonl", "path": "pairs.jsonl"},
        "text_pair": "text_pair",
        "score": "score",
        "retrieval": {
            "corpus": "corpus.jsonl", "queries": "queries.jsonl", "relevance": "test.tsv",
        },
        "max_length": 24,
    }  # fmt: skip
    return {
        "name": "search",
        "ensemble": True,
        "objective": f"{HARMLESS}, ndcg_at_10 >= 1% of teacher",
        "task": task,
        "models": model_entries("encoder", "small-encoder"),
    }
