"""Which columns of a data file are two texts and how alike they are; a retrieval set beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.errors import DataError
from harness.tasks.rows import DataTable
from harness.tasks.sentence_embedding.rows import number_of

SCORES = (
    "score", "similarity", "similarity_score", "relatedness_score", "relatedness", "label",
    "gold", "rating",
)  # fmt: skip
"""What the column is called elsewhere, the likeliest first."""
RELEVANCE = ("qrels/test.tsv", "qrels/dev.tsv", "qrels.tsv", "test.tsv", "relevance.tsv")
"""File names under which BEIR's sets and others keep which document answers which query."""
_SAMPLE = 500


def recognise_score(table: DataTable, named: Mapping[str, str]) -> dict[str, str]:
    """The column of the pairs' scores, where the data has pairs.

    Args:
        table: the data.
        named: columns that are known already: `text` and `text_pair` of pairs.

    Raises:
        DataError: there are two texts, and no column or several tell how alike they are.
    """
    if not {"text", "text_pair"} & set(named):
        named = {**named, **_two_texts(table)}
    if "text_pair" not in named or "score" in named:
        return dict(named)
    taken = set(named.values())
    numbers = [one for one in table.columns if one not in taken and _holds_numbers(table, one)]
    usual = [one for one in SCORES if one in numbers]
    found = usual[:1] or numbers
    if len(found) == 1:
        return {**named, "score": found[0]}
    pair = f"{named['text']} and {named['text_pair']}"
    told = f"{', '.join(found)} all hold numbers" if found else "no column holds numbers"
    raise DataError(
        f"{table.source}: {pair} are two texts, and which column says how alike they are cannot "
        f"be told: {told}",
        next_step="name it: --column score=COLUMN; or take one of the texts alone: "
        f"--column text={named['text']}",
    )


def _two_texts(table: DataTable) -> dict[str, str]:
    """The only two columns of texts, where a column with a score's name holds numbers."""
    if not any(one in table.columns and _holds_numbers(table, one) for one in SCORES):
        return {}
    texts = [one for one in table.columns if _holds_texts(table, one)]
    return dict(zip(("text", "text_pair"), texts, strict=True)) if len(texts) == 2 else {}  # noqa: PLR2004


def _holds_texts(table: DataTable, column: str) -> bool:
    """Whether most rows hold several words."""
    values = [row.get(column) for row in table.rows[:_SAMPLE]]
    several = [isinstance(value, str) and len(value.split()) > 1 for value in values]
    return 2 * sum(several) > len(several)


def _holds_numbers(table: DataTable, column: str) -> bool:
    values = [number_of(row.get(column)) for row in table.rows[:_SAMPLE]]
    return all(value is not None for value in values)


def queries_in(folder: Path) -> Path | None:
    """The queries of a folder with a retrieval set."""
    return folder / "queries.jsonl" if retrieval_beside(folder / "queries.jsonl") else None


def retrieval_beside(data: Path) -> dict[str, dict[str, Path]]:
    """The task's `retrieval`, where the files of BEIR lie beside the data; else nothing."""
    folder = data.parent
    corpus, queries = folder / "corpus.jsonl", folder / "queries.jsonl"
    relevance = next((folder / one for one in RELEVANCE if (folder / one).is_file()), None)
    if relevance is None or not (corpus.is_file() and queries.is_file()):
        return {}
    return {"retrieval": {"corpus": corpus, "queries": queries, "relevance": relevance}}
