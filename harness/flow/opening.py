"""Checkpoints opened, with the samples as each model's tokenizer and order of labels have them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.export.checkpoint import Checkpoint, inspect_checkpoint, open_checkpoint
from harness.flow.ensembles import is_ensemble, text_groups
from harness.flow.inputs import StudyInputs
from harness.flow.options import ProgressSink, WarningSink, ignore_warning
from harness.load.requests.payloads import Group
from harness.reference.build import ReferenceBundle, build_reference
from harness.study import (
    Family,
    Model,
    ReferenceData,
    Study,
    teacher_first,
)
from harness.tasks.encoding import EncodedDataset
from harness.tasks.labels import LabelReader
from harness.tasks.loading import tokenizer_note
from harness.tasks.registry import family_of
from harness.tasks.samples import Samples
from harness.types import Role


@dataclass(frozen=True)
class OpenedModel:
    """A model's checkpoint, with the samples as its tokenizer and its order of labels have them."""

    model: Model
    checkpoint: Checkpoint
    samples: Samples
    dataset: EncodedDataset
    tokenizer_note: str = ""
    """What to know of its tokenizer; empty where there is nothing."""


@dataclass(frozen=True)
class OpenedFamily:
    """A family before anything of it is exported."""

    family: Family
    models: tuple[OpenedModel, ...]
    """The opened models, in the study's order."""
    bundle: ReferenceBundle | None

    @property
    def teacher_first(self) -> list[OpenedModel]:
        """The teacher, then the others in the study's order."""
        return sorted(self.models, key=lambda one: one.model.role is not Role.TEACHER)

    @property
    def training_file(self) -> Path | None:
        """Training split of the embedded data, unless the study names training data of its own."""
        task, bundle = self.family.task, self.bundle
        data = task.training_data or task.data
        if bundle is None or not isinstance(data, ReferenceData):
            return None
        return bundle.training_data[data.name]


def open_families(
    study: Study,
    families: Sequence[Family],
    progress: ProgressSink,
    warn: WarningSink = ignore_warning,
    inputs: StudyInputs | None = None,
    *,
    weights: bool = True,
) -> list[OpenedFamily]:
    """Open every checkpoint and encode the data for each; nothing is exported.

    `warn` is told what to know of each tokenizer, and of labels that could have been read
    otherwise. Samples that `inputs` already holds are not read again. Without `weights`,
    configurations and tokenizers are enough.
    """
    bundle = _reference_bundle(study, families, progress)
    inputs = inputs or StudyInputs()
    opened = [
        OpenedFamily(family, _open_models(study, family, bundle, inputs, weights=weights), bundle)
        for family in families
    ]
    warn_of(opened, warn)
    return opened


def open_alone(
    study: Study, variant: str, progress: ProgressSink, inputs: StudyInputs
) -> OpenedFamily:
    """The family of a variant with its model alone, the labels read as for the family's teacher.

    Of a teacher with its draft it is the models of both.
    """
    (family,) = study.alone(variant).families
    models = family.models
    teacher = study.family_of(variant).teacher
    # An embedded model's classes are known by name, so its teacher need not be trained for them.
    is_named = models[0].reference_name or teacher.name in {one.name for one in models}
    named_by = [] if is_named else [teacher]
    needed = family.model_copy(update={"models": [*named_by, *models]})
    bundle = _reference_bundle(study, [needed], progress)
    with inputs.reading():
        reader = None
        for one in named_by:
            folder = _embedded_folder(one, bundle)
            names = inspect_checkpoint(one, folder, task=family.task).label_names
            reader = _samples(study, family, one, names, bundle, inputs).reader
        opened = [_open_model(study, family, one, bundle, inputs, reader) for one in models]
    return OpenedFamily(family, tuple(opened), bundle)


def payloads_for(
    study: Study, variant: str, progress: ProgressSink, inputs: StudyInputs | None = None
) -> Sequence[Group]:
    """What a variant, or its ensemble, is sent of its family's data; nothing is exported.

    Raises:
        StudyError: no model of the study has such a variant.
    """
    (opened,) = open_alone(study, variant, progress, inputs or StudyInputs()).models
    if is_ensemble(study, variant):
        task, samples = study.family_of(variant).task, opened.samples
        texts = family_of(task).asked_texts(task, samples, opened.checkpoint.folder)
        return text_groups(texts, samples.pairs, opened.dataset)
    return [group.inputs for group in opened.dataset.groups]


def warn_of(opened: Sequence[OpenedFamily], warn: WarningSink) -> None:
    """Say what to know of each tokenizer, and of labels that could have been read otherwise."""
    for model in (model for family in opened for model in family.models):
        for note in filter(None, (model.tokenizer_note, model.samples.label_note)):
            warn(f"{model.model.name}: {note}")


def _open_models(
    study: Study,
    family: Family,
    bundle: ReferenceBundle | None,
    inputs: StudyInputs,
    *,
    weights: bool,
) -> tuple[OpenedModel, ...]:
    """Models in the study's order; the teacher is opened first, for the others' labels."""
    opened: dict[str, OpenedModel] = {}
    teacher: LabelReader | None = None
    with inputs.reading():
        for model in teacher_first(family.models):
            opened[model.name] = _open_model(
                study, family, model, bundle, inputs, teacher, weights=weights
            )
            teacher = teacher or opened[model.name].samples.reader
    return tuple(opened[model.name] for model in family.models)


def _open_model(
    study: Study,
    family: Family,
    model: Model,
    bundle: ReferenceBundle | None,
    inputs: StudyInputs,
    teacher: LabelReader | None = None,
    *,
    weights: bool = True,
) -> OpenedModel:
    """Open a checkpoint and encode the data with its own tokenizer and its own order of labels."""
    folder = _embedded_folder(model, bundle)
    checkpoint = open_checkpoint(model, folder=folder, task=family.task, weights=weights)
    samples = _samples(study, family, model, checkpoint.label_names, bundle, inputs, teacher)
    dataset = inputs.encoded(family.task, samples, model, checkpoint.folder)
    note = tokenizer_note(
        family.task, samples, checkpoint.folder, trust_remote_code=model.trust_remote_code
    )
    return OpenedModel(model, checkpoint, samples, dataset, note)


def _samples(
    study: Study,
    family: Family,
    model: Model,
    label_names: Sequence[str] | None,
    bundle: ReferenceBundle | None,
    inputs: StudyInputs,
    teacher: LabelReader | None = None,
) -> Samples:
    """The rows of a family's data, with the labels as a model's classes have them."""
    data = family.task.data
    return inputs.samples(
        family.task,
        seed=study.seed,
        label_names=label_names,
        data_file=bundle.data[data.name] if bundle and isinstance(data, ReferenceData) else None,
        model=model.name,
        teacher=teacher,
    )


def _reference_bundle(
    study: Study, families: Sequence[Family], progress: ProgressSink
) -> ReferenceBundle | None:
    names = [m.reference_name for family in families for m in family.models if m.reference_name]
    uses_data = any(isinstance(family.task.data, ReferenceData) for family in families)
    if not names and not uses_data:
        return None
    return build_reference(names, seed=study.seed, progress=progress)


def _embedded_folder(model: Model, bundle: ReferenceBundle | None) -> Path | None:
    """Where an embedded model lies; None for the user's own."""
    return bundle.checkpoints[model.reference_name] if bundle and model.reference_name else None


def baseline_of(opened: OpenedFamily) -> tuple[str, ...]:
    """The yardstick's predictions for the rows that the study draws."""
    data, bundle = opened.family.task.data, opened.bundle
    if bundle is None or not isinstance(data, ReferenceData) or data.name != "topics":
        return ()
    predictions = json.loads(bundle.baseline_predictions.read_text(encoding="utf-8"))
    return tuple(predictions[row] for row in opened.models[0].samples.rows)
