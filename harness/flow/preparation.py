"""From a study to what can be served: every variant exported, those that fail left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import CheckpointError, HarnessError
from harness.export.checkpoint import Checkpoint
from harness.export.generation.speculative import make_speculative
from harness.export.generation.variants import GeneratorJob, export_generators
from harness.export.tensorrt import PlanSettings, plan_home
from harness.export.variants import ExportJob, export_variants
from harness.flow.ensembles import PreparedEnsemble, prepare_ensemble
from harness.flow.inputs import StudyInputs
from harness.flow.left_out import EXPORT, failed_variant, leaving_out
from harness.flow.opening import (
    OpenedFamily,
    OpenedModel,
    baseline_of,
    open_alone,
    open_families,
    warn_of,
)
from harness.flow.options import ProgressSink, WarningSink, ignore_warning
from harness.flow.spaces import serving_configs
from harness.serving.ensemble import write_ensemble
from harness.serving.generation.vllm import VllmModel, write_vllm_model
from harness.serving.models import write_for_server
from harness.study import (
    ENSEMBLE_SUFFIX,
    Family,
    Study,
    plans_of,
    speculative_name,
    variants_of,
)
from harness.tasks.encoding import EncodedDataset
from harness.tasks.generation.rows import PromptDataset, TextGeneration
from harness.tasks.registry import family_of
from harness.types import FailedVariant, ModelVariant, Progress, ServingConfig


@dataclass(frozen=True)
class PreparedFamily:
    """A family ready to be served: every variant with the inputs its tokenizer made."""

    family: Family
    variants: tuple[ModelVariant, ...]
    """The teacher's first; then in the study's order."""
    datasets: Mapping[str, EncodedDataset]
    """The encoded data of each variant, by its name."""
    ensembles: tuple[PreparedEnsemble, ...] = ()
    """Around each variant, in the same order; none unless the family asks for them."""
    speculative: ModelVariant | None = None
    """The teacher with a student as its draft; None unless the family asks for it."""
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
        """The variants that could not be prepared, in the form that the journal takes."""
        return tuple(
            failed_variant(self.family, name, EXPORT, error)
            for name, error in self.failures.items()
        )

    @property
    def served(self) -> tuple[ModelVariant, ...]:
        """Every model that can be asked: the variants, and their ensembles."""
        composed = [one.ensemble.variant for one in self.ensembles]
        return (*self.variants, *composed, *([self.speculative] if self.speculative else []))

    @property
    def writes(self) -> bool:
        """Whether its models answer in streams of tokens, where others answer at once."""
        return family_of(self.family.task).writes

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
    opened = open_alone(study, variant, progress, inputs or StudyInputs())
    warn_of([opened], warn)
    _tell_what_is_cut(opened.models, progress)
    return _export_family(study, opened, repository, progress, leave_out=False)


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
    ensembles: list[PreparedEnsemble] = []
    failures: dict[str, HarnessError] = {}
    failed = leaving_out(family, failures, progress) if leave_out else None
    for opened in opened_family.teacher_first:
        made = _artefacts_of(family, opened, repository, plans, progress, failed)
        for variant in made:
            write_for_server(variant, serving)
            by_variant[variant.name] = opened
            if family.ensemble:
                try:
                    ensembles.append(_ensemble(family, variant, opened, serving))
                except CheckpointError as error:
                    if failed is None:
                        raise
                    failed(f"{variant.name}{ENSEMBLE_SUFFIX}", error)
        variants += made
    speculative = _speculative(family, variants, repository, failed)
    if speculative is not None:
        write_for_server(speculative, serving)
        by_variant[speculative.name] = by_variant[variants_of(family.teacher)[0]]
    return PreparedFamily(
        family=family,
        variants=tuple(variants),
        datasets={name: opened.dataset for name, opened in by_variant.items()},
        ensembles=tuple(ensembles),
        speculative=speculative,
        baseline=baseline_of(opened_family),
        opened=by_variant,
        training_file=opened_family.training_file,
        failures=failures,
    )


def _artefacts_of(
    family: Family,
    opened: OpenedModel,
    repository: Path,
    plans: PlanSettings,
    progress: ProgressSink,
    failed: Callable[[str, HarnessError], None] | None,
) -> tuple[ModelVariant, ...]:
    """Export one model's artefacts; of one that writes, vLLM's folder as well where it can be."""
    if not family_of(family.task).writes:
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
        return export_variants(job, progress, failed)
    made = export_generators(_generator(family, opened, repository), progress, failed)
    dataset = opened.dataset
    if made and not (isinstance(dataset, PromptDataset) and dataset.has_encoder):
        write_vllm_model(repository, _for_vllm(family, opened))
    return made


def _speculative(
    family: Family,
    variants: Sequence[ModelVariant],
    repository: Path,
    failed: Callable[[str, HarnessError], None] | None,
) -> ModelVariant | None:
    """The teacher with its draft, where the family asks for it and both are there."""
    asked, by_name = family.speculation, {one.name: one for one in variants}
    if asked is None:
        return None
    teacher, draft = by_name.get(variants_of(family.teacher)[0]), by_name.get(asked.draft)
    if teacher is None or draft is None:
        return None
    name = speculative_name(family)
    try:
        return make_speculative(name, teacher, draft, tokens=asked.tokens, repository=repository)
    except CheckpointError as error:
        if failed is None:
            raise
        failed(name, error)
        return None


def _generator(family: Family, opened: OpenedModel, repository: Path) -> GeneratorJob:
    return GeneratorJob(
        opened.model,
        opened.checkpoint,
        family=family.name,
        repository=repository,
        prompts=opened.samples.texts,
        context=family.task.max_length,
        num_beams=family.task.num_beams if isinstance(family.task, TextGeneration) else None,
    )


def _for_vllm(family: Family, opened: OpenedModel) -> VllmModel:
    """The checkpoint itself, under the study's name of the model: vLLM makes its own of it."""
    model = opened.model
    on_disk = model.reference_name is not None or Path(model.checkpoint).is_dir()
    return VllmModel(
        model.name,
        str(opened.checkpoint.folder.resolve()) if on_disk else model.checkpoint,
        context=family.task.max_length,
        revision=None if on_disk else model.revision,
        trust_remote_code=model.trust_remote_code,
    )


def _ensemble(
    family: Family, variant: ModelVariant, opened: OpenedModel, serving: ServingConfig
) -> PreparedEnsemble:
    prepared = prepare_ensemble(
        family,
        variant,
        opened.samples,
        opened.dataset,
        opened.checkpoint.folder,
        trust_remote_code=opened.model.trust_remote_code,
    )
    write_ensemble(prepared.ensemble, serving)
    return prepared
