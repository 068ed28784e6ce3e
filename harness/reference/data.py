"""The data folder of a family: its splits, its tokenizer, its TF-IDF yardstick."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.errors import MissingExtraError
from harness.reference.corpus import Split, build_prose, package_folder, read_sources
from harness.reference.recipes import (
    PROSE_LENGTH,
    PROSE_VOCABULARY,
    TOPICS_LENGTH,
    TOPICS_VOCABULARY,
)
from harness.reference.topics import build_topics
from harness.reference.vocabulary import train_classifier_tokenizer, train_language_tokenizer

INVERSE_REGULARISATION = 10.0
MAXIMUM_ITERATIONS = 300


def predict_baseline(
    train_texts: Sequence[str], train_labels: Sequence[str], test_texts: Sequence[str]
) -> list[str]:
    """Predicted class names, aligned with `test_texts`; deterministic (no random solver).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "export") from error
    pipeline = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2),
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAXIMUM_ITERATIONS),
    )
    pipeline.fit(list(train_texts), list(train_labels))
    return [str(label) for label in pipeline.predict(list(test_texts))]


BASELINE_FILE = "baseline.json"


def split_file(data: Path, split: Split) -> Path:
    """Where a split's rows lie."""
    return data / f"{split}.jsonl"


def tokenizer_folder(data: Path) -> Path:
    """Where the family's tokenizer lies."""
    return data / "tokenizer"


def read_rows(data: Path, split: Split) -> list[dict[str, str]]:
    """A split's rows as they stand in the file."""
    with split_file(data, split).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_topics(folder: Path, *, seed: int) -> None:
    """Writes the classification task into an existing folder."""
    splits = build_topics(read_sources(package_folder()), seed=seed)
    for split, rows in splits.items():
        _write_rows(
            split_file(folder, split), ({"text": row.text, "label": row.label} for row in rows)
        )
    train = splits[Split.TRAIN]
    texts = [row.text for row in train]
    train_classifier_tokenizer(
        texts, vocabulary=TOPICS_VOCABULARY, max_length=TOPICS_LENGTH
    ).save_pretrained(tokenizer_folder(folder))
    predictions = predict_baseline(
        texts, [row.label for row in train], [row.text for row in splits[Split.TEST]]
    )
    (folder / BASELINE_FILE).write_text(json.dumps(predictions), encoding="utf-8")


def write_prose(folder: Path) -> None:
    """Writes the language task into an existing folder."""
    splits = build_prose(read_sources(package_folder()))
    for split, texts in splits.items():
        _write_rows(split_file(folder, split), ({"text": text} for text in texts))
    train_language_tokenizer(
        splits[Split.TRAIN], vocabulary=PROSE_VOCABULARY, max_length=PROSE_LENGTH
    ).save_pretrained(tokenizer_folder(folder))


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
