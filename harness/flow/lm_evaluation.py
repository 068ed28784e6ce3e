"""lm-evaluation-harness's tasks through the endpoint, for every model that can answer them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError, ServerError
from harness.flow.lm_plan import TaskEvaluation, open_tokenizer, tokens_taken
from harness.flow.options import ProgressSink
from harness.flow.preparation import PreparedFamily
from harness.flow.scoring import standing
from harness.flow.serving import Served, Site, check_after_failure
from harness.quality.lm_eval.classifier import choice_outputs, document_form
from harness.quality.lm_eval.generation import end_tokens, generation_settings
from harness.quality.lm_eval.tasks import LoadedTask
from harness.quality.token_scores import AnswerCache, TokenScorer
from harness.runs.folder import RunFolder
from harness.serving.external.server import REMOTE_DIGEST
from harness.study import Model, SequenceClassification, Study, variants_of
from harness.system.storage import cache_root
from harness.tasks.classification.rows import LabelledSamples
from harness.tasks.loading import encode
from harness.tasks.registry import family_of
from harness.types import ModelVariant, Progress, ServingConfig, TaskEntry
from harness.words.numbers import things

if TYPE_CHECKING:
    from harness.quality.lm_eval.model import ServedLM
    from harness.quality.lm_eval.served_classifier import ServedClassifier

ROWS_PER_REQUEST = 16
"""Rows per request and the served maximum: a full request is executed as it is, in every run
alike."""
FOLDER = "lm_eval"


def evaluation_serving(kind: str) -> ServingConfig:
    """How a model is served while it is only asked: as much of the machine as helps.

    On a CPU two instances, so that one computes while the other's rows are read and written, and
    the cores between them; on a GPU one.
    """
    if kind != "cpu":
        return ServingConfig(max_batch_size=ROWS_PER_REQUEST, instance_kind=kind)
    cores = len(os.sched_getaffinity(0))
    instances = min(2, cores)
    return ServingConfig(
        max_batch_size=ROWS_PER_REQUEST,
        instance_count=instances,
        intra_op_threads=cores // instances,
    )


def evaluate_family(
    study: Study,
    prepared: PreparedFamily,
    served: Served,
    folder: RunFolder,
    evaluation: TaskEvaluation,
    progress: ProgressSink,
) -> None:
    """Let every variant answer what the journal does not hold yet; the teacher comes first.

    Raises:
        ServerError: the server died, or has another model now than at the start.
    """
    tasks = evaluation.tasks_of(prepared.family)
    for variant in standing(prepared, folder):
        todo = [task for task in tasks if not _done(folder, prepared, variant, task)]
        if not todo:
            continue
        serving = evaluation_serving(study.serving_of(prepared.family).instance_kind)
        served.load(variant, serving)
        served.site.check_model(variant)
        cache = _cache(prepared, variant, serving) if evaluation.use_cache else None
        for task in todo:
            with _of_one_model(served.site, variant, cache):
                entry = _evaluate(study, prepared, variant, task, served, folder, cache, progress)
            folder.journal.add(entry)
            progress(Progress(_stage(variant), 1, 1, _told(entry)))
        served.unload(variant)


def _cache(prepared: PreparedFamily, variant: ModelVariant, serving: ServingConfig) -> AnswerCache:
    """The kept answers of this model, with its tokenizer, on this kind of device."""
    return AnswerCache(
        cache_root() / "answers",
        variant.sha256,
        prepared.opened[variant.name].checkpoint.digest,
        serving.instance_kind,
        version("lm_eval"),
    )


@contextmanager
def _of_one_model(site: Site, variant: ModelVariant, cache: AnswerCache | None) -> Iterator[None]:
    """Make sure that all answers were one model's; else none is kept for later.

    Also of a task that did not end, whose answers so far are kept. An artefact of our own lies
    where nobody else writes: its answers are good whatever becomes of the server.
    """
    try:
        yield
    finally:
        try:
            check_after_failure(site.server)
            site.check_model(variant)
        except ServerError:
            if cache is not None and variant.sha256.startswith(REMOTE_DIGEST):
                cache.forget()
            raise


def _tokenizer_folder(prepared: PreparedFamily, variant: ModelVariant) -> Path:
    """Folder of the artefact's tokenizer, else of its checkpoint's."""
    own = variant.path / "tokenizer"
    return own if own.is_dir() else prepared.opened[variant.name].checkpoint.folder


def _done(
    folder: RunFolder, prepared: PreparedFamily, variant: ModelVariant, task: LoadedTask
) -> bool:
    entry = folder.journal.tasks.get(f"{variant.name}/{task.name}")
    wanted = variant.sha256, prepared.teacher.sha256, task.digest
    return entry is not None and (entry.sha256, entry.teacher_sha256, entry.digest) == wanted


def _stage(variant: ModelVariant) -> str:
    return f"lm-eval of {variant.name}"


def _told(entry: TaskEntry) -> str:
    """What a reader must know of a finished task beside its score."""
    parts = [f"{entry.task}: {things(entry.requests, 'request')}"]
    if entry.from_cache:
        known = entry.from_cache + entry.asked
        parts.append(
            f"{entry.from_cache} of {known} answers known from an earlier run (--no-cache asks all)"
        )
    if entry.unanswered:
        parts.append(f"{entry.unanswered} unanswered")
    if entry.truncated:
        parts.append(f"{entry.truncated} with the context cut to the model's length")
    if entry.windowed:
        parts.append(f"{things(entry.windowed, 'text')} in windows of the model's length")
    return ", ".join(parts)


def _evaluate(  # noqa: PLR0913, PLR0917  (all of one step: who answers what, where it is kept)
    study: Study,
    prepared: PreparedFamily,
    variant: ModelVariant,
    task: LoadedTask,
    served: Served,
    folder: RunFolder,
    cache: AnswerCache | None,
    progress: ProgressSink,
) -> TaskEntry:
    from harness.quality.lm_eval.classifier import class_metrics
    from harness.quality.lm_eval.evaluation import evaluate_task, read_samples, write_results
    from harness.quality.lm_eval.scores import task_scores

    def tell(done: int, total: int) -> None:
        progress(Progress(_stage(variant), done, max(total, 1), task.name))

    if isinstance(prepared.family.task, SequenceClassification):
        classifier = _classifier(prepared, variant, task, served, tell)
        with class_metrics(task.tasks):
            results = evaluate_task(classifier, task, variant)
        counts, answers = classifier.counts, classifier.answers
    else:
        model = _language_model(prepared, variant, served, cache, tell)
        results = evaluate_task(model, task, variant)
        counts, answers = model.counts, model.answers
    files = write_results(folder.path / FOLDER / variant.name, task.name, results)
    scores = []
    for name, file in files.items():
        own = read_samples(file)
        teacher = folder.path / FOLDER / prepared.teacher.name / file.name
        scores += task_scores(
            task.tasks[name],
            own,
            variant=variant,
            teacher_samples=own if variant == prepared.teacher else read_samples(teacher),
            outcomes_file=str(file.relative_to(folder.path)),
            seed=study.seed,
        )
    return TaskEntry(
        variant=variant.name,
        sha256=variant.sha256,
        task=task.name,
        digest=task.digest,
        scores=tuple(scores),
        requests=counts.requests,
        unanswered=counts.unanswered,
        truncated=counts.truncated,
        windowed=counts.windowed,
        from_cache=answers.kept,
        asked=answers.asked,
        teacher_sha256=prepared.teacher.sha256,
    )


def _language_model(
    prepared: PreparedFamily,
    variant: ModelVariant,
    served: Served,
    cache: AnswerCache | None,
    tell: Callable[[int, int], None],
) -> ServedLM:
    from harness.quality.lm_eval.model import ServedLM
    from harness.quality.lm_eval.streamed import StreamScorer

    model = _model_of(prepared, variant)
    folder = _tokenizer_folder(prepared, variant)
    tokenizer, _, positions = open_tokenizer(folder, model)
    scorer: TokenScorer | StreamScorer
    if served.site.streams is not None and family_of(variant.task).writes:
        scorer = StreamScorer(variant, served.site.streams)
    else:
        scorer = TokenScorer(
            variant,
            served.site.client,
            pad_token_id=tokenizer.pad_token_id,
            cache=cache,
            rows_per_request=ROWS_PER_REQUEST,
        )
    return ServedLM(
        scorer,
        tokenizer,
        max_length=tokens_taken(prepared.family, positions),
        end_tokens=end_tokens(generation_settings(folder)),
        progress=tell,
    )


def _classifier(
    prepared: PreparedFamily,
    variant: ModelVariant,
    task: LoadedTask,
    served: Served,
    tell: Callable[[int, int], None],
) -> ServedClassifier:
    """Raise DataError if a choice is not a class of the model."""
    from harness.quality.lm_eval.served_classifier import ChosenTask, ServedClassifier

    section, opened = prepared.family.task, prepared.opened[variant.name]
    samples = opened.samples
    if not isinstance(section, SequenceClassification) or not isinstance(samples, LabelledSamples):
        raise DataError(f"{variant.name} answers with no classes that have names or numbers")
    chosen = {}
    for name, one in task.tasks.items():
        form = document_form(one, section)
        chosen[name] = ChosenTask(
            one, form, choice_outputs(form, variant.name, samples.class_names)
        )
    model = _model_of(prepared, variant)
    return ServedClassifier(
        variant,
        served.site.client,
        chosen,
        label_names=samples.class_names,
        encode=lambda documents: encode(
            section,
            documents,
            opened.checkpoint.folder,
            trust_remote_code=model.trust_remote_code,
        ),
        max_length=section.max_length,
        batch_size=min(served.largest_batch(variant) or ROWS_PER_REQUEST, ROWS_PER_REQUEST),
        progress=tell,
    )


def _model_of(prepared: PreparedFamily, variant: ModelVariant) -> Model:
    return next(one for one in prepared.family.models if variant.name in variants_of(one))
