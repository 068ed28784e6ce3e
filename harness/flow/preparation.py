"""From a study to what can be measured: checkpoints, samples, exported variants, those left out.

The teacher's first variant is what all others are compared with: where it fails, nothing can be
judged, and the study ends with its error. Another precision of the teacher does not take its place,
because the yardstick would then be another one than the study names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import CheckpointError, HarnessError
from harness.export.checkpoint import Checkpoint, inspect_checkpoint, open_checkpoint
from harness.export.tensorrt import PlanSettings, plan_home
from harness.export.variants import ExportJob, export_variants
from harness.flow.ensembles import PreparedPipeline, is_pipeline, prepare_pipeline, text_groups
from harness.flow.inputs import StudyInputs
from harness.flow.options import ProgressSink, WarningSink, ignore_warning
from harness.flow.spaces import serving_configs
from harness.load.requests.payloads import Group
from harness.reference.build import ReferenceBundle, build_reference
from harness.serving.ensemble import write_pipeline
from harness.serving.repository import write_config
from harness.study import (
    PIPELINE_SUFFIX,
    Family,
    Model,
    ReferenceData,
    Study,
    plans_of,
    teacher_first,
    variants_of,
)
from harness.tasks.encoding import EncodedDataset
from harness.tasks.labels import LabelReader
from harness.tasks.loading import tokenizer_note
from harness.tasks.registry import family_of
from harness.tasks.samples import Samples
from harness.types import FailedVariant, ModelVariant, Progress, Role, ServingConfig

EXPORT, SERVING = "export", "serving"
_WHAT = {EXPORT: "cannot be exported", SERVING: "cannot be served"}


def failed_variant(family: Family, name: str, cause: str, error: HarnessError) -> FailedVariant:
    """What is written down of a variant that failed.

    Args:
        family: it belongs to.
        name: of the variant, or of its pipeline.
        cause: EXPORT or SERVING.
        error: why.
    """
    bare = name if any(name in variants_of(m) for m in family.models) else _without_suffix(name)
    role = next(model.role for model in family.models if bare in variants_of(model))
    return FailedVariant(name, family.name, role, cause, str(error), error.next_step)


def tell(failed: FailedVariant, progress: ProgressSink) -> None:
    """Say it when it happens."""
    note = f"{failed.name} {_WHAT[failed.cause]}, and is left out: {failed.reason}"
    progress(Progress("left out", 1, 1, " ".join(note.split())))


def leaving_out(
    family: Family, failures: dict[str, HarnessError], progress: ProgressSink
) -> Callable[[str, HarnessError], None]:
    """What takes the export's failures: all but that of the variant that others are judged by.

    Args:
        family: whose variants are exported.
        failures: gets them, by variant.
        progress: is told.
    """

    def leave_out(name: str, error: HarnessError) -> None:
        if name == variants_of(family.teacher)[0]:
            raise needed(family, name, error)
        failures[name] = error
        tell(failed_variant(family, name, EXPORT, error), progress)

    return leave_out


def needed(family: Family, name: str, error: HarnessError) -> HarnessError:
    """The same error, of the variant that nothing of the family can be judged without."""
    message = (
        f"{name} is what the variants of family {family.name} are compared with, so the study ends "
        f"here: {error}"
    )
    return type(error)(message, next_step=error.next_step)


def _without_suffix(name: str) -> str:
    return name.removesuffix(PIPELINE_SUFFIX)


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
class PreparedFamily:
    """A family ready to be served: every variant with the inputs its tokenizer made."""

    family: Family
    variants: tuple[ModelVariant, ...]
    """The teacher's first; then in the study's order."""
    datasets: Mapping[str, EncodedDataset]
    """The encoded data of each variant, by its name."""
    pipelines: tuple[PreparedPipeline, ...] = ()
    """Around each variant, in the same order; none unless the family asks for them."""
    baseline: tuple[str, ...] = ()
    """The embedded yardstick's predicted class names, a row of the data each."""
    opened: Mapping[str, OpenedModel] = field(default_factory=dict)
    """The opened checkpoint of each variant, by its name."""
    training_file: Path | None = None
    """Where the training split of the embedded data lies."""
    failures: Mapping[str, HarnessError] = field(default_factory=dict)
    """Why a variant (or ensemble) cannot be exported, by its name; the others go on without it."""

    @property
    def failed(self) -> tuple[FailedVariant, ...]:
        """The same, to be written down."""
        return tuple(
            failed_variant(self.family, name, EXPORT, error)
            for name, error in self.failures.items()
        )

    @property
    def served(self) -> tuple[ModelVariant, ...]:
        """Every model that can be asked: the variants, and their pipelines."""
        return (*self.variants, *(one.pipeline.variant for one in self.pipelines))

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """The checkpoints, by the model's name."""
        return {one.model.name: one.checkpoint for one in self.opened.values()}

    @property
    def teacher(self) -> ModelVariant:
        """The teacher's first variant: what 'of teacher' refers to."""
        name = variants_of(self.family.teacher)[0]
        return next(variant for variant in self.variants if variant.name == name)


def prepare(
    study: Study,
    *,
    repository: Path,
    progress: ProgressSink,
    warn: WarningSink = ignore_warning,
    inputs: StudyInputs | None = None,
) -> tuple[PreparedFamily, ...]:
    """Make every artefact of the study exist in the repository.

    A variant that cannot be exported is left out and told, with its reason. Samples that `inputs`
    already holds are not read again.

    Raises:
        CheckpointError: a teacher's first variant cannot be exported.
        ParityError: it disagrees with its checkpoint.
        EnvironmentFailure: a TensorRT plan is asked for where none can be built.
    """
    if any(plans_of(family) for family in study.families):
        plan_home()  # before models are trained in vain
    opened = open_families(study, study.families, progress, warn, inputs)
    for one in opened:
        _tell_what_is_cut(one.models, progress)
    return tuple(_export_family(study, one, repository, progress) for one in opened)


def prepare_alone(
    study: Study,
    variant: str,
    *,
    repository: Path,
    progress: ProgressSink,
    warn: WarningSink = ignore_warning,
    inputs: StudyInputs | None = None,
) -> PreparedFamily:
    """Make one variant (or the ensemble around one) exist in the repository, and nothing else.

    No other model is trained, opened or exported; of the teacher only the names of its classes
    are read, by which the labels are.

    Raises:
        StudyError: no model of the study has such a variant.
        CheckpointError: it cannot be exported.
        ParityError: it disagrees with its checkpoint.
        EnvironmentFailure: it is a TensorRT plan, and none can be built here.
    """
    if variant in plans_of(study.family_of(variant)):
        plan_home()
    opened = _open_alone(study, variant, progress, inputs or StudyInputs())
    _warn_of([opened], warn)
    _tell_what_is_cut(opened.models, progress)
    return _export_family(study, opened, repository, progress, leave_out=False)


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
) -> list[OpenedFamily]:
    """Open every checkpoint and encode the data for each; nothing is exported.

    `warn` is told what to know of each tokenizer, and of labels that could have been read
    otherwise. Samples that `inputs` already holds are not read again.
    """
    bundle = _reference_bundle(study, families, progress)
    inputs = inputs or StudyInputs()
    opened = [
        OpenedFamily(family, _open_models(study, family, bundle, inputs), bundle)
        for family in families
    ]
    _warn_of(opened, warn)
    return opened


def _warn_of(opened: Sequence[OpenedFamily], warn: WarningSink) -> None:
    """Say what to know of each tokenizer, and of labels that could have been read otherwise."""
    for model in (model for family in opened for model in family.models):
        for note in filter(None, (model.tokenizer_note, model.samples.label_note)):
            warn(f"{model.model.name}: {note}")


def _open_models(
    study: Study, family: Family, bundle: ReferenceBundle | None, inputs: StudyInputs
) -> tuple[OpenedModel, ...]:
    """Models in the study's order; the teacher is opened first, for the others' labels."""
    opened: dict[str, OpenedModel] = {}
    teacher: LabelReader | None = None
    with inputs.reading():
        for model in teacher_first(family.models):
            opened[model.name] = _open_model(study, family, model, bundle, inputs, teacher)
            teacher = teacher or opened[model.name].samples.reader
    return tuple(opened[model.name] for model in family.models)


def payloads_for(
    study: Study, variant: str, progress: ProgressSink, inputs: StudyInputs | None = None
) -> Sequence[Group]:
    """What a variant, or its pipeline, is sent of its family's data; nothing is exported.

    Raises:
        StudyError: no model of the study has such a variant.
    """
    (opened,) = _open_alone(study, variant, progress, inputs or StudyInputs()).models
    if is_pipeline(study, variant):
        task, samples = study.family_of(variant).task, opened.samples
        texts = family_of(task).asked_texts(task, samples, opened.checkpoint.folder)
        return text_groups(texts, samples.pairs, opened.dataset)
    return [group.inputs for group in opened.dataset.groups]


def _open_alone(
    study: Study, variant: str, progress: ProgressSink, inputs: StudyInputs
) -> OpenedFamily:
    """The family of a variant with its model alone, the labels read as for the family's teacher."""
    (family,) = study.alone(variant).families
    (model,) = family.models
    teacher = study.family_of(variant).teacher
    # An embedded model's classes are known by name, so its teacher need not be trained for them.
    named_by = [] if model.reference_name or teacher.name == model.name else [teacher]
    needed = family.model_copy(update={"models": [*named_by, model]})
    bundle = _reference_bundle(study, [needed], progress)
    with inputs.reading():
        reader = None
        for one in named_by:
            folder = _embedded_folder(one, bundle)
            names = inspect_checkpoint(one, folder, task=family.task).label_names
            reader = _samples(study, family, one, names, bundle, inputs).reader
        opened = _open_model(study, family, model, bundle, inputs, reader)
    return OpenedFamily(family, (opened,), bundle)


def _reference_bundle(
    study: Study, families: Sequence[Family], progress: ProgressSink
) -> ReferenceBundle | None:
    names = [m.reference_name for family in families for m in family.models if m.reference_name]
    uses_data = any(isinstance(family.task.data, ReferenceData) for family in families)
    if not names and not uses_data:
        return None
    return build_reference(names, seed=study.seed, progress=progress)


def _open_model(
    study: Study,
    family: Family,
    model: Model,
    bundle: ReferenceBundle | None,
    inputs: StudyInputs,
    teacher: LabelReader | None = None,
) -> OpenedModel:
    """Open a checkpoint and encode the data with its own tokenizer and its own order of labels."""
    checkpoint = open_checkpoint(model, folder=_embedded_folder(model, bundle), task=family.task)
    samples = _samples(study, family, model, checkpoint.label_names, bundle, inputs, teacher)
    dataset = inputs.encoded(family.task, samples, model, checkpoint.folder)
    note = tokenizer_note(
        family.task, samples, checkpoint.folder, trust_remote_code=model.trust_remote_code
    )
    return OpenedModel(model, checkpoint, samples, dataset, note)


def _embedded_folder(model: Model, bundle: ReferenceBundle | None) -> Path | None:
    """Where an embedded model lies; None for the user's own."""
    return bundle.checkpoints[model.reference_name] if bundle and model.reference_name else None


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


def _tell_what_is_cut(models: Sequence[OpenedModel], progress: ProgressSink) -> None:
    """Say of which samples a model sees a part alone; the manifest has the numbers too."""
    for opened in models:
        if note := opened.dataset.cut_note:
            progress(Progress("data", 1, 1, f"{opened.model.name}: {note}"))


def _export_family(
    study: Study,
    opened_family: OpenedFamily,
    repository: Path,
    progress: ProgressSink,
    *,
    leave_out: bool = True,
) -> PreparedFamily:
    """Export a family; without `leave_out` the first artefact that fails ends it."""
    family = opened_family.family
    space = study.serving_of(family)
    serving = serving_configs(space)[0]
    plans = PlanSettings(tuple(space.max_batch_sizes), study.seed)
    variants: list[ModelVariant] = []
    by_variant: dict[str, OpenedModel] = {}
    pipelines: list[PreparedPipeline] = []
    failures: dict[str, HarnessError] = {}
    failed = leaving_out(family, failures, progress) if leave_out else None
    for opened in opened_family.teacher_first:
        job = ExportJob(
            opened.model,
            opened.checkpoint,
            family.task,
            family=family.name,
            samples=opened.samples,
            encoded=opened.dataset,
            repository=repository,
            plans=plans,
        )
        made = export_variants(job, progress, failed)
        for variant in made:
            write_config(variant, serving)
            by_variant[variant.name] = opened
            if family.ensemble:
                try:
                    pipelines.append(_pipeline(family, variant, opened, serving))
                except CheckpointError as error:
                    if failed is None:
                        raise
                    failed(f"{variant.name}{PIPELINE_SUFFIX}", error)
        variants += made
    return PreparedFamily(
        family=family,
        variants=tuple(variants),
        datasets={name: opened.dataset for name, opened in by_variant.items()},
        pipelines=tuple(pipelines),
        baseline=baseline_of(opened_family),
        opened=by_variant,
        training_file=opened_family.training_file,
        failures=failures,
    )


def _pipeline(
    family: Family, variant: ModelVariant, opened: OpenedModel, serving: ServingConfig
) -> PreparedPipeline:
    prepared = prepare_pipeline(
        family,
        variant,
        opened.samples,
        opened.dataset,
        opened.checkpoint.folder,
        trust_remote_code=opened.model.trust_remote_code,
    )
    write_pipeline(prepared.pipeline, serving)
    return prepared


def baseline_of(opened: OpenedFamily) -> tuple[str, ...]:
    """The yardstick's predictions for the rows that the study draws."""
    data, bundle = opened.family.task.data, opened.bundle
    if bundle is None or not isinstance(data, ReferenceData) or data.name != "topics":
        return ()
    predictions = json.loads(bundle.baseline_predictions.read_text(encoding="utf-8"))
    return tuple(predictions[row] for row in opened.models[0].samples.rows)
