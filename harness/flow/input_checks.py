"""What must hold of a study's data before anything starts: every problem, model by model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import StudyError, UsageError
from harness.export.checkpoint import glance_at_checkpoint, inspect_checkpoint
from harness.export.tensorrt import IMAGE
from harness.flow.ensembles import checked_tokenizer
from harness.flow.inputs import StudyInputs
from harness.flow.spaces import workloads
from harness.load.schedule.arrivals import check_workload
from harness.metrics import quality_metrics
from harness.study import (
    Family,
    HubData,
    Model,
    ReferenceData,
    Study,
    plans_of,
    teacher_first,
)
from harness.study.clauses import quality_clauses
from harness.system.libraries import require_extra
from harness.tasks.generation.rows import TextGeneration
from harness.tasks.labels import LabelReader
from harness.tasks.loading import load_training_samples
from harness.tasks.samples import Samples
from harness.types import Role

_REFERENCE_COLUMNS = {
    "topics": ("text", "label"),
    "prose": ("text",),
    "continuations": ("prompt", "reference"),
}


def check_inputs(
    study: Study,
    inputs: StudyInputs | None = None,
    *,
    only: str | None = None,
    weights: bool = True,
) -> None:
    """Look at every checkpoint and data file of the user's own; the embedded ones are ours.

    Args:
        study: what is about to be run.
        inputs: keeps the samples that were read, for the preparation of the models.
        only: one variant, where nothing else of the study is to be started. Of the family's
            teacher only the classes are then looked at, and neither other models, nor the study's
            traffic, nor training data.
        weights: false where models are asked on an external server: configurations and tokenizers
            are then enough.

    Raises:
        StudyError: with every problem of all of them.
        MissingExtraError: the packages that open and export them are not installed.
    """
    require_extra("torch", "transformers", "onnx")
    inputs = inputs or StudyInputs()
    problems: list[str] = []
    if only is None:
        problems += [problem for family in study.families for problem in _traffic(study, family)]
    parts = [] if only is None else study.alone(only).families[0].models
    model = parts[0].name if len(parts) == 1 else None
    families = study.families if only is None else [study.family_of(only)]
    # The common mistakes first: those take no library that is slow to import.
    for look in (_told_at_once, _problems):
        for family in families:
            with inputs.reading():
                problems += look(study, family, inputs, model, weights=weights)
        if problems:
            raise StudyError(f"study {study.name}", list(dict.fromkeys(problems)))


def check_driven(study: Study, *, streams: bool = False) -> None:
    """Refuse families whose answers are streams, where those are not driven.

    Args:
        study: what is about to be measured.
        streams: whether streams are driven.

    Raises:
        UsageError: the study has a family that cannot be driven so.
    """
    for family in study.families:
        if isinstance(family.task, TextGeneration) and not streams:
            raise UsageError(
                f"family {family.name} writes text, and this command measures models that answer "
                "a request at once",
                next_step="harness run, evaluate and load (on the embedded server) take such a "
                "family; harness load --url ... --generate asks any server's model",
            )


def check_embedded(study: Study) -> None:
    """Refuse what the embedded server cannot serve, and NVIDIA's can.

    Raises:
        UsageError: the study asks for TensorRT plans.
    """
    plans = sorted(name for family in study.families for name in plans_of(family))
    if plans:
        raise UsageError(
            f"the embedded server has no TensorRT: it cannot serve {', '.join(plans)}",
            next_step=f"serve them by {IMAGE} (docker compose --profile gpu up) and name it with "
            "--url, or leave tensorrt out of formats",
        )


def _traffic(study: Study, family: Family) -> Iterator[str]:
    """What cannot be driven: a trace's content, a shape's levels, a distribution's range."""
    try:
        for workload in workloads(study, study.traffic_of(family)):
            check_workload(workload)
    except UsageError as error:
        yield f"family {family.name}, traffic: {_with_step(error)}"


def _told_at_once(
    study: Study, family: Family, inputs: StudyInputs, only: str | None, *, weights: bool
) -> Iterator[str]:
    """What the user's own files are wrong in, before transformers and torch are imported for more.

    Of data and checkpoints that lie on this machine: files that are missing, columns, and rows
    that do not have the classes of the checkpoint's config.json. `only` is as in `_problems`.
    """
    on_this_machine = not isinstance(family.task.data, ReferenceData | HubData)
    rows = _Rows(study, family, inputs)
    for model in _looked_at(family, only):
        try:
            preview = glance_at_checkpoint(model, family.task, weights=weights)
        except UsageError as error:
            yield _of_model(family, model, error)
        else:
            if preview is not None and on_this_machine:
                rows.read_for(model, preview.label_names)
    yield from rows.problems


def _problems(
    study: Study, family: Family, inputs: StudyInputs, only: str | None, *, weights: bool
) -> Iterator[str]:
    """Each checkpoint, and the data against each checkpoint's own labels.

    With `only` it is that model's, and of the teacher what its classes say of the labels.
    """
    own_data = not isinstance(family.task.data, ReferenceData)
    yield from _unknown_slices(family)
    teacher_labels: Sequence[str] | None = None
    rows = _Rows(study, family, inputs)
    for model in _looked_at(family, only):
        folder, labels = None, None
        try:
            preview = inspect_checkpoint(model, None, task=family.task, weights=weights)
            folder, labels = preview.folder, preview.label_names
        except UsageError as error:
            yield _of_model(family, model, error)
        samples = rows.read_for(model, labels) if own_data else None
        if samples is not None and folder is not None and only in {None, model.name}:
            yield from _encoding(family, model, folder, samples, inputs)
        if model.role is Role.TEACHER:
            teacher_labels = labels
    yield from rows.problems
    if only is None:
        yield from _training(family, teacher_labels, rows.reader)


def _looked_at(family: Family, only: str | None) -> list[Model]:
    """The user's own models, the teacher first; with `only`, it and that one."""
    return [
        model
        for model in teacher_first(family.models)
        if not model.reference_name and (only in {None, model.name} or model.role is Role.TEACHER)
    ]


class _Rows:
    """A family's rows as each of its models' classes have them, and what is wrong with them."""

    def __init__(self, study: Study, family: Family, inputs: StudyInputs) -> None:
        self._study = study
        self._family = family
        self._inputs = inputs
        self._refused: set[frozenset[str]] = set()
        self.reader: LabelReader | None = None
        """How the teacher's labels were read."""
        self.problems: list[str] = []

    def read_for(self, model: Model, labels: Sequence[str] | None) -> Samples | None:
        """The rows for a model; None, and another problem, where they do not fit it.

        Rows that did not fit another model's classes are not told again for a model of the same.
        """
        classes = frozenset(labels or ())
        if classes in self._refused:
            return None
        try:
            samples = self._inputs.samples(
                self._family.task,
                seed=self._study.seed,
                label_names=labels,
                model=model.name,
                teacher=self.reader,
            )
        except UsageError as error:
            self._refused.add(classes)
            self.problems.append(f"family {self._family.name}, data: {_with_step(error)}")
            return None
        self.problems += _undefined(self._study, self._family, samples)
        if model.role is Role.TEACHER:
            self.reader = samples.reader
        return samples


def _undefined(study: Study, family: Family, samples: Samples) -> Iterator[str]:
    """Clauses of the objective that these samples leave open, whatever a model answers."""
    others = [
        metric.name
        for metric in quality_metrics(family.task.kind)
        if metric.name not in samples.undefined_metrics
    ]
    instead = f", or set the objective on {' or '.join(others)}" if others else ""
    for clause in quality_clauses(study.objective_of(family)):
        if why := samples.undefined_metrics.get(clause.metric):
            yield (
                f"family {family.name}, data: the objective asks for {clause.metric}, which is not "
                f"defined on these samples: {why} (choose other samples{instead})"
            )


def _encoding(
    family: Family, model: Model, folder: Path, samples: Samples, inputs: StudyInputs
) -> Iterator[str]:
    """The data as the model's own tokenizer makes it, and inside the server where that is asked."""
    trust = model.trust_remote_code
    try:
        dataset = inputs.encoded(family.task, samples, model, folder)
        if family.ensemble:
            checked_tokenizer(family, samples, dataset, folder, trust_remote_code=trust)
    except UsageError as error:
        yield _of_model(family, model, error)


def _training(
    family: Family, labels: Sequence[str] | None, like: LabelReader | None
) -> Iterator[str]:
    """Training data of the user's own, against the teacher's labels."""
    if isinstance(family.task.training_data, ReferenceData):
        return
    try:
        load_training_samples(family.task, label_names=labels, like=like)
    except UsageError as error:
        yield f"family {family.name}, training_data: {_with_step(error)}"


def _unknown_slices(family: Family) -> Iterator[str]:
    """Columns that the embedded data does not have; the user's own is checked when it is read."""
    data = family.task.data
    if isinstance(data, ReferenceData):
        known = _REFERENCE_COLUMNS[data.name]
        for column in family.task.slices:
            if column not in known:
                yield (
                    f"family {family.name}, data: no column '{column}' (the task's 'slices'); "
                    f"the reference data {data.name} has {', '.join(known)}"
                )


def _of_model(family: Family, model: Model, error: UsageError) -> str:
    return f"family {family.name}, model {model.name}: {_with_step(error)}"


def _with_step(error: UsageError) -> str:
    return f"{error} ({error.next_step})" if error.next_step else str(error)
