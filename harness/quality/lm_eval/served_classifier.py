"""A served sequence classifier as lm-evaluation-harness sees one: each choice is a class.

Importing this module imports lm_eval.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.quality.collection import Predictor, collect_outcomes
from harness.quality.lm_eval.classifier import (
    ChoiceOutputs,
    DocumentForm,
    document_ids,
    documents_of,
    gold_choice,
)
from harness.quality.lm_eval.model import UNANSWERED, RequestCounts
from harness.quality.token_scores import ScoringCounts
from harness.tasks.classification.rows import LabelledSamples
from harness.tasks.encoding import EncodedDataset
from harness.types import ModelVariant, Progress


@dataclass(frozen=True)
class ChosenTask:
    """One of lm-eval's tasks, and how a model's classes answer it."""

    task: Any
    """lm-eval's object."""
    form: DocumentForm
    choices: ChoiceOutputs


class ServedClassifier(LM):  # type: ignore[misc]  # lm_eval comes without types
    """A sequence classifier behind the endpoint.

    Args:
        variant: the loaded model.
        predictor: the way to the endpoint.
        tasks: what is asked, by lm-eval's name.
        label_names: of the model's outputs, in order.
        encode: makes the model's inputs of samples.
        max_length: tokens the study lets a text have.
        batch_size: rows of a request: the served `max_batch_size`.
        progress: called with documents done and their number.
    """

    def __init__(  # noqa: PLR0913  (one model, and everything that is asked of it)
        self,
        variant: ModelVariant,
        predictor: Predictor,
        tasks: Mapping[str, ChosenTask],
        *,
        label_names: Sequence[str],
        encode: Callable[[LabelledSamples], EncodedDataset],
        max_length: int,
        batch_size: int,
        progress: Callable[[int, int], None],
    ) -> None:
        super().__init__()
        self.counts = RequestCounts()
        self.answers = ScoringCounts()
        self.max_length = max_length
        self._variant = variant
        self._predictor = predictor
        self._tasks = tasks
        self._label_names = tuple(label_names)
        self._encode = encode
        self._batch_size = batch_size
        self._progress = progress

    def loglikelihood(
        self,
        requests: list[Instance],
        disable_tqdm: bool = True,  # noqa: ARG002  (lm-eval's signature; we show our own progress)
    ) -> list[tuple[float, bool]]:
        """Log probability of the class of each choice, and whether it is the likeliest class."""
        answers = {name: self._ask(self._tasks[name]) for name in self._named(requests)}
        found = [
            answers[str(one.task_name)].of_choice(int(one.doc_id or 0), int(one.idx))
            for one in requests
        ]
        self.counts.requests += len(found)
        self.counts.unanswered += int(np.isnan([value for value, _ in found]).sum())
        return found

    def loglikelihood_rolling(
        self,
        requests: list[Instance],  # noqa: ARG002  (lm-eval's signature)
        disable_tqdm: bool = True,  # noqa: ARG002  (likewise)
    ) -> list[float]:
        """Refused: a classifier gives no text a likelihood."""
        raise UsageError(f"{self._variant.name} is a classifier: it gives no text a likelihood")

    def generate_until(
        self,
        requests: list[Instance],  # noqa: ARG002  (likewise)
        disable_tqdm: bool = True,  # noqa: ARG002  (likewise)
    ) -> list[str]:
        """Refused: a classifier writes nothing."""
        raise UsageError(f"{self._variant.name} is a classifier: it writes no text")

    @staticmethod
    def _named(requests: Sequence[Instance]) -> list[str]:
        return list(dict.fromkeys(str(one.task_name) for one in requests))

    def _ask(self, asked: ChosenTask) -> _Answers:
        """Put all documents of a task to the endpoint, each once."""
        documents = documents_of(asked.task)
        texts = tuple(one[asked.form.text] for one in documents)
        pair = asked.form.text_pair
        pairs = tuple(one[pair] for one in documents) if pair else None
        content = json.dumps([texts, pairs], ensure_ascii=False)
        samples = LabelledSamples(
            texts=texts,
            pairs=pairs,
            digest=hashlib.sha256(content.encode()).hexdigest(),
            rows=tuple(range(len(texts))),
            seed=0,
            labels=tuple(
                asked.choices.outputs[gold_choice(asked.task, one) or 0] for one in documents
            ),
            label_names=self._label_names,
        )
        dataset = self._encode(samples)
        outcomes = collect_outcomes(
            self._variant,
            dataset,
            self._predictor,
            batch_size=self._batch_size,
            progress=self._tell,
        )
        self.answers.asked += len(texts)
        self.counts.truncated += dataset.truncated
        return _Answers(
            scipy.special.log_softmax(outcomes.logits.astype(np.float64), axis=1),
            outcomes.predictions,
            asked.choices.outputs,
            {number: row for row, number in enumerate(document_ids(asked.task))},
        )

    def _tell(self, step: Progress) -> None:
        self._progress(int(step.done), int(step.total))


@dataclass(frozen=True)
class _Answers:
    """What a model says of the documents of one task."""

    log_probabilities: NDArray[np.float64]
    """(documents, classes); NaN where unanswered."""
    predictions: NDArray[np.int64]
    """The likeliest class, (documents,)."""
    outputs: tuple[int, ...]
    """The output that stands for each choice."""
    rows: Mapping[int, int]
    """The row of each document, by lm-eval's number."""

    def of_choice(self, document: int, place: int) -> tuple[float, bool]:
        """Log probability of a choice, and whether it is the likeliest."""
        # Some tasks ask for each choice a second time, without the document.
        output = self.outputs[place % len(self.outputs)]
        row = self.rows[document]
        value = float(self.log_probabilities[row, output])
        if np.isnan(value):
            return UNANSWERED
        return value, bool(self.predictions[row] == output)
