"""What a token classifier found in each sentence, and how that is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.errors import DataError
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import (
    Batch,
    Columns,
    Outcomes,
    RowAnswer,
    StoredOutcomes,
    Tensors,
    TextAnswer,
)
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.tasks.token_classification.encoding import DROPPED, TaggedDataset
from harness.tasks.token_classification.tags import NO_TAG, Entity, TagNames
from harness.types import ModelVariant, TensorSpec

Entities = tuple[frozenset[Entity], ...]


@rowwise
@dataclass(frozen=True, kw_only=True)
class TaggedOutcomes(Outcomes):
    """The entities found in each sentence, beside those that are there."""

    kind = "token-classification"

    entities: Entities = field(metadata=PER_ROW)
    """Found; none in an unanswered sentence."""
    true_entities: Entities = field(metadata=PER_ROW)
    tags: tuple[tuple[str, ...], ...] = field(metadata=PER_ROW)
    """Tag of each word by the checkpoint's names; empty for one without a token, or unanswered."""
    right_words: NDArray[np.int64] = field(metadata=PER_ROW)
    """Words with the right tag, (rows,)."""
    words: NDArray[np.int64] = field(metadata=PER_ROW)
    """Words that count: all but those that the tokenizer makes no token of, (rows,)."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether exactly the entities that are there were found, (rows,)."""
        pairs = zip(self.entities, self.true_entities, strict=True)
        right = np.array([found == true for found, true in pairs], dtype=np.bool_)
        return right & ~self.unanswered

    def columns(self) -> Columns:
        """Entities as JSON lists of type, first and last word; tags, and counts of words."""
        return {
            "tags": pa.array(self.tags, pa.list_(pa.string())),
            "entities": pa.array(map(_as_json, self.entities), pa.string()),
            "true_entities": pa.array(map(_as_json, self.true_entities), pa.string()),
            "right_words": pa.array(self.right_words),
            "words": pa.array(self.words),
            "correct": pa.array(self.correct),
        }


@dataclass(frozen=True)
class TagAnswer:
    """The likeliest tags that a batch was answered with."""

    tags: NDArray[np.int64]
    """Tag of every token, (n, length)."""
    usable: NDArray[np.bool_]
    """False where the score of some real token is not a number, (n,)."""


def read_tags(batch: Batch, outputs: Tensors) -> TagAnswer:
    """The answer in the output `logits`, (n, length, tags)."""
    logits = outputs["logits"]
    broken = np.isnan(logits).any(axis=-1) & (batch.group.inputs["attention_mask"] == 1)
    return TagAnswer(logits.argmax(axis=-1).astype(np.int64), ~broken.any(axis=1))


def compared_tags(batch: Batch, outputs: Tensors) -> list[RowAnswer]:
    """The tags and the scores of each row's real tokens."""
    logits, mask = outputs["logits"], batch.group.inputs["attention_mask"] == 1
    return [
        RowAnswer(row[real].argmax(axis=-1), row[real].astype(np.float64).ravel())
        for row, real in zip(logits, mask, strict=True)
    ]


def tagged_outcomes(
    variant: ModelVariant,
    dataset: TaggedDataset,
    replies: Iterable[tuple[Batch, TagAnswer | None]],
) -> TaggedOutcomes:
    """Every sentence's tags and entities."""
    names = (*dataset.model_tags.names, NO_TAG)
    tags = [(NO_TAG,) * len(pieces) for pieces in dataset.pieces]
    unanswered = np.ones(dataset.size, dtype=np.bool_)
    for batch, answer in replies:
        if answer is None:
            continue
        for place in np.flatnonzero(answer.usable).tolist():
            row = int(batch.rows[place])
            pieces = dataset.pieces[row]
            outputs = np.where(pieces < 0, len(names) - 1, answer.tags[place][pieces])
            tags[row] = tuple(names[output] for output in outputs.tolist())
            unanswered[row] = False
    read = dataset.model_tags
    found = tuple(
        _entities(read, one, pieces, strict=dataset.strict)
        for one, pieces in zip(tags, dataset.pieces, strict=True)
    )
    return made_outcomes(variant, dataset, tags, found, unanswered)


def _entities(
    read: TagNames, tags: tuple[str, ...], pieces: NDArray[np.int64], *, strict: bool
) -> frozenset[Entity]:
    """The entities of a sentence; a word that the tokenizer drops parts none in two."""
    there = np.flatnonzero(pieces != DROPPED).tolist()
    found = read.entities([tags[word] for word in there], strict=strict)
    return frozenset((kind, there[first], there[last]) for kind, first, last in found)


def made_outcomes(
    variant: ModelVariant,
    dataset: TaggedDataset,
    tags: Sequence[tuple[str, ...]],
    entities: Entities,
    unanswered: NDArray[np.bool_],
) -> TaggedOutcomes:
    """Outcomes of tags and the entities that they spell, beside the right ones."""
    right = [
        sum(own == true for own, true in zip(mine, theirs, strict=True))
        for mine, theirs in zip(tags, dataset.tags, strict=True)
    ]
    return TaggedOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=unanswered,
        entities=entities,
        true_entities=dataset.entities,
        tags=tuple(tags),
        right_words=np.array(right, dtype=np.int64),
        words=np.array([int((one != DROPPED).sum()) for one in dataset.pieces], dtype=np.int64),
    )


def span_answer(dataset: EncodedDataset) -> TextAnswer:
    """What an ensemble around a token classifier answers: SPANS, a JSON list of entities.

    Raises:
        DataError: nobody names the tags.
    """
    if not isinstance(dataset, TaggedDataset):
        raise DataError(
            "an ensemble answers with the types of entities, and the model's tags have no names",
            next_step="give the task's labels",
        )
    read = dataset.model_tags
    tags = [dict(zip(("prefix", "type"), read.parse(name), strict=True)) for name in read.names]
    return TextAnswer(
        outputs=(TensorSpec("SPANS", "BYTES", (1,)),),
        part="spans",
        parameters={"tags": json.dumps(tags)},
        takes_places=True,
    )


def span_outcomes(
    variant: ModelVariant,
    dataset: TaggedDataset,
    replies: Iterable[tuple[NDArray[np.int64], Tensors | None]],
) -> TaggedOutcomes:
    """Outcomes of an ensemble that answers with SPANS, (n, 1).

    An entity's first word is the one that holds its first character, its last the one that holds
    its last. A word that the model alone is not asked about has no tag here either.
    """
    found: list[frozenset[Entity]] = [frozenset()] * dataset.size
    tags = [(NO_TAG,) * len(words) for words in dataset.words]
    unanswered = np.ones(dataset.size, dtype=np.bool_)
    for rows, outputs in replies:
        if outputs is None:
            continue
        for row, said in zip(rows.tolist(), outputs["SPANS"].reshape(-1).tolist(), strict=True):
            words = dataset.words[row]
            found[row] = _by_words(words, json.loads(said))
            spelt = dataset.model_tags.write(list(found[row]), len(words))
            asked = (dataset.pieces[row] >= 0).tolist()
            pairs = zip(spelt, asked, strict=True)
            tags[row] = tuple(tag if known else NO_TAG for tag, known in pairs)
            unanswered[row] = False
    return made_outcomes(variant, dataset, tags, tuple(found), unanswered)


def _by_words(words: Sequence[str], spans: Iterable[Mapping[str, Any]]) -> frozenset[Entity]:
    """Spans of the words joined by spaces, as entities of words."""
    ends = np.cumsum([len(word) + 1 for word in words])
    return frozenset(
        (
            str(span["type"]),
            int(np.searchsorted(ends, span["start"], side="right")),
            int(np.searchsorted(ends, span["end"] - 1, side="right")),
        )
        for span in spans
    )


def restore_tags(stored: StoredOutcomes) -> TaggedOutcomes:
    """Read outcomes back."""
    return TaggedOutcomes(
        **stored.common,
        entities=tuple(map(_from_json, stored.rows("entities"))),
        true_entities=tuple(map(_from_json, stored.rows("true_entities"))),
        tags=tuple(map(tuple, stored.rows("tags"))),
        right_words=stored.array("right_words"),
        words=stored.array("words"),
    )


def _as_json(entities: frozenset[Entity]) -> str:
    return json.dumps(sorted(entities, key=lambda one: one[1:]), ensure_ascii=False)


def _from_json(text: str) -> frozenset[Entity]:
    return frozenset((str(kind), int(first), int(last)) for kind, first, last in json.loads(text))
