"""Quality through the endpoint, for every variant of a family, into the run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness.errors import ExchangedError, ServerError, UsageError
from harness.flow.ensembles import PreparedEnsemble
from harness.flow.left_out import SERVING, failed_variant, needed, tell
from harness.flow.options import ProgressSink
from harness.flow.preparation import PreparedFamily
from harness.flow.serving import Served, Site, check_after_failure
from harness.flow.side_by_side import SharedProgress, at_once, side_by_side
from harness.planning.assessment import QualityJudgement
from harness.planning.decision import judge_quality
from harness.quality.collection import (
    collect_outcomes,
    collect_text_answers,
    read_outcomes,
    write_outcomes,
)
from harness.quality.losses import batch_consistency, compare_with_teacher, measure_alone
from harness.quality.scores import baseline_scores, score
from harness.quality.speculation.acceptance import draft_measures
from harness.quality.speculation.measure import draft_matches
from harness.quality.writing import collect_texts, stream_consistency, tells_probabilities
from harness.runs.folder import RunFolder, samples_file
from harness.runs.journal import QualityEntry
from harness.study import Study
from harness.tasks.encoding import EncodedDataset
from harness.tasks.generation.outcomes import WrittenOutcomes
from harness.tasks.generation.rows import PromptDataset
from harness.tasks.outcomes import Outcomes
from harness.tasks.registry import family_of
from harness.types import BatchConsistency, ModelVariant, Role, ServingConfig
from harness.types.losses import PairedMeasure

# Scored at the server's own maximum, so that the dynamic batcher never joins two requests: with
# dynamic int8 activations a row's answer depends on its batch, and a score must not on chance.
SCORING_BATCH = 16
MOST_ROWS = 256
"""Most rows per request, on a server whose own maximum is taken as it is."""
CONSISTENCY_BATCHES = (1, 4, 8, 16)
CONSISTENCY_SAMPLES = 128
CONSISTENCY_PROMPTS = 16
"""Prompts that are compared: a text takes as long as many answers of another kind."""


def score_family(
    study: Study,
    prepared: PreparedFamily,
    served: Served,
    folder: RunFolder,
    progress: ProgressSink,
) -> None:
    """Score what the journal does not hold yet: the teacher first, then two variants at a time.

    Large models, and those on a server that is not the harness's own, are scored one at a time. A
    variant that the server does not load or answer is left out and told, with its reason.

    Raises:
        ServerError: the server died, or does not serve what the others are compared with.
    """
    _score_variants(study, prepared, served, folder, progress)
    for one in prepared.ensembles:
        variant = one.ensemble.variant
        if one.ensemble.model.name in folder.journal.failed:
            continue
        if not _is_scored(variant, prepared, folder):
            with _left_out_if_not_served(variant, prepared, served, folder, progress):
                folder.journal.add(_score_ensemble(study, one, prepared, served, folder, progress))
    if prepared.baseline:
        _score_baseline(study, prepared, folder)


def _score_variants(
    study: Study,
    prepared: PreparedFamily,
    served: Served,
    folder: RunFolder,
    progress: ProgressSink,
) -> None:
    todo = [each for each in prepared.variants if not _is_scored(each, prepared, folder)]
    shared = SharedProgress(
        progress,
        f"quality of {prepared.family.name}",
        len(prepared.variants),
        done=len(prepared.variants) - len(todo),
    )

    def scored(variant: ModelVariant) -> QualityEntry:
        shared.told(variant.name, 0.0)
        return _score_variant(
            study, variant, prepared, served, folder, progress=shared.of(variant.name)
        )

    # The teacher alone and first: the others are paired with its answers.
    teacher = [each for each in todo if each.name == prepared.teacher.name]
    others = [each for each in todo if each not in teacher]
    most = at_once(prepared.variants) if served.takes_several else 1
    for variants in (teacher, others):
        tasks = [partial(scored, each) for each in variants]
        with side_by_side(tasks, most) as results:
            for variant, result in zip(variants, results, strict=True):
                with _left_out_if_not_served(variant, prepared, served, folder, progress):
                    folder.journal.add(result())


@contextmanager
def _left_out_if_not_served(
    variant: ModelVariant,
    prepared: PreparedFamily,
    served: Served,
    folder: RunFolder,
    progress: ProgressSink,
) -> Iterator[None]:
    """Write a variant down as failed where it is the model, and not the server, that fails."""
    try:
        yield
    except ExchangedError:
        raise  # it serves well, and is another model
    except ServerError as error:
        check_after_failure(served.site.server)
        served.site.check_model(variant)
        if variant.name == prepared.teacher.name:
            raise needed(prepared.family, variant.name, error) from error
        failed = failed_variant(prepared.family, variant.name, SERVING, error)
        folder.journal.add(failed)
        tell(failed, progress)


def standing(prepared: PreparedFamily, folder: RunFolder) -> list[ModelVariant]:
    """The variants that are there and answer, in the family's order."""
    return [one for one in prepared.variants if one.name not in folder.journal.failed]


def quality_gate(
    study: Study, prepared: PreparedFamily, folder: RunFolder
) -> dict[str, QualityJudgement]:
    """A decision and its reason for every variant that may be recommended."""
    slo = study.objective_of(prepared.family)
    quality = folder.journal.quality
    teacher_scores = quality[prepared.teacher.name].scores
    return {
        variant.name: judge_quality(slo, quality[variant.name].scores, teacher_scores)
        for variant in standing(prepared, folder)
        if variant.role is not Role.CONTROL
    }


def _is_scored(variant: ModelVariant, prepared: PreparedFamily, folder: RunFolder) -> bool:
    """Whether the journal holds a score of this very model, beside this very teacher."""
    entry = folder.journal.quality.get(variant.name)
    return entry is not None and (entry.sha256, entry.teacher_sha256) == (
        variant.sha256,
        prepared.teacher.sha256,
    )


def _score_variant(
    study: Study,
    variant: ModelVariant,
    prepared: PreparedFamily,
    served: Served,
    folder: RunFolder,
    *,
    progress: ProgressSink,
) -> QualityEntry:
    dataset = prepared.datasets[variant.name]
    kind = study.serving_of(prepared.family).instance_kind
    serving = ServingConfig(max_batch_size=SCORING_BATCH, instance_kind=kind)
    site = served.site
    served.load(variant, serving)
    is_teacher = variant.name == prepared.teacher.name
    drafts: tuple[PairedMeasure, ...] = ()
    if family_of(variant.task).writes:
        outcomes, consistency = _written(variant, dataset, site, progress)
        if not is_teacher:
            teacher = read_outcomes(_teacher_path(folder, prepared))
            drafts = _as_draft(study, variant, dataset, teacher, site)
    else:
        outcomes, consistency = _answered(variant, dataset, served, progress)
    check_after_failure(site.server)  # some rows may have gone unanswered
    site.check_model(variant)
    served.unload(variant)
    teacher = outcomes if is_teacher else read_outcomes(_teacher_path(folder, prepared))
    write_outcomes(outcomes_path(folder, variant.name), outcomes, dataset, teacher=teacher)
    scores = score(outcomes, dataset, variant=variant, teacher=teacher, seed=study.seed)
    pairs = compare_with_teacher(outcomes, teacher, family=prepared.family.name, seed=study.seed)
    alone = measure_alone(outcomes, dataset, family=prepared.family.name, seed=study.seed)
    known = folder.journal.quality.get(prepared.teacher.name)
    relabelling = family_of(variant.task).relabelling(
        outcomes,
        dataset,
        prepared.family.name,
        None if is_teacher else teacher,
        known.relabelling if known and not is_teacher else None,
    )
    return QualityEntry(
        variant.name,
        variant.sha256,
        tuple(scores),
        tuple(consistency),
        pairs + alone + drafts,
        relabelling,
        teacher_sha256=prepared.teacher.sha256,
    )


def _answered(
    variant: ModelVariant, dataset: EncodedDataset, served: Served, progress: ProgressSink
) -> tuple[Outcomes, Sequence[BatchConsistency]]:
    """Every row's answer, and whether answers depend on the batch."""
    client, largest = served.site.client, served.largest_batch(variant) or SCORING_BATCH
    outcomes = collect_outcomes(
        variant, dataset, client, batch_size=min(largest, MOST_ROWS), progress=progress
    )
    if served.answers_from_cache(variant):  # then the batch that an answer is of is not known
        return outcomes, ()
    consistency = batch_consistency(
        variant,
        dataset,
        client,
        batch_sizes=[size for size in CONSISTENCY_BATCHES if size <= largest],
        samples=min(CONSISTENCY_SAMPLES, dataset.size),
    )
    return outcomes, consistency


def _written(
    variant: ModelVariant, dataset: EncodedDataset, site: Site, progress: ProgressSink
) -> tuple[Outcomes, Sequence[BatchConsistency]]:
    """Every prompt's text, and whether texts depend on the streams beside them."""
    if site.streams is None:
        raise UsageError(
            f"{variant.name} writes, and an external server's streams cannot be scored",
            next_step="score it on the embedded server, and drive the other with harness load",
        )
    outcomes = collect_texts(variant, dataset, site.streams, progress=progress)
    consistency = stream_consistency(
        variant,
        dataset,
        site.streams,
        in_flight=CONSISTENCY_BATCHES,
        samples=min(CONSISTENCY_PROMPTS, dataset.size),
    )
    return outcomes, consistency


def _as_draft(
    study: Study,
    variant: ModelVariant,
    dataset: EncodedDataset,
    teacher: WrittenOutcomes,
    site: Site,
) -> tuple[PairedMeasure, ...]:
    """What a variant would be worth as its teacher's draft; nothing where it cannot be one."""
    if site.streams is None or not isinstance(dataset, PromptDataset):
        return ()
    if not tells_probabilities(variant) or dataset.vocabulary != teacher.vocabulary:
        return ()
    if dataset.has_encoder:  # such drafts are not served, and rules decide beside the models
        return ()
    written = [row for row, text in enumerate(teacher.tokens) if len(text)]
    if not written:
        return ()
    matches = draft_matches(variant, dataset, teacher, site.streams)
    groups = None if teacher.groups is None else teacher.groups[written]
    measures = draft_measures(matches, seed=study.seed, groups=groups)
    return tuple(PairedMeasure(variant.name, variant.family, *one) for one in measures)


def _score_ensemble(
    study: Study,
    prepared_ensemble: PreparedEnsemble,
    prepared: PreparedFamily,
    served: Served,
    folder: RunFolder,
    progress: ProgressSink,
) -> QualityEntry:
    """Text in, label out: what is lost or mixed up around the model shows here."""
    ensemble = prepared_ensemble.ensemble
    dataset = prepared.datasets[ensemble.model.name]
    kind = study.serving_of(prepared.family).instance_kind
    serving = ServingConfig(max_batch_size=SCORING_BATCH, instance_kind=kind)
    served.load(ensemble.variant, serving)
    outcomes = collect_text_answers(
        ensemble.variant,
        dataset,
        prepared_ensemble.texts,
        served.site.client,
        batch_size=SCORING_BATCH,
        progress=progress,
    )
    check_after_failure(served.site.server)
    served.unload(ensemble.variant)
    write_outcomes(outcomes_path(folder, ensemble.variant.name), outcomes, dataset)
    teacher = read_outcomes(_teacher_path(folder, prepared))
    scores = score(outcomes, dataset, variant=ensemble.variant, teacher=teacher, seed=study.seed)
    return QualityEntry(
        ensemble.variant.name,
        ensemble.variant.sha256,
        tuple(scores),
        teacher_sha256=prepared.teacher.sha256,
    )


def _score_baseline(study: Study, prepared: PreparedFamily, folder: RunFolder) -> None:
    dataset = prepared.datasets[prepared.teacher.name]
    name = f"{prepared.family.name}-tfidf"
    scores = baseline_scores(
        family_of(prepared.family.task).told(name, prepared.baseline, dataset),
        dataset,
        family=prepared.family.name,
        teacher=read_outcomes(_teacher_path(folder, prepared)),
        seed=study.seed,
    )
    folder.journal.add(QualityEntry(name, "", tuple(scores)))


def _teacher_path(folder: RunFolder, prepared: PreparedFamily) -> Path:
    return outcomes_path(folder, prepared.teacher.name)


def outcomes_path(folder: RunFolder, variant: str) -> Path:
    """Where a variant's answers to every sample lie."""
    return samples_file(folder.path, variant)
