"""Which of a study's models answer which of lm-eval's tasks, found out before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import DataError, StudyError, UsageError
from harness.export.checkpoint import inspect_checkpoint
from harness.export.checkpoint_files import positions_held, vocabulary_size
from harness.flow.inputs import StudyInputs
from harness.quality.lm_eval.classifier import (
    DocumentForm,
    check_documents,
    choice_outputs,
    document_form,
)
from harness.quality.lm_eval.generation import generation_settings, not_kept_of
from harness.quality.lm_eval.tasks import LoadedTask
from harness.reference.recipes import PROSE_LENGTH
from harness.study import (
    Family,
    Model,
    ReferenceData,
    SequenceClassification,
    Study,
    teacher_first,
)
from harness.system.libraries import quiet
from harness.tasks.classification.rows import LabelledSamples
from harness.tasks.labels import LabelReader
from harness.tasks.registry import family_of
from harness.tasks.tokenizers import load_tokenizer


@dataclass(frozen=True)
class TaskEvaluation:
    """Tasks that a study's models are to answer."""

    tasks: Mapping[str, tuple[LoadedTask, ...]]
    """By family, the tasks that its models can answer."""
    use_cache: bool = True
    notes: tuple[str, ...] = field(default=())
    """What a person should know before: tasks that pass a family by, classes without names."""

    def tasks_of(self, family: Family) -> tuple[LoadedTask, ...]:
        """What a family's models are asked."""
        return self.tasks.get(family.name, ())


def check_somebody_answers(study: Study) -> None:
    """Make sure that lm-eval's tasks can be put to a family of a study at all.

    Raises:
        UsageError: no family is of language models or of sequence classifiers.
    """
    if not any(_is_causal(one) or _is_classifier(one) for one in study.families):
        raise UsageError(
            f"no model of study {study.name} can answer an lm-eval task: those ask a causal "
            "language model how likely a continuation is, or a sequence classifier for a class",
            next_step="its models are scored on the study's own data: leave --tasks out",
        )


def plan_evaluation(
    study: Study, tasks: Sequence[LoadedTask], inputs: StudyInputs, *, use_cache: bool
) -> TaskEvaluation:
    """Find out who answers what, and make sure that what is asked fits the models.

    Args:
        study: its inputs checked.
        tasks: what was asked for.
        inputs: holds the samples that the check has read.
        use_cache: whether answers of earlier runs count.

    Raises:
        StudyError: with every problem: a task that no family answers, a tokenizer of another
            model, texts longer than a model takes, classes that are not the task's.
    """
    asked: dict[str, tuple[LoadedTask, ...]] = {}
    reasons: dict[str, list[str]] = {task.name: [] for task in tasks}
    problems: list[str] = []
    notes: list[str] = []
    for family in study.families:
        own = []
        for task in tasks:
            if reason := _unanswerable(family, task):
                reasons[task.name].append(f"family {family.name}: {reason}")
            else:
                own.append(task)
        asked[family.name] = tuple(own)
        problems += _family_problems(study, family, own, inputs, notes)
    for name, why in reasons.items():
        told = [f"task {name}: {one}" for one in why]
        if len(why) == len(study.families):
            problems += told
        else:
            notes += told
    if problems:
        raise StudyError(f"study {study.name}", problems)
    return TaskEvaluation(asked, use_cache, tuple(dict.fromkeys(notes)))


def _is_causal(family: Family) -> bool:
    return family_of(family.task).causal


def _is_classifier(family: Family) -> bool:
    return isinstance(family.task, SequenceClassification)


def _unanswerable(family: Family, task: LoadedTask) -> str:
    """Why a family's models cannot answer a task; empty where they can."""
    if _is_causal(family):
        return ""
    section = family.task
    if task.chat is not None:
        return "a chat template is for language models"
    if not isinstance(section, SequenceClassification):
        return f"its models do {section.kind}, which answers no task of lm-eval"
    try:
        for one in task.tasks.values():
            check_documents(one, document_form(one, section))
    except DataError as error:
        return f"{error} ({error.next_step})" if error.next_step else str(error)
    return ""


def _family_problems(
    study: Study,
    family: Family,
    tasks: Sequence[LoadedTask],
    inputs: StudyInputs,
    notes: list[str],
) -> Iterator[str]:
    if _is_causal(family):
        if any(task.chat is not None for task in tasks):
            for model in family.models:
                if model.reference_name:
                    yield (
                        f"family {family.name}, model {model.name}: the embedded models have no "
                        "chat template (leave out --apply-chat-template)"
                    )
        found: Iterator[tuple[Model, str]] = (
            (model, problem)
            for model in family.models
            for problem in (
                _crowded(family, tasks, PROSE_LENGTH)
                if model.reference_name
                else _misfits(family, model, tasks)
            )
        )
    elif tasks:
        found = _class_problems(study, family, tasks, inputs, notes)
    else:
        return
    for model, problem in found:
        yield f"family {family.name}, model {model.name}: {problem}"


def _class_problems(
    study: Study,
    family: Family,
    tasks: Sequence[LoadedTask],
    inputs: StudyInputs,
    notes: list[str],
) -> Iterator[tuple[Model, str]]:
    """Choices that are no class of a model; our own models are known once they are trained."""
    section = family.task
    if not isinstance(section, SequenceClassification) or isinstance(section.data, ReferenceData):
        return
    forms = [document_form(one, section) for task in tasks for one in task.tasks.values()]
    teacher: LabelReader | None = None
    for model in teacher_first(family.models):
        if model.reference_name:
            continue
        preview = inspect_checkpoint(model, None, task=section)
        samples = inputs.samples(
            section,
            seed=study.seed,
            label_names=preview.label_names,
            model=model.name,
            teacher=teacher,
        )
        teacher = teacher or samples.reader
        if isinstance(samples, LabelledSamples):
            yield from _unfit_classes(model, forms, samples.class_names, notes)


def _unfit_classes(
    model: Model, forms: Sequence[DocumentForm], names: Sequence[str], notes: list[str]
) -> Iterator[tuple[Model, str]]:
    for form in forms:
        try:
            found = choice_outputs(form, model.name, names)
        except DataError as error:
            yield model, f"{error} ({error.next_step})"
        else:
            notes += [found.note] if found.note else []


def tokens_taken(family: Family, positions: int) -> int:
    """Tokens that a language model takes as it is served; the last of them is only predicted.

    Args:
        family: of the model.
        positions: that the model itself has.
    """
    section = family.task
    # What writes is served with the study's context, in which the predicted token has a place.
    return min(positions, section.max_length - 1) if family_of(section).writes else positions


def _crowded(family: Family, tasks: Sequence[LoadedTask], positions: int) -> Iterator[str]:
    """Tasks whose answers leave no room for a prompt."""
    taken = tokens_taken(family, positions)
    remedy = "lower max_gen_toks in the task's generation_kwargs"
    if taken < positions - 1:  # the study sets the limit
        remedy += (
            f", or raise max_length in the study's task, which is {family.task.max_length} "
            f"(the model has {positions} positions)"
        )
    for task in tasks:
        if task.generated_tokens >= taken:
            yield (
                f"task {task.name} generates up to {task.generated_tokens} tokens, and the model "
                f"takes {taken} with the prompt: {remedy}"
            )


def _misfits(family: Family, model: Model, tasks: Sequence[LoadedTask]) -> Iterator[str]:
    """What a language model's own files say against it."""
    place = inspect_checkpoint(model, None).folder
    tokenizer, config, max_length = open_tokenizer(place, model)
    if any(task.chat is not None for task in tasks) and not tokenizer.chat_template:
        yield (
            "its tokenizer has no chat template: leave out --apply-chat-template, or save the "
            "template beside it (chat_template.jinja)"
        )
    last = max(tokenizer.get_vocab().values())
    size = vocabulary_size(config)
    if size is not None and last >= size:
        yield (
            f"its tokenizer makes tokens up to {last}, but its vocabulary ends at "
            f"{size - 1}: the tokenizer is another model's"
        )
    if tasks and config.is_encoder_decoder:
        yield "it has an encoder, and lm-eval's tasks are put to causal language models alone"
        return
    if tasks and tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        yield "its tokenizer has no begin-of-text and no end-of-text token: lm-eval needs one"
    settings = generation_settings(place)
    for task in tasks:
        if task.generations and tokenizer.eos_token_id is None:
            yield f"task {task.name} generates, and its tokenizer has no end-of-text token"
        for asked in task.generations:
            found = not_kept_of(settings, asked, writes=family_of(family.task).writes)
            yield from (f"task {task.name}: {one}" for one in found)
    yield from _crowded(family, tasks, max_length)


def open_tokenizer(folder: Path, model: Model) -> tuple[Any, Any, int]:
    """Tokenizer, configuration, and the tokens the model takes as lm-eval reads it from them.

    Raises:
        CheckpointError: the tokenizer is missing or unusable.
    """
    from lm_eval.models.utils import resolve_max_length
    from transformers import AutoConfig

    tokenizer = load_tokenizer(folder, trust_remote_code=model.trust_remote_code)
    with quiet():
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=model.trust_remote_code
        )
    length, held = resolve_max_length(config, tokenizer), positions_held(config)
    return tokenizer, config, length if held is None else min(length, held)
