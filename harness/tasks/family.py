"""What a task family is: everything that one kind of task does in its own way, behind one protocol.

The rest of the harness asks a family, and never which kind it is. A new kind is a folder beside
this file, one line in `registry.py`, and its metrics in the registry of metrics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure, PairedRows
from harness.tasks.encoding import EncodedDataset
from harness.tasks.label_values import listed
from harness.tasks.labels import LabelReader
from harness.tasks.losses import Confidence, Division, LossDetails, Step
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.outcomes import (
    Answer,
    Batch,
    Columns,
    Outcomes,
    RowAnswer,
    StoredOutcomes,
    Tensors,
    TextAnswer,
)
from harness.tasks.parity import Inputs, Probe
from harness.tasks.rows import DataTable
from harness.tasks.rowwise import Positions
from harness.tasks.samples import Samples
from harness.tasks.section import TaskSection
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import LossChain, Relabelling, SliceLoss

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import (
        BatchEncoding,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from harness.tasks.graphs import Graph

S = TypeVar("S", bound=TaskSection)
"""The family's section of a study."""
D = TypeVar("D", bound=EncodedDataset)
"""Its data set: what `encode` makes of rows that can be scored."""
A = TypeVar("A", bound=Answer)
"""What a model said of the rows of one request."""
R = TypeVar("R", bound=Outcomes)
"""What a model answered to every row of the test split."""


@dataclass(frozen=True)
class Reading:
    """The rows of a task, and what is known when they are read."""

    table: DataTable
    seed: int
    """Draws the rows where the task wants fewer than there are."""
    label_names: Sequence[str] | None = None
    """Names of the checkpoint's outputs, in order; None where they are not known: then labels are
    left out."""
    model: str = "the model"
    """Whose outputs they are, for messages."""
    teacher: LabelReader | None = None
    """How the same labels were read for the family's teacher; None for the teacher's own."""
    like: LabelReader | None = None
    """How another column of the same data was read: read alike, rather than by these labels."""


class TaskFamily(ABC, Generic[S, D, A, R]):
    """One kind of task."""

    kind: str
    """Its name in a study, after Hugging Face's pipelines."""
    section: type[S]
    dataset: type[D]
    lacking: str
    """What an encoded data set lacks that is no `dataset`: labels, say."""
    rows_called: str = "rows"
    """What is scored, for messages: questions, say."""
    loss_metric: str = ""
    """The metric that losses are told in, by slice and by step; none where they are not."""
    auto_class: str
    """Class of transformers that opens such a checkpoint."""
    architectures: tuple[str, ...]
    """Endings of the architectures (in config.json) that are made for it."""
    described: str
    """A model of this family in words, for messages: "a sequence classifier"."""
    causal: bool = False
    """Whether each token is predicted from those before it alone."""
    typed: bool = True
    """Whether token types are sent to a model that reads them."""
    has_pipeline: bool = False
    """Whether a variant can be served as a whole pipeline too, text in and answer out."""
    traces_losses: bool = True
    """Whether it is found out where a variant lost quality: by step of its making, by slice."""
    checkpoint_files: tuple[str, ...] = ()
    """Patterns of small files of a checkpoint that it reads, beside those of every checkpoint."""
    unused_weights: tuple[str, ...] = ()
    """Beginnings of names of weights that may be missing, because the graph has no use for them."""
    whole_texts: bool = True
    """Whether a row is a sample as long as it is in the training data, so that lengths compare."""

    # The checkpoint

    def made_for(self, config: PretrainedConfig) -> bool:
        """Whether a checkpoint's architecture is one of this kind of task."""
        return (config.architectures or [""])[0].endswith(self.architectures)

    def problems(self, config: PretrainedConfig) -> Iterator[str]:
        """Why a checkpoint of such an architecture is none of this kind, whatever the data."""
        return iter(())

    def label_names(self, config: PretrainedConfig) -> tuple[str, ...] | None:
        """Names of the outputs, in order; None where outputs have no names."""
        return None

    # Rows

    @abstractmethod
    def columns(self, task: S) -> Mapping[str, str | None]:
        """Columns that the data must have, by the section's key that names each; None: unused."""

    @abstractmethod
    def read(self, task: S, reading: Reading) -> Samples:
        """Read, check and draw the samples.

        Raises:
            DataError: with every problem of the data.
        """

    @abstractmethod
    def encode(
        self, task: S, samples: Samples, tokenizer: PreTrainedTokenizerBase, inputs: ModelInputs
    ) -> EncodedDataset:
        """Tokenise and pad samples; a plain data set of those that cannot be scored (no labels).

        Raises:
            DataError: the samples cannot be encoded.
        """

    def tokenizer_note(self, task: S, tokenizer: PreTrainedTokenizerBase) -> str:
        """What to know of this kind of task with such a tokenizer; empty where there is nothing."""
        return ""

    def row_texts(self, dataset: EncodedDataset, samples: Samples) -> tuple[str, ...]:
        """The text of each row of a data set, for people; a pair is joined by a bar."""
        if samples.pairs is None:
            return samples.texts
        return tuple(f"{a} | {b}" for a, b in zip(samples.texts, samples.pairs, strict=True))

    # A first study, written from checkpoints and data

    def recognise(
        self, table: DataTable, named: Mapping[str, str], label_names: Sequence[str] | None
    ) -> Mapping[str, str]:
        """Columns that are found by what they hold, by the section's key.

        What is not found here is looked for by its name, and a text by its length.

        Args:
            table: the data.
            named: columns that are known already, by key.
            label_names: of the teacher's outputs; None where they have none.

        Raises:
            DataError: they cannot be told; with the next step.
        """
        return {}

    def data_in(self, folder: Path) -> Path | None:
        """The file of a folder whose rows are asked; None where a task has no such folders."""
        return None

    def beside(self, data: Path) -> Mapping[str, Mapping[str, Path]]:
        """Keys of the section that lie in files beside the data, each with its files by key."""
        return {}

    def label_words(self, samples: Samples) -> str:
        """What the right answers are and how many of each, in words; empty where there are none."""
        counts = Counter(self.row_labels(samples)).most_common()
        return listed([f"{name.replace(', ', ' + ')} {count:,}" for name, count in counts])

    def token_counts(
        self,
        task: S,
        samples: Samples,
        rows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
    ) -> Sequence[int]:
        """Tokens of some samples, special ones included, however many a model takes.

        Args:
            task: the section.
            samples: all of them.
            rows: positions of those that are counted.
            tokenizer: counts.
            folder: of its checkpoint.
        """
        asked = self.asked_texts(task, samples, folder)
        texts = [asked[row] for row in rows]
        pairs = None if samples.pairs is None else [samples.pairs[row] for row in rows]
        encoded = tokenizer(texts, pairs, truncation=False, verbose=False)["input_ids"]
        return [len(ids) for ids in encoded]

    def lacks(self, task: S, metric: str) -> str:
        """The section's keys without which a metric is not scored; empty where it is."""
        return ""

    def row_labels(self, samples: Samples) -> Sequence[str]:
        """The class of each sample, to divide them by; none where they have none."""
        return ()

    # The exported graph, and its parity with the checkpoint

    @abstractmethod
    def graph(self, model: PreTrainedModel, task: S) -> Graph:
        """The torch module that is exported, around a checkpoint.

        Args:
            model: the checkpoint with its weights.
            task: what it is asked to do.
        """

    def recipe(self, task: S) -> dict[str, Any]:
        """What of the section decides how the graph is made, as JSON has it."""
        return {}

    @abstractmethod
    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """What the gate compares of the checkpoint's own answer to one batch.

        Args:
            inputs: the batch.
            scores: the graph's `scores`.
            outputs: the graph's `answer`.
        """

    def probe_answer(
        self,
        outputs: Sequence[NDArray[Any]],
        probe: Probe,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """An artefact's values and choices, shaped as the probe's."""
        return outputs[0], outputs[0].argmax(-1)

    def deviation(self, expected: Sequence[NDArray[Any]], answered: Sequence[NDArray[Any]]) -> str:
        """How far an artefact is from its checkpoint in the terms of such a task, in words.

        Args:
            expected: the checkpoint's values, of each probe.
            answered: the artefact's, shaped alike.

        Returns:
            Empty where the error says it all.
        """
        return ""

    def filled(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        fill: Callable[[Sequence[str]], str],
    ) -> tuple[str, str | None]:
        """A sample that is as long as the task allows, for the bare library to be asked.

        Args:
            texts: of some samples.
            pairs: their second texts.
            fill: makes one text that fills the task's max_length of several.
        """
        return fill(texts), None if pairs is None else fill(pairs)

    def bare_options(self, task: S) -> dict[str, Any]:
        """How the library's own tokenizer is called on one row."""
        return {"truncation": True, "max_length": task.max_length}

    def bare_tokens(
        self,
        task: S,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        pair: str | None,
        **settings: Any,
    ) -> BatchEncoding:
        """What the library's own tokenizer makes of one row.

        Args:
            task: says the length.
            tokenizer: as the library opens it.
            text: of the row.
            pair: its second text.
            settings: of the call, beside the family's own.
        """
        texts = (text,) if pair is None else (text, pair)
        encoded: BatchEncoding = tokenizer(*texts, **self.bare_options(task), **settings)
        return encoded

    def bare_values(self, answer: Any, model: PreTrainedModel, task: S) -> Tensor:
        """What is compared of the bare library's answer to one row: its logits, (labels,).

        Args:
            answer: what the model returns.
            model: as the library opened it.
            task: it was asked for.
        """
        return answer.logits[0]  # type: ignore[no-any-return]

    def graph_values(
        self,
        outputs: Sequence[NDArray[Any]],
        place: int,
        tokens: int,
    ) -> NDArray[np.float32]:
        """The same values of one row of the graph's outputs.

        Args:
            outputs: of the graph, of a batch.
            place: of the row in the batch.
            tokens: that the row has without padding.
        """
        values: NDArray[np.float32] = outputs[0][place]
        return values

    # Answers through the endpoint

    @abstractmethod
    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """Outputs of the served model, in order.

        Args:
            width: last size of the first of them, where that is not a sequence: classes.
        """

    @abstractmethod
    def read_answer(self, batch: Batch, outputs: Tensors) -> A:
        """Read the outputs of one request, whose shapes are checked."""

    @abstractmethod
    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """Each row's answer without padding: what must not depend on the batch it came in."""

    @abstractmethod
    def outcomes(
        self, variant: ModelVariant, dataset: D, replies: Sequence[tuple[Batch, A | None]]
    ) -> R:
        """Put the answers together.

        Args:
            variant: what answered.
            dataset: the test split.
            replies: every batch once, in any order; None where its request failed.

        Raises:
            MissingExtraError: a package that scores the answers is not installed.
        """

    @abstractmethod
    def restore(self, stored: StoredOutcomes) -> R:
        """Read outcomes back from their file, those of older releases included.

        Raises:
            KeyError: a column is missing.
        """

    def told(self, name: str, answers: Sequence[str], dataset: D) -> R:
        """Outcomes of a yardstick that is not served, from its answers in words.

        Args:
            name: of the yardstick, in the place of a variant's.
            answers: to each row.
            dataset: the test split.

        Raises:
            DataError: the family has no such yardstick, or not every row is answered.
        """
        raise DataError(f"a task of {self.kind} has no yardstick such as {name}")

    def truth(self, dataset: D) -> Columns:
        """What the answers are compared with, as columns of the same file."""
        return {}

    # Texts in, by an ensemble with the tokenizer before the model

    def text_answer(
        self, task: S, dataset: EncodedDataset, outputs: tuple[TensorSpec, ...]
    ) -> TextAnswer:
        """What the ensemble answers, where `has_pipeline`.

        Args:
            task: the study's section.
            dataset: the test split as the model alone takes it.
            outputs: of the model alone.

        Raises:
            DataError: the data does not tell what the model's outputs are called.
        """
        raise NotImplementedError

    def asked_texts(self, task: S, samples: Samples, folder: Path) -> Sequence[str]:
        """The text of each sample as the ensemble is sent it."""
        return samples.texts

    def longest_text(self, task: S, folder: Path) -> int:
        """Tokens of the longest text that a checkpoint is asked."""
        return task.max_length

    def text_outcomes(
        self, variant: ModelVariant, dataset: D, replies: Sequence[tuple[Positions, Tensors | None]]
    ) -> Outcomes:
        """Put an ensemble's answers together.

        Args:
            variant: the ensemble.
            dataset: the test split as the model alone takes it.
            replies: rows, and the outputs to them; None where their request failed.
        """
        raise NotImplementedError

    # Scores

    def scorable(self, outcomes: R) -> Mask | None:
        """Rows that count, (rows,); None where too few were answered for any score.

        Here all rows count: one without an answer is wrong.
        """
        return np.ones(outcomes.size, dtype=np.bool_)

    @abstractmethod
    def statistics(self, outcomes: R, dataset: D, kept: Mask) -> tuple[Statistic, ...]:
        """The metrics over some rows, each with an entry in `harness.metrics`.

        Raises:
            MissingExtraError: a package that computes them is not installed.
        """

    def same_rows(self, outcomes: R, teacher: R) -> bool:
        """Whether row i of both is the same sample, which is what pairs them.

        Raises:
            DataError: they are of different test splits.
        """
        if outcomes.size != teacher.size:
            raise DataError(
                f"{outcomes.variant} was scored on {outcomes.size} rows and its teacher "
                f"{teacher.variant} on {teacher.size}: they must be of one test split"
            )
        return True

    def comparable(self, metric: str, outcomes: R, teacher: R) -> bool:
        """Whether a metric means the same of both models."""
        return True

    def right(self, metric: str, outcomes: R) -> Mask | None:
        """Whether each row is right, for a metric that is the share of those; None for others."""
        return None

    def own_measures(self, outcomes: R, dataset: D, seed: int) -> list[Measure]:
        """What is measured of a model alone, beside its metrics: calibration."""
        return []

    def paired_measures(self, outcomes: R, teacher: R, seed: int) -> list[Measure]:
        """What is measured of a variant beside its teacher on the same rows: agreement."""
        return []

    def not_compared(self, variant: ModelVariant, teacher: ModelVariant) -> str:
        """Why a variant lacks a measure beside its teacher; empty where it lacks none."""
        return ""

    def beside_teacher(self, outcomes: R, teacher: R) -> dict[str, NDArray[np.float64]]:
        """What is kept of every row beside the teacher, by the column's name."""
        return {}

    def relabelling(
        self,
        outcomes: R,
        dataset: D,
        family: str,
        teacher: R | None,
        of_teacher: Relabelling | None,
    ) -> Relabelling | None:
        """Other classes that a model's outputs seem to stand for than they are called by.

        Args:
            outcomes: the variant's.
            dataset: the test split.
            family: of the study, which the variant belongs to.
            teacher: the teacher's outcomes; None for the teacher itself.
            of_teacher: what was found of the teacher.
        """
        return None

    # Losses

    def paired_rows(self, outcomes: R, teacher: R, seed: int) -> PairedRows | None:
        """Quality of a variant and its teacher row by row; None where rows do not pair."""
        return None

    def slice_losses(
        self,
        outcomes: R,
        teacher: R,
        divisions: Sequence[Division],
        seed: int,
        dataset: D | None = None,
    ) -> tuple[SliceLoss, ...] | None:
        """Losses by slice of a metric that is not a sum over rows; None: they are `paired_rows`'.

        Args:
            outcomes: the variant's.
            teacher: the teacher's, on the same rows.
            divisions: of these rows.
            seed: of the intervals.
            dataset: the test split as the teacher takes it, where it is at hand.
        """
        return None

    def loss_metric_of(self, task: S) -> str:
        """The metric that losses are told in, of such a task; empty where there is none."""
        return self.loss_metric

    def chain_rows(self, dataset: D, most: int, seed: int) -> NDArray[np.int64] | None:
        """Rows that the steps of a chain are asked, ascending; None: any `most` rows will do.

        Args:
            dataset: the test split as the teacher takes it.
            most: rows.
            seed: of the draw.

        Raises:
            DataError: there can be no chain of so many rows; with the reason.
        """
        return None

    def loss_chain(self, steps: Sequence[Step[R]], seed: int) -> LossChain | None:
        """The loss from the teacher's checkpoint (first) to what is served (last), step by step.

        None where the steps have no row in common.
        """
        return None

    def loss_details(
        self, outcomes: R, teacher: R, dataset: D, texts: Sequence[str]
    ) -> LossDetails:
        """Examples and confusions of a variant beside its teacher.

        Args:
            outcomes: the variant's.
            teacher: the teacher's.
            dataset: the test split as the teacher takes it.
            texts: of each row.
        """
        return LossDetails()

    def confidence(self, teacher: R) -> Confidence | None:
        """How sure the teacher is of each row; None where its answers do not say."""
        return None


AnyFamily = TaskFamily[Any, Any, Any, Any]
