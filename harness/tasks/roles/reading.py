"""How a family reads its rows and encodes them, and finds them in data for a first study."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from harness.tasks.encoding import EncodedDataset
from harness.tasks.label_values import listed
from harness.tasks.labels import LabelReader
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.roles.base import D, FamilyRole, S
from harness.tasks.rows import DataTable
from harness.tasks.samples import Samples
from harness.words.numbers import count

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    """Name of the model whose outputs they are, for messages."""
    teacher: LabelReader | None = None
    """How the same labels were read for the family's teacher; None for the teacher's own."""
    like: LabelReader | None = None
    """How another column of the same data was read, when this one is to be read alike."""


class ReadsRows(FamilyRole, Generic[S, D]):
    """The rows of one kind of task: read, encoded, and recognised in data nobody described."""

    section: type[S]
    """The section of a study that describes such a task."""
    dataset: type[D]
    """The class of encoded rows that can be scored."""
    lacking: str
    """What an encoded data set lacks that is not a `dataset`: labels, say."""
    rows_called: str = "rows"
    """What the rows are called in messages: questions, say."""
    typed: bool = True
    """Whether token types are sent to a model that reads them."""
    whole_texts: bool = True
    """Whether a row is a sample as long as it is in the training data, so that lengths compare."""

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
        """What to know of this kind of task with such a tokenizer; empty if there is nothing."""
        return ""

    def row_texts(self, dataset: EncodedDataset, samples: Samples) -> tuple[str, ...]:
        """The text of each row of a data set, for people; a pair is joined by a bar."""
        if samples.pairs is None:
            return samples.texts
        return tuple(f"{a} | {b}" for a, b in zip(samples.texts, samples.pairs, strict=True))

    def row_labels(self, samples: Samples) -> Sequence[str]:
        """The class of each sample, by which samples are divided; empty where they have none."""
        return ()

    def asked_texts(self, task: S, samples: Samples, folder: Path) -> Sequence[str]:
        """The text of each sample as it is sent to an ensemble."""
        return samples.texts

    def longest_text(self, task: S, folder: Path) -> int:
        """The number of tokens of the longest text that a checkpoint is asked."""
        return task.max_length

    # A first study, written from checkpoints and data

    def recognise(
        self, table: DataTable, named: Mapping[str, str], label_names: Sequence[str] | None
    ) -> Mapping[str, str]:
        """Find columns by what they hold; the result is by the section's key that names each.

        A column that is not found here is looked for by its name, and a text by its length.

        Args:
            table: the data.
            named: columns that are known already, by key.
            label_names: names of the teacher's outputs; None where they have none.

        Raises:
            DataError: the columns cannot be told apart; the message says what to do.
        """
        return {}

    def data_in(self, folder: Path) -> Path | None:
        """The file with the rows in a folder of data; None where a task has no such folders."""
        return None

    def beside(self, data: Path) -> Mapping[str, Mapping[str, Path]]:
        """Parts of the section that lie in files beside the data: by part, its files by key."""
        return {}

    def label_words(self, samples: Samples) -> str:
        """What the right answers are and how many of each, in words; empty if there are none."""
        counts = Counter(self.row_labels(samples)).most_common()
        return listed([f"{name.replace(', ', ' + ')} {count(found)}" for name, found in counts])

    def token_counts(
        self,
        task: S,
        samples: Samples,
        rows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
    ) -> Sequence[int]:
        """The number of tokens of some samples, special ones included, without truncation.

        Args:
            task: the section of the study.
            samples: all samples.
            rows: positions of the samples whose tokens are counted.
            tokenizer: makes the tokens.
            folder: where the tokenizer's checkpoint lies.
        """
        asked = self.asked_texts(task, samples, folder)
        texts = [asked[row] for row in rows]
        pairs = None if samples.pairs is None else [samples.pairs[row] for row in rows]
        encoded = tokenizer(texts, pairs, truncation=False, verbose=False)["input_ids"]
        return [len(ids) for ids in encoded]

    def lacks(self, task: S, metric: str) -> str:
        """Keys that the section lacks for a metric to be scored; empty where it is scored."""
        return ""
