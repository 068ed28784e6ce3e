"""A first study, written from checkpoints and a data file: what is found in them, and where.

Everything that the file says is looked up rather than asked for: the kind of task in the
checkpoints' configurations, the columns by their names and by what they hold, the lengths by the
teacher's tokenizer, the teacher by its size. The text is then read back and checked as
`harness run` checks it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from harness.errors import ObjectiveError, StudyError, UsageError
from harness.export.checkpoint import (
    Checkpoint,
    CheckpointPreview,
    inspect_checkpoint,
    open_checkpoint,
)
from harness.export.configuration import positions_held, read_config
from harness.flow.inputs import check_inputs
from harness.metrics import quality_metrics
from harness.study import Model, Study
from harness.study.file import parse_study, problems_of
from harness.study.objective import EXAMPLE, parse_objective
from harness.system.storage import replace_text
from harness.tasks.labels import choose_reading
from harness.tasks.loading import load_samples
from harness.tasks.registry import family_of
from harness.tasks.rows import DataTable, read_table
from harness.tasks.samples import Samples
from harness.tasks.section import PaddedSection, TaskSection
from harness.tasks.tokenizers import load_tokenizer
from harness.types import Role

MEASURED_ROWS = 2000
"""How many of the data's first samples have their tokens counted."""
_LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Padded lengths that are proposed."""
_NAME = re.compile(r"[^a-z0-9._-]+")
_SHOWN = 8

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "review", "content", "body", "message", "document", "comment"),
    "label": ("label", "labels", "class", "category", "target", "sentiment", "topic", "kind"),
    "question": ("question", "query"),
    "context": ("context", "passage", "paragraph"),
    "answers": ("answers", "answer"),
    "tokens": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "labels"),
    "score": ("score", "similarity", "label"),
}
"""What columns are called elsewhere, by a section's key; the section's own default comes first."""
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("question", "passage"), ("query", "passage"),
    ("query", "document"), ("text1", "text2"), ("text_a", "text_b"), ("text", "text_pair"),
    ("first", "second"), ("anchor", "positive"),
)  # fmt: skip
"""Columns that are the two texts of a pair where both are there."""


@dataclass(frozen=True)
class FirstStudy:
    """What a person says of the study that is to be written."""

    checkpoints: tuple[str, ...]
    """Folders, or names on the hub."""
    data: Path
    out: Path
    """The study's file; it must not be there."""
    teacher: str | None = None
    """One of the checkpoints; None takes the largest by parameters."""
    columns: Mapping[str, str] | None = None
    """Columns by the task's key (`text`, `label`, ...), where the guess would be another."""
    labels: tuple[str, ...] = ()
    """Names of the classes in the data's order, where the checkpoints do not name them."""
    objective: str | None = None


@dataclass(frozen=True)
class _Found:
    """A checkpoint that was looked at."""

    model: Model
    written: str
    """The checkpoint, as the study names it."""
    preview: CheckpointPreview
    checkpoint: Checkpoint
    positions: int | None
    """Tokens that it takes; None without a limit."""


def write_first_study(asked: FirstStudy) -> tuple[Study, str]:
    """Look at checkpoints and data, and write a study of them.

    Returns:
        The study as it reads back, checked, and its text.

    Raises:
        UsageError: the file is there already; or the first problem of checkpoints, data, columns
            and labels, with what to do.
        StorageError: the file cannot be written.
    """
    if asked.out.exists():
        raise UsageError(
            f"{asked.out} is there already, and nothing is overwritten",
            next_step="name another file: --out OTHER.yaml",
        )
    _check_objective(asked.objective)
    try:
        found = _opened(asked)
        teacher = _teacher(found, asked)
        task = _task(asked, teacher)
        task = _with_lengths(task, found, teacher)
        text = _text(asked, found, teacher, task)
        study = _checked(asked, text)
    except UsageError as error:
        raise UsageError(_first_line(error), next_step=_next_step(error)) from error
    replace_text(asked.out, text)
    return study, text


def _check_objective(objective: str | None) -> None:
    """Raises UsageError, in one line, before any checkpoint is opened."""
    try:
        parse_objective(objective or EXAMPLE)
    except ObjectiveError as error:
        problem, *_, expected = (line.strip() for line in str(error).splitlines())
        raise UsageError(
            f"--slo {objective}: {problem}; {expected}", next_step=error.next_step
        ) from error


def _opened(asked: FirstStudy) -> list[_Found]:
    """Every checkpoint, in the order given."""
    names = _distinct_names([Path(one).name for one in asked.checkpoints])
    found: list[_Found] = []
    for name, given in zip(names, asked.checkpoints, strict=True):
        _check_folder(given)
        written = _beside(Path(given), asked.out) if Path(given).is_dir() else given
        location = str(Path(given).resolve()) if Path(given).is_dir() else given
        model = Model(name=name, role=Role.STUDENT, checkpoint=location)
        preview = inspect_checkpoint(model, None)
        if found and preview.family.kind != found[0].preview.family.kind:
            first = found[0]
            raise UsageError(
                f"{given} does {preview.family.kind}, and {first.model.checkpoint} does "
                f"{first.preview.family.kind}: a family of models has one task",
                next_step="write one study for each kind of model",
            )
        checkpoint = open_checkpoint(model, folder=None)
        positions = positions_held(read_config(model, checkpoint.folder))
        found.append(_Found(model, written, preview, checkpoint, positions))
    return found


def _check_folder(given: str) -> None:
    """Raises UsageError for a path that is not a checkpoint; a hub name is asked for elsewhere."""
    path = Path(given)
    if not path.exists() and not given.startswith((".", "/", "~")):
        return
    if (path / "config.json").is_file():
        return
    step = "name the folder that save_pretrained wrote, which holds config.json; or a hub name"
    if path.is_file():
        raise UsageError(f"{given} is a file, and a checkpoint is a folder", next_step=step)
    if not path.is_dir():
        raise UsageError(f"no such folder: {given}", next_step=step)
    inner = sorted(one.parent.name for one in path.glob("*/config.json"))
    if inner:
        step = f"name one of the folders in it: {_listed(inner)}"
    raise UsageError(f"no checkpoint there: {given} has no config.json", next_step=step)


def _distinct_names(names: Sequence[str]) -> list[str]:
    """Names that a study takes, each once: `a`, `a-2`."""
    plain = [_NAME.sub("-", name.lower()).strip("-._")[:56] or "model" for name in names]
    times: Counter[str] = Counter()
    distinct = []
    for name in plain:
        times[name] += 1
        distinct.append(name if times[name] == 1 else f"{name}-{times[name]}")
    return distinct


def _beside(path: Path, out: Path) -> str:
    """A path as the study's file names it: relative to its folder, or whole where it is far."""
    relative = Path(os.path.relpath(path.resolve(), out.resolve().parent))
    if relative.parts[:2] == ("..", ".."):
        return str(path.resolve())
    return str(relative) if relative.parts[:1] == ("..",) else f"./{relative}"


def _teacher(found: Sequence[_Found], asked: FirstStudy) -> _Found:
    if asked.teacher is None:
        return max(found, key=lambda one: one.checkpoint.parameters)
    for one, given in zip(found, asked.checkpoints, strict=True):
        if asked.teacher in {given, one.model.name}:
            return one
    raise UsageError(
        f"the teacher {asked.teacher} is none of the checkpoints",
        next_step=f"name one of: {', '.join(asked.checkpoints)}",
    )


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
        return "jsonl" if file.read(1) == b"{" else "csv"


@dataclass(frozen=True)
class _Task:
    """The study's section of the task, and what was found for it."""

    written: Mapping[str, Any]
    """The checkpoint's entry as the study writes it."""
    section: TaskSection
    samples: Samples
    table: DataTable
    lengths: str = ""
    """How many tokens the samples have, in words; empty where that was not asked."""


def _task(asked: FirstStudy, teacher: _Found) -> _Task:
    """The columns, and the samples as the teacher's labels have them."""
    family = family_of(teacher.preview.family.kind)
    source = _source(asked.data)
    common = {"kind": family.kind, "data": {"source": source, "path": str(asked.data.resolve())}}
    blank = family.section.model_validate(common)
    table = read_table(blank.data, None)
    own: dict[str, Any] = _columns(asked, family.columns(blank), table, teacher)
    if asked.labels:
        own["labels"] = list(asked.labels)
    try:
        section = family.section.model_validate(common | own)
    except ValidationError as error:
        raise UsageError(
            f"{table.source}: {'; '.join(problems_of(error))}",
            next_step=f"say the columns: --column KEY=COLUMN, with KEY one of {', '.join(own)}",
        ) from error
    samples = load_samples(
        section,
        seed=0,
        label_names=teacher.preview.label_names,
        model=teacher.model.name,
        table=table,
    )
    data = {"source": source, "path": _beside(asked.data, asked.out)}
    return _Task({"kind": family.kind, "data": data} | own, section, samples, table)


def _columns(
    asked: FirstStudy, keys: Mapping[str, str | None], table: DataTable, teacher: _Found
) -> dict[str, Any]:
    """The column of each of the task's keys; of a column for each label, all of them.

    Raises:
        UsageError: a key or column that does not exist, or a key for which no column is found.
    """
    said = dict(asked.columns or {})
    unknown = [f"{key}={column}" for key, column in said.items() if key not in keys]
    absent = [f"{key}={one}" for key, one in said.items() if one not in table.columns]
    if unknown or absent:
        raise UsageError(
            f"--column {(unknown or absent)[0]}: "
            + ("the task has no such key" if unknown else "the data has no such column"),
            next_step=f"KEY is one of {', '.join(keys)}; COLUMN one of {', '.join(table.columns)}",
        )
    if "text_pair" in keys and not {"text", "text_pair"} & set(said):
        pair = next((pair for pair in PAIRS if set(pair) <= set(table.columns)), None)
        said |= dict(zip(("text", "text_pair"), pair, strict=True)) if pair else {}
    labels = _label_columns(said, table, teacher)
    for key, default in keys.items():
        if key in said or (labels and key == "label"):
            continue
        taken = set(said.values()) | set(labels)
        if default is not None:
            said[key] = _column(key, default, table, teacher, asked, taken)
        elif key == "score" and "text_pair" in said:
            said[key] = _column(key, key, table, teacher, asked, taken)
    found: dict[str, Any] = {key: said[key] for key in keys if key in said}
    return found | ({"label_columns": labels} if labels else {})


def _label_columns(said: Mapping[str, str], table: DataTable, teacher: _Found) -> list[str]:
    """One column for each of the labels of a task that may give several; none where they lack."""
    names = teacher.preview.label_names or ()
    several = "label_columns" in family_of(teacher.preview.family.kind).section.model_fields
    whole = bool(names) and set(names) <= set(table.columns)
    return list(names) if several and whole and "label" not in said else []


def _column(
    key: str, default: str, table: DataTable, teacher: _Found, asked: FirstStudy, taken: set[str]
) -> str:
    """By its name; a label else by fitting the teacher's classes, a text by its length."""
    free = [one for one in table.columns if one not in taken]
    by_name = {one.casefold(): one for one in reversed(free)}
    for name in (default, *SYNONYMS.get(key, ())):
        if name in by_name:
            return by_name[name]
    if key == "label":
        fitting = [one for one in free if _fits(table, one, teacher, asked)]
        if len(fitting) == 1:
            _check_header(table, fitting[0])
            return fitting[0]
    if key in {"label", "score"}:
        numbers = [one for one in free if _is_numeric(table, one)]
        if teacher.preview.label_names is None and len(numbers) == 1:
            return numbers[0]
    if key == "text":
        lengths = {one: _mean_length(table, one) for one in free}
        longest = max(lengths, key=lambda one: lengths[one], default="")
        if lengths.get(longest):
            return longest
    raise UsageError(
        f"{table.source}: which column is the task's '{key}' cannot be told; its columns are "
        f"{', '.join(table.columns)}",
        next_step=f"say it: --column {key}=COLUMN",
    )


def _fits(table: DataTable, column: str, teacher: _Found, asked: FirstStudy) -> bool:
    """Whether a column holds nothing but the teacher's classes."""
    names = teacher.preview.label_names
    values = [row.get(column) for row in table.rows]
    if names is None or any(isinstance(value, list | dict) for value in values):
        return False
    reading = choose_reading(values, teacher.model.name, names, order=asked.labels or None)
    distinct = {(type(value), value): value for value in values}.values()
    return not reading.problem and all(reading.reader.read(one) is not None for one in distinct)


def _check_header(table: DataTable, column: str) -> None:
    """Raises UsageError where a column that was found by its values is called like one of them."""
    if any(row.get(column) == column for row in table.rows):
        raise UsageError(
            f"{table.source}: the first line should name the columns, and '{column}' there is "
            "also a value of its column: is the line missing?",
            next_step=f"put one above it, such as text,label; or say --column label={column}",
        )


def _is_numeric(table: DataTable, column: str) -> bool:
    """Whether a column holds nothing but numbers, not all of them whole: no ids."""
    try:
        values = [float(str(row.get(column))) for row in table.rows]
    except ValueError:
        return False
    return not all(value.is_integer() for value in values)


def _mean_length(table: DataTable, column: str) -> float:
    """Mean length in characters; 0 for a column that is not all text, or is all numbers."""
    values = [row.get(column) for row in table.rows[:MEASURED_ROWS]]
    if not all(isinstance(value, str) for value in values):
        return 0.0
    if not any(letter.isalpha() for value in values for letter in str(value)):
        return 0.0
    return float(np.mean([len(str(value)) for value in values]))


def _with_lengths(task: _Task, found: Sequence[_Found], teacher: _Found) -> _Task:
    """Padded lengths that suit the data, and that every model has positions for."""
    limit = min((one.positions for one in found if one.positions), default=_LENGTHS[-1])
    default = task.section.max_length
    in_windows = "doc_stride" in type(task.section).model_fields
    whole = isinstance(task.section, PaddedSection) and family_of(task.section).whole_texts
    if in_windows or not whole:
        bounded = {"max_length": min(default, limit)}
        if in_windows and limit < default:
            bounded["doc_stride"] = limit // 4
        return replace(task, written={**task.written, **bounded})
    tokens = _count_tokens(task.samples, teacher)
    typical, longest = (int(np.quantile(tokens, share)) for share in (0.5, 0.99))
    most = min(next((one for one in _LENGTHS if one >= longest), _LENGTHS[-1]), limit)
    shorter = [one for one in _LENGTHS if typical <= one < most]
    buckets = [*shorter[:2], most]
    own = {"max_length": most} | ({"length_buckets": buckets} if len(buckets) > 1 else {})
    return replace(task, written={**task.written, **own}, lengths=_length_words(tokens, most))


def _count_tokens(samples: Samples, teacher: _Found) -> NDArray[np.int64]:
    """Token counts of the first samples, by the teacher's tokenizer, special tokens included."""
    tokenizer = load_tokenizer(teacher.checkpoint.folder)
    texts = list(samples.texts[:MEASURED_ROWS])
    pairs = None if samples.pairs is None else list(samples.pairs[:MEASURED_ROWS])
    encoded = tokenizer(texts, pairs, truncation=False, verbose=False)["input_ids"]
    return np.array([len(ids) for ids in encoded], dtype=np.int64)


def _length_words(tokens: NDArray[np.int64], most: int) -> str:
    half, usual, longest = (int(np.quantile(tokens, share)) for share in (0.5, 0.95, 1.0))
    words = f"half have at most {half} tokens, 95% at most {usual}, the longest {longest}"
    cut = int((tokens > most).sum())
    return words + (f"; {cut:,} of {len(tokens):,} are cut" if cut else "")


def _text(asked: FirstStudy, found: Sequence[_Found], teacher: _Found, task: _Task) -> str:
    """The study's file, with what was found in comments."""
    (name,) = _distinct_names([_name_of(asked.data)])
    metric = quality_metrics(task.section.kind)[0]
    bound = "<= 1.1x teacher" if metric.lower_is_better else ">= 90% of teacher"
    objective = asked.objective or f"p95 < 50 ms, {metric.name} {bound}"
    made_of = f"{_listed([one.written for one in found])} and {asked.data.name}"
    lines = [
        f"# Written by harness init from {made_of}.",
        f"# Check it, correct it where needed, and run it: harness run {asked.out}",
        f"name: {name}",
        "# What a model must achieve to replace the teacher; every clause must hold.",
        f"objective: {_scalar(objective)}",
        "families:",
        f"  - name: {name}",
        "    task:",
        *(f"      {line}" for line in _task_lines(task, teacher)),
        "    models:",
    ]
    for one in sorted(found, key=lambda each: each is not teacher):
        lines += [f"      {line}" for line in _model_lines(one, teacher, asked)]
    return "\n".join([*lines, *_SWEEP]) + "\n"


def _name_of(data: Path) -> str:
    """The data file's; of one that is called after its split, its folder's."""
    name = data.name.split(".")[0]
    folder = data.resolve().parent.name
    return folder if name.casefold() in _SPLITS and folder else name


_SPLITS = frozenset({"test", "dev", "val", "valid", "validation", "eval", "data", "train"})
_SWEEP = (
    "# Serving configurations: the sweep tries each combination.",
    "serving:",
    "  max_batch_sizes: [16]",
    "  queue_delays_us: [0]",
    "# Traffic: requests in flight; the sweep looks for the most that meet the objective.",
    "traffic:",
    "  protocols: [grpc]",
    "  client_batch_sizes: [1]",
    "  concurrencies: [1, 64]",
    "  duration_s: 5           # at most: a trial ends as soon as it is decided",
)


def _task_lines(task: _Task, teacher: _Found) -> Iterator[str]:
    labels = Counter(family_of(task.section).row_labels(task.samples))
    notes = {
        "kind": f"of {teacher.written}",
        "data": f"{len(task.table.rows):,} {'row' if len(task.table.rows) == 1 else 'rows'}",
        "text": f"of the columns {_listed(task.table.columns)}",
        "label": _listed(
            [f"{one.replace(', ', ' + ')} {count:,}" for one, count in labels.most_common()]
        ),
        "max_length": task.lengths or "tokens",
        "length_buckets": "a sample is padded to the next of these: Triton joins equal shapes",
    }
    for key, value in task.written.items():
        note = notes.get(key, "")
        yield f"{key}: {_scalar(value)}" + (f"  # {note}" if note else "")


def _model_lines(one: _Found, teacher: _Found, asked: FirstStudy) -> Iterator[str]:
    own, most = one.checkpoint.parameters, teacher.checkpoint.parameters
    yield f"- name: {one.model.name}"
    if one is teacher:
        why = "as you said" if asked.teacher else "the largest"
        yield f"  role: teacher  # {why}: {own:,} parameters"
    else:
        yield f"  role: student  # {own:,} parameters, {own / most:.0%} of the teacher's"
    yield f"  checkpoint: {_scalar(one.written)}"
    if one is not teacher:
        yield "  precisions: [fp32, int8]  # a variant each"


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("...").removesuffix("\n").strip()


def _listed(names: Sequence[str]) -> str:
    """So many of them that a line holds, on one line."""
    shown = [" ".join(str(one).split()) for one in names[:_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _checked(asked: FirstStudy, text: str) -> Study:
    """The text as `harness run` would read and check it.

    Raises:
        StudyError: with every problem.
    """
    source, base = str(asked.out), asked.out.resolve().parent
    study = parse_study(yaml.safe_load(text), source=source, base=base)
    check_inputs(study)
    return study


def _first_line(error: UsageError) -> str:
    """The first problem of an error, on one line, and how many more there are."""
    head, *problems = str(error).splitlines()
    if not problems:
        return head
    lines = " ".join(" ".join(problems).split()).removeprefix("- ").split(" - ")
    if isinstance(error, StudyError):
        lines = [" ".join(one.split()) for one in error.problems]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"{head.rpartition(':')[0]}: {lines[0]}{more}"


def _next_step(error: UsageError) -> str:
    if "labels do not match" in str(error):
        return (
            "name the classes in the order of the model's outputs: --labels NAME,NAME,...; or the "
            "right column: --column label=COLUMN"
        )
    if "modules.json" in str(error):
        return "write the study by hand, with 'pooling': studies/sts-minilm.yaml is one to copy"
    return error.next_step or "correct it and run harness init again"
