"""The rows of sentence embeddings: their section of the study, texts read once and encoded."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator, model_validator

from harness.errors import CheckpointError
from harness.system.strict import PositiveInt, Strict, resolve
from harness.tasks.encoding import EncodedDataset, encode_texts, fields_of
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, read_table, read_text, refuse
from harness.tasks.rowwise import OF_ALL, cut_by, rowwise
from harness.tasks.samples import Samples, digest_of, draw, read_texts
from harness.tasks.section import JsonLinesData, PaddedSection
from harness.tasks.sentence_embedding.modules import (
    EmbeddingModules,
    Similarity,
    read_modules,
)
from harness.tasks.tokenizers import PROBE_TEXTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RetrievalData(Strict):
    """A small retrieval set in the files of BEIR."""

    corpus: Path = Field(description="JSON lines with _id, text and perhaps title.")
    queries: Path = Field(description="JSON lines with _id and text.")
    relevance: Path = Field(
        description="Which document answers which query: tab-separated query-id, corpus-id, score "
        "with a header (BEIR's qrels), or TREC's four columns."
    )

    @field_validator("corpus", "queries", "relevance")
    @classmethod
    def _file_exists(cls, path: Path, info: ValidationInfo) -> Path:
        resolved = resolve(path, info)
        if not resolved.is_file():
            raise ValueError(f"no such data file: {resolved}")
        return resolved


class SentenceEmbedding(PaddedSection):
    """A vector for each text, judged by pairs with a score, by retrieval, or by the teacher's."""

    kind: Literal["sentence-embedding"]
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    score: str | None = Field(
        None,
        description="Column of the similarity of the two: a number, higher is more similar (STS).",
    )
    retrieval: RetrievalData | None = Field(
        None, description="Queries, documents, and which of them answer which."
    )
    pooling: Literal["mean", "cls", "max", "last"] | None = Field(
        None,
        description="How token vectors become the text's, of checkpoints without modules.json; "
        "default: what the checkpoint's own files say.",
    )
    normalised: bool | None = Field(
        None, description="Whether vectors have length 1, of checkpoints without modules.json."
    )
    max_length: PositiveInt = Field(
        256,
        description="Tokens; longer texts are truncated, where a checkpoint's own max_seq_length "
        "is less to that.",
    )
    samples: PositiveInt | None = Field(
        None, description="At most this many pairs (or texts) of `data`, drawn with the seed."
    )

    @model_validator(mode="after")
    def _score_is_of_a_pair(self) -> Self:
        if (self.score is None) != (self.text_pair is None):
            raise ValueError("'text_pair' and 'score' belong together: name both columns, or none")
        if self.slices:
            raise ValueError("'slices' are of rows with an answer, which an embedding is not")
        return self


@dataclass(frozen=True)
class ScoredPairs:
    """Which texts are compared, and how alike people find them."""

    first: tuple[int, ...]
    """Positions among the texts."""
    second: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Retrieval:
    """A retrieval set; positions are among the texts."""

    queries: tuple[int, ...]
    documents: tuple[int, ...]
    relevance: tuple[Mapping[int, float], ...]
    """For each query, the relevance above 0 by index of the document in `documents`."""
    left_out: tuple[int | None, ...]
    """For each query, the index of the document with the same id."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingSamples(Samples):
    """Every text that is asked, each once for each role that it has."""

    roles: tuple[str, ...]
    """For each text: `text`, `query` or `document`; prompts depend on it."""
    scored: ScoredPairs | None
    retrieval: Retrieval | None

    @property
    def identity(self) -> tuple[Hashable, ...]:
        """The digest is of all that the data has."""
        return (self.digest, self.seed)


class _Texts:
    """Texts in the order they were first asked for."""

    def __init__(self) -> None:
        self.place: dict[tuple[str, str], int] = {}

    def add(self, text: str, role: str) -> int:
        return self.place.setdefault((text, role), len(self.place))


def read_embeddings(task: SentenceEmbedding, reading: Reading) -> EmbeddingSamples:
    """Read, check and draw pairs or texts, and the retrieval set where there is one.

    Raises:
        DataError: with every problem of a file.
    """
    table = reading.table
    names = [task.text, *([task.text_pair] if task.text_pair else [])]
    columns = read_texts(table, names)
    scores = _scores(table, task.score) if task.score else None
    kept = draw(len(columns[0]), task.samples, reading.seed)
    texts = _Texts()
    places = [[texts.add(column[row], "text") for row in kept] for column in columns]
    scored = None
    if scores is not None:
        scored = ScoredPairs(tuple(places[0]), tuple(places[1]), tuple(scores[row] for row in kept))
        _check_scores(table, task, scored)
    retrieval = read_retrieval(task.retrieval, texts) if task.retrieval else None
    asked = list(texts.place)
    return EmbeddingSamples(
        texts=tuple(text for text, _ in asked),
        pairs=None,
        digest=digest_of(
            asked,
            (scored.first, scored.second, scored.scores) if scored else None,
            (retrieval.queries, retrieval.documents, retrieval.relevance, retrieval.left_out)
            if retrieval
            else None,
        ),
        rows=tuple(range(len(asked))),
        seed=reading.seed,
        roles=tuple(role for _, role in asked),
        scored=scored,
        retrieval=retrieval,
    )


def _scores(table: DataTable, column: str) -> list[float]:
    found: list[float] = []
    problems = []
    for row, values in enumerate(table.rows):
        value = values.get(column)
        number = number_of(value)
        if number is None:
            problems.append(f"{table.place(row)}: '{column}' is not a number: {value!r}"[:120])
        found.append(math.nan if number is None else number)
    refuse(table.source, problems)
    return found


def number_of(value: object) -> float | None:
    """A finite number, also where it is written as a text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _check_scores(table: DataTable, task: SentenceEmbedding, scored: ScoredPairs) -> None:
    if len(set(scored.scores)) < 2:  # noqa: PLR2004  (ranks need two)
        refuse(table.source, [f"every '{task.score}' is the same: nothing can be ranked by it"])
    if len(scored.scores) < 3:  # noqa: PLR2004  (two are always in order, or in the reverse)
        refuse(table.source, ["there are two pairs, and a rank correlation needs three"])


def read_retrieval(data: RetrievalData, texts: _Texts) -> Retrieval:
    """Read a retrieval set in BEIR's files; queries that no document answers are left out.

    Raises:
        DataError: with every problem of a file.
    """
    documents = _texts_by_id(data.corpus, titled=True)
    queries = _texts_by_id(data.queries, titled=False)
    place = {name: number for number, name in enumerate(documents)}
    relevance = _relevance(data.relevance, queries, place)
    asked = [name for name in queries if relevance.get(name)]
    if not asked:
        refuse(str(data.relevance), ["no query has a document of relevance above 0"])
    return Retrieval(
        queries=tuple(texts.add(queries[name], "query") for name in asked),
        documents=tuple(texts.add(text, "document") for text in documents.values()),
        relevance=tuple(relevance[name] for name in asked),
        left_out=tuple(place.get(name) for name in asked),
    )


def _texts_by_id(path: Path, *, titled: bool) -> dict[str, str]:
    table = read_table(JsonLinesData(source="jsonl", path=path), None)
    found: dict[str, str] = {}
    problems = []
    for row, values in enumerate(table.rows):
        name, text = values.get("_id"), values.get("text")
        title = values.get("title") or "" if titled else ""
        if not isinstance(name, str | int) or not isinstance(text, str):
            problems.append(f"{table.place(row)}: '_id' and 'text' are not both there")
        elif str(name) in found:
            problems.append(f"{table.place(row)}: a second text has the _id {name}")
        else:
            whole = f"{title} {text}".strip()
            if not whole:
                problems.append(f"{table.place(row)}: the text of {name} is empty")
            found[str(name)] = whole
    refuse(table.source, problems, next_step="BEIR's files hold _id and text in each line")
    return found


_LINE_END = re.compile(r"\r\n|\r|\n")


def _relevance(
    path: Path, queries: Mapping[str, str], documents: Mapping[str, int]
) -> dict[str, dict[int, float]]:
    """For each query, the relevance above 0 by index of the document."""
    found: dict[str, dict[int, float]] = {}
    problems = []
    # Not `splitlines`: an id may hold what Unicode calls the end of a line.
    for line, content in enumerate(_LINE_END.split(read_text(path)), 1):
        fields = content.split("\t") if "\t" in content else content.split()
        whole = len(fields) in {3, 4}
        if not fields or (line == 1 and whole and not _is_number(fields[-1])):
            continue
        if not whole or not _is_number(fields[-1]):
            problems.append(f"line {line}: {content[:60]!r} is not a query, document and score")
            continue
        query, document, score = fields[0], fields[-2], float(fields[-1])
        if query not in queries:
            problems.append(f"line {line}: no query has the _id {query}")
        elif document not in documents:
            problems.append(f"line {line}: no document has the _id {document}")
        elif score > 0:
            found.setdefault(query, {})[documents[document]] = score
    refuse(
        str(path),
        problems,
        next_step="each line holds query-id, corpus-id and score between tabs, as BEIR's qrels",
    )
    return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def with_prompts(samples: EmbeddingSamples, prompts: Mapping[str, str]) -> tuple[str, ...]:
    """The texts as a checkpoint is asked them: behind the prompt of their role."""
    return tuple(
        prompts[role] + text for text, role in zip(samples.texts, samples.roles, strict=True)
    )


def _places(rows: NDArray[np.int64]) -> dict[int, int]:
    return {old: new for new, old in enumerate(rows.tolist())}


def _scored_among(dataset: EmbeddingDataset, rows: NDArray[np.int64]) -> ScoredPairs | None:
    """The pairs of which both texts are taken; None where there are none."""
    if dataset.scored is None:
        return None
    place = _places(rows)
    pairs = zip(dataset.scored.first, dataset.scored.second, dataset.scored.scores, strict=True)
    kept = [(place[a], place[b], score) for a, b, score in pairs if a in place and b in place]
    if not kept:
        return None
    first, second, scores = zip(*kept, strict=True)
    return ScoredPairs(first, second, scores)


def _retrieval_among(dataset: EmbeddingDataset, rows: NDArray[np.int64]) -> Retrieval | None:
    """The whole retrieval set; None where a query or document is not taken."""
    one, place = dataset.retrieval, _places(rows)
    if one is None or not all(text in place for text in (*one.queries, *one.documents)):
        return None
    return replace(
        one,
        queries=tuple(place[text] for text in one.queries),
        documents=tuple(place[text] for text in one.documents),
    )


@rowwise
@dataclass(frozen=True, kw_only=True)
class EmbeddingDataset(EncodedDataset):
    """The encoded texts, and what their vectors are judged by."""

    scored: ScoredPairs | None = field(metadata=cut_by(_scored_among))
    retrieval: Retrieval | None = field(metadata=cut_by(_retrieval_among))
    similarity: Similarity = field(metadata=OF_ALL)
    """The similarity that ranks documents."""


def modules_of(task: SentenceEmbedding, folder: Path) -> EmbeddingModules:
    """A checkpoint's way from token vectors to the text's.

    Raises:
        CheckpointError: a module that is not known here, or no word on the pooling.
    """
    return read_modules(folder, pooling=task.pooling, normalised=task.normalised)


def encode_embeddings(
    task: SentenceEmbedding,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    inputs: ModelInputs,
) -> EmbeddingDataset:
    """Texts as tensors.

    Raises:
        DataError: they cannot be encoded.
        CheckpointError: the checkpoint's modules are not known here.
    """
    modules = modules_of(task, Path(tokenizer.name_or_path))
    _check_case(modules, tokenizer)
    shorter = task.model_copy(update={"max_length": longest(task, modules)})
    own = samples if isinstance(samples, EmbeddingSamples) else None
    asked = replace(own, texts=with_prompts(own, prompts(modules))) if own else samples
    encoded = encode_texts(shorter, asked, tokenizer, inputs, buckets=task.buckets)
    return EmbeddingDataset(
        **fields_of(encoded),
        scored=own.scored if own else None,
        retrieval=own.retrieval if own else None,
        similarity=modules.similarity,
    )


def longest(task: SentenceEmbedding, modules: EmbeddingModules) -> int:
    """Tokens of a text: the task's max_length, or the checkpoint's own where that is less."""
    return min(task.max_length, modules.max_length or task.max_length)


def prompts(modules: EmbeddingModules) -> dict[str, str]:
    """What stands before a text of each role."""
    return {
        "text": modules.prompt,
        "query": modules.query_prompt,
        "document": modules.document_prompt,
    }


def _check_case(modules: EmbeddingModules, tokenizer: PreTrainedTokenizerBase) -> None:
    lowered = all(
        tokenizer(text)["input_ids"] == tokenizer(text.lower())["input_ids"] for text in PROBE_TEXTS
    )
    if modules.lower_case and not lowered:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: sentence_bert_config.json says do_lower_case, and its "
            "tokenizer tells upper from lower case",
            next_step="save it with a tokenizer that lowers texts itself",
        )
