"""The text of a first study, with what was found in comments."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.flow.first_study.asked import FirstStudy
from harness.flow.first_study.checkpoints import FoundCheckpoint, distinct_names
from harness.flow.first_study.task import FoundTask
from harness.metrics import quality_metrics
from harness.tasks.label_values import listed
from harness.tasks.registry import family_of
from harness.tasks.section import TaskSection
from harness.types.metrics import Metric
from harness.words.numbers import count, percent

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
    "  # After the verdict: latency over rate, at shares of the highest throughput found.",
    "  saturation_shares: [0.3, 0.5, 0.7, 0.85]",
)


def study_text(
    asked: FirstStudy, found: Sequence[FoundCheckpoint], teacher: FoundCheckpoint, task: FoundTask
) -> str:
    """The study's file, with what was found in comments."""
    (name,) = distinct_names([_name_of(asked.data)])
    objective = asked.objective or _objective(task.section)
    command = shlex.join(["harness", "run", str(asked.out)])
    made_of = f"{listed([one.written for one in found])} and {asked.data.name}"
    lines = [
        f"# Written by harness init from {made_of}.",
        f"# Check it, correct it where needed, and run it: {command}",
        f"name: {_scalar(name)}",
        "# What a model must achieve to replace the teacher; every clause must hold.",
        *_unscored(task.section, asked),
        f"objective: {_scalar(objective)}",
        "families:",
        f"  - name: {_scalar(name)}",
        "    task:",
        *(f"      {line}" for line in _task_lines(task, teacher)),
        "    models:",
    ]
    for one in sorted(found, key=lambda each: each is not teacher):
        lines += [f"      {line}" for line in _model_lines(one, teacher, asked)]
    return "\n".join([*lines, *_SWEEP]) + "\n"


def _unscored(section: TaskSection, asked: FirstStudy) -> list[str]:
    """A comment for data that no metric of quality can be computed from; empty for other data."""
    if asked.objective or _scored_by(section) is not None:
        return []
    family = family_of(section)
    wanted = dict.fromkeys(family.lacks(section, one.name) for one in quality_metrics(section.kind))
    return [
        "# No metric of quality is among it, because the data has none: that takes the task's",
        f"# {' or '.join(wanted)}. The report shows how near each model is to the teacher.",
    ]


def _objective(section: TaskSection) -> str:
    """Latencies, and the first metric that the data allows beside the teacher's."""
    family = family_of(section)
    latencies = "ttft p95 < 200 ms, itl p99 < 50 ms" if family.writes else "p95 < 50 ms"
    metric = _scored_by(section)
    if metric is None:
        return latencies
    bound = "<= 1.1x teacher" if metric.lower_is_better else ">= 90% of teacher"
    return f"{latencies}, {metric.name} {bound}"


def _scored_by(section: TaskSection) -> Metric | None:
    """The first metric of quality that the data allows; None without any."""
    family = family_of(section)
    scored = (one for one in quality_metrics(section.kind) if not family.lacks(section, one.name))
    return next(scored, None)


def _name_of(data: Path) -> str:
    """The data file's; of one that is called after its split, its folder's."""
    name = data.resolve().name.split(".")[0]
    folder = data.resolve().parent.name
    return folder if name.casefold() in _SPLITS and folder else name


def _task_lines(task: FoundTask, teacher: FoundCheckpoint) -> Iterator[str]:
    labels = family_of(task.section).label_words(task.samples)
    notes = {
        "kind": f"of {teacher.written}",
        "data": f"{count(len(task.table.rows))} {'row' if len(task.table.rows) == 1 else 'rows'}",
        "text": f"of the columns {listed(task.table.columns)}",
        **dict.fromkeys(("label", "labels", "tags", "score"), labels),
        "retrieval": "the files beside the data",
        "max_length": task.lengths or "tokens",
        "length_buckets": "a sample is padded to the next of these: Triton joins equal shapes",
    }
    for key, value in task.written.items():
        note = notes.get(key, "")
        yield f"{key}: {_scalar(value)}" + (f"  # {note}" if note else "")


def _model_lines(
    one: FoundCheckpoint, teacher: FoundCheckpoint, asked: FirstStudy
) -> Iterator[str]:
    own, most = one.checkpoint.parameters, teacher.checkpoint.parameters
    yield f"- name: {_scalar(one.model.name)}"
    if one is teacher:
        why = "as you said" if asked.teacher else "the largest"
        yield f"  role: teacher  # {why}: {count(own)} parameters"
    else:
        yield f"  role: student  # {count(own)} parameters, {percent(own / most)} of the teacher's"
    yield f"  checkpoint: {_scalar(one.written)}"
    if one is not teacher:
        yield "  precisions: [fp32, int8]  # a variant each"


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("...").removesuffix("\n").strip()
