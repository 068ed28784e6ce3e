"""lm-evaluation-harness's tasks through the endpoint, for every language model of a study."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.errors import ServerError, StudyError, UsageError
from harness.export.checkpoint import inspect_checkpoint
from harness.export.configuration import positions_held, vocabulary_size
from harness.flow.options import ProgressSink
from harness.flow.preparation import PreparedFamily
from harness.flow.scoring import standing
from harness.flow.serving import Served, Site
from harness.quality.answer_cache import AnswerCache
from harness.quality.lm_eval.generation import end_tokens, generation_settings, not_kept_of
from harness.quality.lm_eval.tasks import LoadedTask
from harness.quality.token_scores import TokenScorer
from harness.runs.folder import RunFolder
from harness.serving.external.server import REMOTE_DIGEST
from harness.study import Family, Model, Study, variants_of
from harness.system.cache import cache_root
from harness.system.extras import quiet
from harness.tasks.registry import family_of
from harness.tasks.tokenizers import load_tokenizer
from harness.types import ModelVariant, Progress, ServingConfig, TaskEntry

ROWS_PER_REQUEST = 16
"""And the served maximum: a full request is executed as it is, in every run alike."""
FOLDER = "lm_eval"


@dataclass(frozen=True)
class TaskEvaluation:
    """Tasks that a study's language models are to answer."""

    tasks: tuple[LoadedTask, ...]
    use_cache: bool = True


def check_language_models(study: Study, tasks: Sequence[LoadedTask]) -> None:
    """Make sure that somebody can answer, and that what is asked fits the model.

    Raises:
        UsageError: no family is a language model's.
        StudyError: with every problem: a tokenizer of another model, texts longer than it takes.
    """
    families = [family for family in study.families if _answers(family)]
    if not families:
        raise UsageError(
            f"no model of study {study.name} can answer an lm-eval task: those ask a causal "
            "language model how likely a continuation is, which a sequence classifier cannot say",
            next_step="its classifiers are scored on the study's own data: leave --tasks out",
        )
    problems = [
        f"family {family.name}, model {model.name}: {problem}"
        for family in families
        for model in family.models
        if not model.reference_name
        for problem in _misfits(model, tasks)
    ]
    if problems:
        raise StudyError(f"study {study.name}", problems)


def families_without_answer(study: Study) -> tuple[str, ...]:
    """Families of classifiers: lm-eval's tasks pass them by."""
    return tuple(family.name for family in study.families if not _answers(family))


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
    if not _answers(prepared.family):
        return
    for variant in standing(prepared, folder):
        todo = [task for task in evaluation.tasks if not _done(folder, prepared, variant, task)]
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
    """Of answers of this very model, with its tokenizer, on this kind of device."""
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
            site.server.check()
            site.check_model(variant)
        except ServerError:
            if cache is not None and variant.sha256.startswith(REMOTE_DIGEST):
                cache.forget()
            raise


def _tokenizer_folder(prepared: PreparedFamily, variant: ModelVariant) -> Path:
    """Where the artefact keeps its own; of one that lies elsewhere, its checkpoint's."""
    own = variant.path / "tokenizer"
    return own if own.is_dir() else prepared.opened[variant.name].checkpoint.folder


def _answers(family: Family) -> bool:
    return family_of(family.task).causal


def _misfits(model: Model, tasks: Sequence[LoadedTask]) -> Iterator[str]:
    """What a model's own files say against it."""
    place = inspect_checkpoint(model, None).folder
    tokenizer, config, max_length = _open(place, model)
    last = max(tokenizer.get_vocab().values())
    size = vocabulary_size(config)
    if size is not None and last >= size:
        yield (
            f"its tokenizer makes tokens up to {last}, but its vocabulary ends at "
            f"{size - 1}: the tokenizer is another model's"
        )
    if tasks and tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        yield "its tokenizer has no begin-of-text and no end-of-text token: lm-eval needs one"
    settings = generation_settings(place)
    for task in tasks:
        if task.generations and tokenizer.eos_token_id is None:
            yield f"task {task.name} generates, and its tokenizer has no end-of-text token"
        for asked in task.generations:
            yield from (f"task {task.name}: {one}" for one in not_kept_of(settings, asked))
        if task.generated_tokens >= max_length:
            yield (
                f"task {task.name} generates up to {task.generated_tokens} tokens, and the model "
                f"takes {max_length} with the prompt: set max_gen_toks in the task"
            )


def _open(folder: Path, model: Model) -> tuple[Any, Any, int]:
    """Tokenizer, configuration, and the tokens the model takes as lm-eval reads it from them."""
    from lm_eval.models.utils import resolve_max_length
    from transformers import AutoConfig

    tokenizer = load_tokenizer(folder, trust_remote_code=model.trust_remote_code)
    with quiet():
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=model.trust_remote_code
        )
    length, held = resolve_max_length(config, tokenizer), positions_held(config)
    return tokenizer, config, length if held is None else min(length, held)


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
    parts = [f"{entry.task}: {entry.requests} requests"]
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
        parts.append(f"{entry.windowed} texts in windows of the model's length")
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
    from harness.quality.lm_eval.evaluation import evaluate_task, read_samples, write_results
    from harness.quality.lm_eval.model import ServedLM
    from harness.quality.lm_eval.scores import task_scores

    model = next(one for one in prepared.family.models if variant.name in variants_of(one))
    folder_of_model = _tokenizer_folder(prepared, variant)
    tokenizer, _, max_length = _open(folder_of_model, model)
    scorer = TokenScorer(
        variant,
        served.site.client,
        pad_token_id=tokenizer.pad_token_id,
        cache=cache,
        rows_per_request=ROWS_PER_REQUEST,
    )
    lm = ServedLM(
        scorer,
        tokenizer,
        max_length=max_length,
        end_tokens=end_tokens(generation_settings(folder_of_model)),
        progress=lambda done, total: progress(
            Progress(_stage(variant), done, max(total, 1), task.name)
        ),
    )
    results = evaluate_task(lm, task, variant)
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
    counts = lm.counts
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
        from_cache=scorer.counts.kept,
        asked=scorer.counts.asked,
        teacher_sha256=prepared.teacher.sha256,
    )
