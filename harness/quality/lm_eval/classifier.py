"""A sequence classifier's answers to lm-eval's tasks of choice: its documents, split and metrics.

A language model is asked how likely each choice is after a prompt. A classifier is asked for the
classes of the document itself: the columns that hold its text (and the pair's second text) go
through the model's own tokenizer, without prompt or examples, and the probability of a class is the
likelihood of the choice that stands for it. Accuracy, F1 and Matthews' correlation are then
lm-eval's own. What weighs a likelihood by the length of its choice (`acc_norm`) has no meaning for
a class and is left out; the perplexity of the right class is added.

Which columns, and which class each choice is, comes from the first of:

1. the task's own file: `metadata: {classifier: {text: COLUMN, text_pair: COLUMN, classes: [...]}}`,
   the classes in the order of the choices;
2. the table of GLUE's tasks below, where the task's choices are those of the table;
3. the study's task: its `text` and `text_pair`, where the documents have these columns, and the
   choices themselves as the names of the classes.

The classes are found among the model's as the labels of a study are (`harness.tasks.labels`): by
name, whatever their order. A model without names for its classes is taken at the order of the
choices, and that is said. Every choice must be one class and every class one choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness.errors import DataError
from harness.study import SequenceClassification
from harness.tasks.classification.statistics import LEAST_NATS
from harness.tasks.label_values import is_generic
from harness.tasks.labels import choose_reading

CHOICES = "multiple_choice"
"""lm-eval's `output_type` of the tasks that a classifier can answer."""
LABEL_PERPLEXITY = "label_perplexity"
"""exp of the mean negative log likelihood of the right class."""
_WEIGHED_BY_LENGTH = frozenset({"acc_norm", "acc_bytes", "acc_mutual_info"})
_KEY = "classifier"
_KEYS = ("text", "text_pair", "classes")


@dataclass(frozen=True)
class DocumentForm:
    """What a classifier reads of a task's documents, and the class of each choice."""

    text: str
    """Column of the text (of a pair: the first)."""
    text_pair: str | None
    """Column of the pair's second text."""
    classes: tuple[str, ...]
    """Names of the classes that the choices stand for, in the order of the choices."""


@dataclass(frozen=True)
class _GlueTask:
    form: DocumentForm
    choices: tuple[str, ...]
    """The choices in lm-eval's words: other choices would be other classes."""


def _glue(columns: str, choices: str, classes: str) -> _GlueTask:
    text, *pair = columns.split()
    form = DocumentForm(text, pair[0] if pair else None, tuple(classes.split()))
    return _GlueTask(form, tuple(choices.split()))


_NLI = "entailment neutral contradiction"
_FOLLOWS = "entailment not_entailment"
GLUE: Mapping[str, _GlueTask] = MappingProxyType(
    {
        "cola": _glue("sentence", "no yes", "unacceptable acceptable"),
        "sst2": _glue("sentence", "negative positive", "negative positive"),
        "mrpc": _glue("sentence1 sentence2", "no yes", "not_equivalent equivalent"),
        "qqp": _glue("question1 question2", "no yes", "not_duplicate duplicate"),
        "mnli": _glue("premise hypothesis", "True Neither False", _NLI),
        "mnli_mismatch": _glue("premise hypothesis", "True Neither False", _NLI),
        "qnli": _glue("question sentence", "yes no", _FOLLOWS),
        "rte": _glue("sentence1 sentence2", "True False", _FOLLOWS),
        "wnli": _glue("sentence1 sentence2", "False True", "not_entailment entailment"),
    }
)
"""GLUE's tasks by lm-eval's name. The classes are those that the data sets declare, in the order of
the gold label; the textual similarity benchmark (stsb) has no task in lm-eval."""


def document_form(task: Any, section: SequenceClassification) -> DocumentForm:
    """What a classifier reads of a task's documents.

    Args:
        task: lm-eval's task object, with its requests built.
        section: the study's task.

    Raises:
        DataError: the task cannot be put to a classifier, with what would settle it.
    """
    if task.OUTPUT_TYPE != CHOICES:
        raise DataError(f"it asks for {task.OUTPUT_TYPE}, and a classifier chooses among classes")
    documents = documents_of(task)
    choices = _choices_of(task, documents)
    form = _own_form(task, choices) or _glue_form(task, choices)
    columns = set(documents[0])
    if form is None and section.text in columns:
        form = DocumentForm(section.text, section.text_pair, choices)
    if form is None:
        raise DataError(
            "nothing says which column is the text, and which class each of its choices "
            f"({_listed(choices)}) is; its columns are {_listed(sorted(columns))}",
            next_step="write into the task's file: metadata: {classifier: {text: COLUMN, "
            "text_pair: COLUMN, classes: [...]}}, the classes in the order of the choices",
        )
    absent = [one for one in (form.text, form.text_pair) if one and one not in columns]
    if absent:
        raise DataError(
            f"its documents have no column {_listed(absent)}; they have {_listed(sorted(columns))}"
        )
    return form


def documents_of(task: Any) -> list[Mapping[str, Any]]:
    """The documents that a task's requests are about, each once, in the order of `document_ids`."""
    found = {one.doc_id: one.doc for one in task.instances}
    return [found[number] for number in document_ids(task)]


def document_ids(task: Any) -> list[int]:
    """lm-eval's numbers of the documents that a task's requests are about, ascending."""
    return sorted({int(one.doc_id) for one in task.instances})


def _choices_of(task: Any, documents: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The choices shared by all documents; choices that differ are texts rather than classes."""
    choices = tuple(map(str, task.doc_to_choice(documents[0])))
    if any(tuple(map(str, task.doc_to_choice(one))) != choices for one in documents):
        raise DataError("its choices are other texts in every document, and no classes")
    return choices


def _own_form(task: Any, choices: Sequence[str]) -> DocumentForm | None:
    """What the task's own file says."""
    metadata = task.config.metadata
    given = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if given is None:
        return None
    text = given.get("text") if isinstance(given, dict) else None
    if not isinstance(text, str):
        raise DataError("its metadata.classifier names no column as text: {text: COLUMN, ...}")
    if unknown := [str(key) for key in given if key not in _KEYS]:
        raise DataError(
            f"its metadata.classifier has the unknown key {_listed(unknown)}; there are "
            f"{_listed(_KEYS)}"
        )
    classes = tuple(map(str, given.get("classes") or choices))
    if len(classes) != len(choices):
        raise DataError(
            f"its metadata.classifier names {len(classes)} classes, and it has {len(choices)} "
            f"choices ({_listed(choices)})"
        )
    return DocumentForm(text, given.get("text_pair"), classes)


def _glue_form(task: Any, choices: Sequence[str]) -> DocumentForm | None:
    known = GLUE.get(str(task.config.task))
    return known.form if known and known.choices == tuple(choices) else None


def gold_choice(task: Any, document: Mapping[str, Any]) -> int | None:
    """Position of the right choice, as lm-eval reads it; None where the document has none."""
    choices = task.doc_to_choice(document)
    gold = task.doc_to_target(document)
    if isinstance(gold, str):
        return choices.index(gold) if gold in choices else None
    return int(gold) if isinstance(gold, int) and 0 <= gold < len(choices) else None


def check_documents(task: Any, form: DocumentForm) -> None:
    """Make sure that every document has a text to read and one right choice.

    Raises:
        DataError: with the first that has not, and how many there are.
    """
    documents = documents_of(task)
    columns = [one for one in (form.text, form.text_pair) if one]
    faults = [
        f"'{column}' of document {place} is not text"
        for place, document in enumerate(documents)
        for column in columns
        if not isinstance(document[column], str)
    ]
    faults = faults or [
        f"document {place} has no label (-1 marks an unlabelled split), or several"
        for place, document in enumerate(documents)
        if gold_choice(task, document) is None
    ]
    if faults:
        raise DataError(f"{faults[0]}; {len(faults)} of {len(documents)} documents are like that")


@dataclass(frozen=True)
class ChoiceOutputs:
    """Which of a model's outputs each choice is."""

    outputs: tuple[int, ...]
    """Outputs in the order of the choices."""
    note: str = ""
    """What a person should know of it; empty where the classes have names."""


def choice_outputs(form: DocumentForm, model: str, names: Sequence[str]) -> ChoiceOutputs:
    """Find the class of each choice among a model's outputs.

    Args:
        form: names the classes.
        model: as messages name it.
        names: of the model's outputs, in order; LABEL_0 and its like count as none.

    Raises:
        DataError: a class that the model does not have, or has besides; with both lists.
    """
    reading = choose_reading(list(form.classes), model, names, order=form.classes)
    found = [reading.reader.read(one) for one in form.classes]
    known = [one for one in found if one is not None]
    problem = reading.problem
    if not problem and (len(known) < len(found) or sorted(known) != [*range(len(names))]):
        problem = (
            f"labels do not match the classes of {model}: the task's are "
            f"[{_listed(form.classes)}], the checkpoint's are [{_listed(names)}]: each choice must "
            "be one class, and each class one choice"
        )
    if problem:
        raise DataError(
            problem,
            next_step="name the model's classes in the order of the choices: metadata: "
            "{classifier: {text: COLUMN, classes: [...]}} in the task's file",
        )
    note = ""
    if is_generic(names):
        order = ", ".join(f"output {place} is {one}" for place, one in enumerate(form.classes))
        note = (
            f"{model} has no names for its classes, so they are taken in the task's order: {order}"
        )
    return ChoiceOutputs(tuple(known), note)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


@contextmanager
def class_metrics(tasks: Mapping[str, Any]) -> Iterator[None]:
    """Give tasks the metrics of a classifier while it answers them.

    The perplexity of the right class joins the task's own metrics, and those that weigh a
    likelihood by the length of its choice are left out.

    Args:
        tasks: lm-eval's task objects, by name.
    """
    with ExitStack() as restore:
        for task in tasks.values():
            own, known, better = task.process_results, task.aggregation, task.higher_is_better
            restore.callback(setattr, task, "process_results", own)
            restore.callback(setattr, task, "aggregation", known)
            restore.callback(setattr, task, "higher_is_better", better)
            task.process_results = _of_classes(task, own)
            task.aggregation = _adding(known, label_perplexity)
            task.higher_is_better = _adding(better, False)
        yield


def _of_classes(
    task: Any, process: Callable[[Any, Sequence[Any]], Mapping[str, Any]]
) -> Callable[[Any, Sequence[Any]], Mapping[str, Any]]:
    def process_results(document: Any, results: Sequence[Any]) -> Mapping[str, Any]:
        metrics = process(document, results)
        kept = {name: one for name, one in metrics.items() if name not in _WEIGHED_BY_LENGTH}
        gold = gold_choice(task, document)
        if gold is None:
            return kept
        # Minus infinity, of a class that is ruled out, would leave no sum to take.
        return {**kept, LABEL_PERPLEXITY: max(results[gold][0], LEAST_NATS)}

    return process_results


def _adding(own: Callable[[], Mapping[str, Any]], value: Any) -> Callable[[], Mapping[str, Any]]:
    return lambda: {**own(), LABEL_PERPLEXITY: value}


def label_perplexity(log_likelihoods: Sequence[float]) -> float:
    """Exp of the mean negative log likelihood of each document's right class.

    It is bounded near the largest number there is, so that a broken model has one too.
    """
    return math.exp(min(-math.fsum(log_likelihoods) / len(log_likelihoods), 700.0))
