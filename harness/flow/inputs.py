"""What the user brings, looked at before anything starts, so that all problems come at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import StudyError, UsageError
from harness.export.checkpoint import inspect_checkpoint
from harness.export.tensorrt import IMAGE
from harness.flow.ensembles import checked_tokenizer
from harness.flow.samples import StudyInputs
from harness.flow.spaces import workloads
from harness.load.schedule.workload import check_workload
from harness.study import (
    Family,
    Model,
    ReferenceData,
    Study,
    plans_of,
    teacher_first,
)
from harness.system.libraries import require_extra
from harness.tasks.labels import LabelReader
from harness.tasks.loading import load_training_samples
from harness.tasks.samples import Samples
from harness.types import Role

REFERENCE_COLUMNS = {"topics": ("text", "label"), "prose": ("text",)}


def check_inputs(study: Study, inputs: StudyInputs | None = None) -> None:
    """Look at every checkpoint and data file of the user's own; the embedded ones are ours.

    Args:
        study: what is about to be run.
        inputs: keeps the samples that were read, for the preparation of the models.

    Raises:
        StudyError: with every problem of all of them.
        MissingExtraError: the packages that open and export them are not installed.
    """
    require_extra("torch", "transformers", "onnx")
    problems = [problem for family in study.families for problem in _traffic(study, family)]
    inputs = inputs or StudyInputs()
    for family in study.families:
        with inputs.reading():
            problems += _problems(study, family, inputs)
    if problems:
        raise StudyError(f"study {study.name}", list(dict.fromkeys(problems)))


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


def _problems(study: Study, family: Family, inputs: StudyInputs) -> Iterator[str]:
    """Each checkpoint, and the data against each checkpoint's own labels."""
    own_data = not isinstance(family.task.data, ReferenceData)
    yield from _unknown_slices(family)
    teacher_labels: Sequence[str] | None = None
    reader: LabelReader | None = None
    for model in teacher_first(family.models):
        if model.reference_name:
            continue
        folder, labels = None, None
        try:
            preview = inspect_checkpoint(model, None, task=family.task)
            folder, labels = preview.folder, preview.label_names
        except UsageError as error:
            yield f"family {family.name}, model {model.name}: {_with_step(error)}"
        if own_data:
            try:
                samples = inputs.samples(
                    family.task,
                    seed=study.seed,
                    label_names=labels,
                    model=model.name,
                    teacher=reader,
                )
            except UsageError as error:
                yield f"family {family.name}, data: {_with_step(error)}"
            else:
                reader = reader or (samples.reader if model.role is Role.TEACHER else None)
                if folder is not None:
                    yield from _encoding(family, model, folder, samples, inputs)
        if model.role is Role.TEACHER:
            teacher_labels = labels
    yield from _training(family, teacher_labels, reader)


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
        yield f"family {family.name}, model {model.name}: {_with_step(error)}"


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
        known = REFERENCE_COLUMNS[data.name]
        for column in family.task.slices:
            if column not in known:
                yield (
                    f"family {family.name}, data: no column '{column}' (the task's 'slices'); "
                    f"the reference data {data.name} has {', '.join(known)}"
                )


def _with_step(error: UsageError) -> str:
    return f"{error} ({error.next_step})" if error.next_step else str(error)
