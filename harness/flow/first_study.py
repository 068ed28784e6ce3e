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
from dataclasses import dataclass, field, replace
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
from harness.export.checkpoint_files import positions_held, read_config
from harness.flow.columns import MEASURED_ROWS, Labels, find_columns
from harness.flow.inputs import check_inputs
from harness.metrics import quality_metrics
from harness.study import Model, Study
from harness.study.file import parse_study, problems_of
from harness.study.objective import EXAMPLE, check_priced, parse_objective
from harness.system.storage import replace_text
from harness.tasks.family import AnyFamily
from harness.tasks.label_values import listed
from harness.tasks.loading import load_samples
from harness.tasks.registry import family_of
from harness.tasks.rows import DataTable, read_table
from harness.tasks.samples import Samples
from harness.tasks.section import PaddedSection, TaskSection
from harness.tasks.tokenizers import load_tokenizer
from harness.types import Role

_LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Padded lengths that are proposed."""
_NAME = re.compile(r"[^a-z0-9._-]+")


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
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other keys of the task's section, as `pooling`."""


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
        check_priced(parse_objective(objective or EXAMPLE))
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
        step = f"name one of the folders in it: {listed(inner)}"
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
    file = _data_file(asked.data, family)
    source = _source(file)
    common = {"kind": family.kind, "data": {"source": source, "path": str(file.resolve())}}
    blank = family.section.model_validate(common)
    table = read_table(blank.data, None)
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
    data = {"source": source, "path": _beside(file, asked.out)}
    files = {
        key: {name: _beside(path, asked.out) for name, path in files.items()}
        for key, files in beside.items()
    }
    return _Task({"kind": family.kind, "data": data} | own | files, section, samples, table)


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
    limit = max(_longest(task, one, limit) for one in found)
    tokens = _count_tokens(task, teacher)
    typical, longest = (int(np.quantile(tokens, share)) for share in (0.5, 0.99))
    most = min(next((one for one in _LENGTHS if one >= longest), _LENGTHS[-1]), limit)
    shorter = [one for one in _LENGTHS if typical <= one < most]
    buckets = [*shorter[:2], most]
    own = {"max_length": most} | ({"length_buckets": buckets} if len(buckets) > 1 else {})
    return replace(task, written={**task.written, **own}, lengths=_length_words(tokens, most))


def _longest(task: _Task, one: _Found, limit: int) -> int:
    """Tokens of the longest text that a checkpoint's own settings allow, `limit` at most."""
    asked = task.section.model_copy(update={"max_length": limit, "length_buckets": None})
    return family_of(task.section).longest_text(asked, one.checkpoint.folder)


def _count_tokens(task: _Task, teacher: _Found) -> NDArray[np.int64]:
    """Tokens of samples from all over the data, by the teacher's tokenizer, special ones too."""
    family, folder = family_of(task.section), teacher.checkpoint.folder
    tokenizer = load_tokenizer(folder)
    size = len(task.samples.texts)
    rows = np.unique(np.linspace(0, size - 1, min(size, MEASURED_ROWS)).astype(int)).tolist()
    counts = family.token_counts(task.section, task.samples, rows, tokenizer, folder)
    return np.array(counts, dtype=np.int64)


def _length_words(tokens: NDArray[np.int64], most: int) -> str:
    half, usual, longest = (int(np.quantile(tokens, share)) for share in (0.5, 0.95, 1.0))
    words = f"half have at most {half} tokens, 95% at most {usual}, the longest {longest}"
    cut = int((tokens > most).sum())
    return words + (f"; {cut:,} of {len(tokens):,} are cut" if cut else "")


def _text(asked: FirstStudy, found: Sequence[_Found], teacher: _Found, task: _Task) -> str:
    """The study's file, with what was found in comments."""
    (name,) = _distinct_names([_name_of(asked.data)])
    objective = asked.objective or _objective(task.section)
    made_of = f"{listed([one.written for one in found])} and {asked.data.name}"
    lines = [
        f"# Written by harness init from {made_of}.",
        f"# Check it, correct it where needed, and run it: harness run {asked.out}",
        f"name: {name}",
        "# What a model must achieve to replace the teacher; every clause must hold.",
        *_unscored(task.section, asked),
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


def _unscored(section: TaskSection, asked: FirstStudy) -> list[str]:
    """That the data has no metric of quality, where it has none."""
    if asked.objective or "," in _objective(section):
        return []
    family = family_of(section)
    wanted = dict.fromkeys(family.lacks(section, one.name) for one in quality_metrics(section.kind))
    return [
        "# No metric of quality is among it, because the data has none: that takes the task's",
        f"# {' or '.join(wanted)}. The report shows how near each model is to the teacher.",
    ]


def _objective(section: TaskSection) -> str:
    """A latency, and the first metric that the data allows beside the teacher's."""
    family = family_of(section)
    scored = (one for one in quality_metrics(section.kind) if not family.lacks(section, one.name))
    metric = next(scored, None)
    if metric is None:
        return "p95 < 50 ms"
    bound = "<= 1.1x teacher" if metric.lower_is_better else ">= 90% of teacher"
    return f"p95 < 50 ms, {metric.name} {bound}"


def _name_of(data: Path) -> str:
    """The data file's; of one that is called after its split, its folder's."""
    name = data.name.split(".")[0]
    folder = data.resolve().parent.name
    return folder if name.casefold() in _SPLITS and folder else name


_SPLITS = frozenset(
    {"queries", "test", "dev", "val", "valid", "validation", "eval", "data", "train"}
)
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
    labels = family_of(task.section).label_words(task.samples)
    notes = {
        "kind": f"of {teacher.written}",
        "data": f"{len(task.table.rows):,} {'row' if len(task.table.rows) == 1 else 'rows'}",
        "text": f"of the columns {listed(task.table.columns)}",
        **dict.fromkeys(("label", "labels", "tags", "score"), labels),
        "retrieval": "the files beside the data",
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
    if "'pooling'" in error.next_step or "has no modules.json" in str(error):
        return (
            "say it as the model was trained: --set pooling=mean (or cls, max, last), and --set "
            "normalised=true where its vectors have length 1"
        )
    return error.next_step or "correct it and run harness init again"
