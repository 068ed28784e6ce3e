"""The task of a first study: its columns, its samples, and lengths that suit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from harness.errors import UsageError
from harness.flow.first_study.asked import FirstStudy, path_beside
from harness.flow.first_study.checkpoints import FoundCheckpoint
from harness.flow.first_study.columns import MEASURED_ROWS, SYNONYMS, Labels, find_columns
from harness.study.file import problems_of
from harness.tasks.family import AnyFamily
from harness.tasks.loading import load_samples
from harness.tasks.registry import family_of
from harness.tasks.rows import DataTable, begins_as_conll, read_table
from harness.tasks.samples import Samples
from harness.tasks.section import PaddedSection, TaskSection
from harness.tasks.tokenizers import load_tokenizer
from harness.words.numbers import count

_LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Padded lengths that are proposed."""
_LOOKED_AT = 4096
"""Bytes at the start of a file whose name does not say what it is."""


@dataclass(frozen=True)
class FoundTask:
    """The study's section of the task, and what was found for it."""

    written: Mapping[str, Any]
    """The section's keys and values as the study's file has them."""
    section: TaskSection
    samples: Samples
    table: DataTable
    lengths: str = ""
    """How many tokens the samples have, in words; empty where that was not asked."""


def find_task(asked: FirstStudy, teacher: FoundCheckpoint) -> FoundTask:
    """The columns, and the samples as the teacher's labels have them."""
    family = family_of(teacher.preview.family.kind)
    file = _data_file(asked.data, family)
    source = _source(file)
    common = {"kind": family.kind, "data": {"source": source, "path": str(file.resolve())}}
    blank = family.section.model_validate(common)
    table = read_table(blank.data, None)
    if family.kind == _SCORED and _is_of_prompts(table, asked):
        family = family_of(_WRITTEN)
        common["kind"] = family.kind
        blank = family.section.model_validate(common)
    labels = Labels(teacher.model.name, teacher.preview.label_names, asked.labels)
    own: dict[str, Any] = dict(
        find_columns(family, family.columns(blank), table, asked.columns or {}, labels)
    )
    own |= asked.settings
    if asked.labels:
        own["labels"] = list(asked.labels)
    beside = {key: value for key, value in family.beside(file).items() if key not in own}
    section = _section(family, common | own | beside)
    samples = load_samples(
        section,
        seed=0,
        label_names=teacher.preview.label_names,
        model=teacher.model.name,
        table=table,
    )
    data = {"source": source, "path": path_beside(file, asked.out)}
    files = {
        key: {name: path_beside(path, asked.out) for name, path in files.items()}
        for key, files in beside.items()
    }
    return FoundTask({"kind": family.kind, "data": data} | own | files, section, samples, table)


_SCORED, _WRITTEN = "causal-lm", "generation"
"""Kinds of task of a causal language model: how probable texts are to it, and what it writes."""


def _is_of_prompts(table: DataTable, asked: FirstStudy) -> bool:
    """Whether the rows are prompts, which a causal language model is to go on with."""
    named = asked.columns or {}
    columns = {one.casefold() for one in table.columns}
    answers = {"reference", *SYNONYMS["reference"]} & columns
    return bool({"prompt", "reference"} & set(named)) or (
        "text" not in named and "prompt" in columns and bool(answers)
    )


def _data_file(data: Path, family: AnyFamily) -> Path:
    """The file itself; of a folder the one whose rows such a task is asked."""
    if not data.is_dir():
        return data
    found = family.data_in(data)
    if found is None:
        raise UsageError(
            f"{data} is a folder, and a {family.kind} task has its rows in a file",
            next_step="name the CSV or JSON lines file: --data FILE",
        )
    return found


def _source(path: Path) -> str:
    """What a data file is, by its name; else by how it begins."""
    if not path.is_file():
        raise UsageError(
            f"no such data file: {path}", next_step="name a CSV or JSON lines file: --data FILE"
        )
    suffixes = {one.lower() for one in path.suffixes}
    for source, known in {
        "csv": {".csv"},
        "jsonl": {".jsonl", ".ndjson", ".json"},
        "conll": {".conll", ".conllu", ".bio", ".iob", ".iob2"},
    }.items():
        if suffixes & known:
            return source
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT).decode("utf-8-sig", errors="replace").lstrip()
    if start.startswith("{"):
        return "jsonl"
    return "conll" if begins_as_conll(start) else "csv"


def _section(family: AnyFamily, said: Mapping[str, Any]) -> TaskSection:
    """The task's section.

    Raises:
        UsageError: a setting that it does not have, or not like this.
    """
    try:
        section: TaskSection = family.section.model_validate(said)
    except ValidationError as error:
        raise UsageError(
            f"the task: {'; '.join(problems_of(error))}",
            next_step=f"the keys of a {family.kind} task: "
            f"{', '.join(sorted(family.section.model_fields))}",
        ) from error
    return section


def with_lengths(
    task: FoundTask, found: Sequence[FoundCheckpoint], teacher: FoundCheckpoint
) -> FoundTask:
    """Padded lengths that suit the data, and that every model has positions for.

    What a person said of them stays.
    """
    limit = min((one.positions for one in found if one.positions), default=_LENGTHS[-1])
    default = task.section.max_length
    in_windows = "doc_stride" in type(task.section).model_fields
    whole = isinstance(task.section, PaddedSection) and family_of(task.section).whole_texts
    if in_windows or not whole:
        bounded = {"max_length": min(default, limit)}
        if in_windows and limit < default:
            bounded["doc_stride"] = limit // 4
        if getattr(task.section, "max_new_tokens", 0) >= bounded["max_length"]:
            bounded["max_new_tokens"] = max(1, limit // 4)
        return replace(task, written=_beside_what_is_said(bounded, task.written))
    limit = max(_longest(task, one, limit) for one in found)
    tokens = _count_tokens(task, teacher)
    typical, longest = (int(np.quantile(tokens, share)) for share in (0.5, 0.99))
    most = min(next((one for one in _LENGTHS if one >= longest), _LENGTHS[-1]), limit)
    if {"max_length", "length_buckets"} & set(task.written):
        most = task.section.max_length
    shorter = [one for one in _LENGTHS if typical <= one < most]
    buckets = [*shorter[:2], most]
    own = {"max_length": most} | ({"length_buckets": buckets} if len(buckets) > 1 else {})
    written = _beside_what_is_said(own, task.written)
    return replace(task, written=written, lengths=length_words(tokens, most))


def _beside_what_is_said(found: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A section's keys that are said already, then those that were found and are not."""
    return {**said, **{key: value for key, value in found.items() if key not in said}}


def _longest(task: FoundTask, one: FoundCheckpoint, limit: int) -> int:
    """Tokens of the longest text that a checkpoint's own settings allow, `limit` at most."""
    asked = task.section.model_copy(update={"max_length": limit, "length_buckets": None})
    return family_of(task.section).longest_text(asked, one.checkpoint.folder)


def _count_tokens(task: FoundTask, teacher: FoundCheckpoint) -> NDArray[np.int64]:
    """Tokens of samples from all over the data, by the teacher's tokenizer, special ones too."""
    family, folder = family_of(task.section), teacher.checkpoint.folder
    tokenizer = load_tokenizer(folder)
    size = len(task.samples.texts)
    rows = np.unique(np.linspace(0, size - 1, min(size, MEASURED_ROWS)).astype(int)).tolist()
    counts = family.token_counts(task.section, task.samples, rows, tokenizer, folder)
    return np.array(counts, dtype=np.int64)


def length_words(tokens: NDArray[np.int64], most: int) -> str:
    """How many tokens texts have, and how many of them are cut at `most`."""
    shares = (0.5, 0.95, 1.0)
    half, usual, longest = np.quantile(tokens, shares, method="inverted_cdf").tolist()
    words = f"half have at most {half} tokens, 95% at most {usual}, the longest {longest}"
    cut = int((tokens > most).sum())
    return words + (f"; {count(cut)} of {count(len(tokens))} are cut" if cut else "")
