"""Token classification as a task family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import TaskFamily
from harness.tasks.label_values import listed
from harness.tasks.losses import Division, LossDetails, Step
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.outcomes import Batch, Columns, RowAnswer, StoredOutcomes, Tensors, TextAnswer
from harness.tasks.parity import Inputs, Probe
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable
from harness.tasks.rowwise import Positions
from harness.tasks.samples import Samples
from harness.tasks.token_classification.encoding import (
    TaggedDataset,
    encode_sentences,
    glues_words,
    library_tokens,
    wants_spaces,
)
from harness.tasks.token_classification.outcomes import (
    TagAnswer,
    TaggedOutcomes,
    compared_tags,
    read_tags,
    restore_tags,
    span_answer,
    span_outcomes,
    tagged_outcomes,
)
from harness.tasks.token_classification.recognition import recognise_words
from harness.tasks.token_classification.rows import (
    TaggedSamples,
    TokenClassification,
    read_sentences,
)
from harness.tasks.token_classification.statistics import (
    METRIC,
    counts_of,
    entity_chain,
    slices_of_tags,
    tagged_measures,
    tagging_statistics,
    worst_sentences,
)
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import LossChain, SliceLoss
from harness.words.numbers import count

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import (
        BatchEncoding,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from harness.tasks.graphs import Graph

_FEWEST_TAGS = 2


class TokenClassificationFamily(
    TaskFamily[TokenClassification, TaggedDataset, TagAnswer, TaggedOutcomes]
):
    """A tag for each word, and the entities that the tags spell."""

    kind = "token-classification"
    section = TokenClassification
    dataset = TaggedDataset
    lacking = "tags"
    rows_called = "sentences"
    metrics = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")
    loss_metric = METRIC
    auto_class = "AutoModelForTokenClassification"
    architectures = ("ForTokenClassification",)
    described = "a token classifier"
    has_ensemble = True

    def problems(self, config: PretrainedConfig) -> Iterator[str]:
        """Outputs that are not known by their place."""
        numbers = sorted(config.id2label or ())
        if len(numbers) < _FEWEST_TAGS:
            yield "it has one output: there is nothing to tell a word by"
        if numbers != list(range(len(numbers))):
            yield (
                f"its id2label numbers the tags {', '.join(map(str, numbers[:8]))}, and outputs "
                "are counted from 0: which output is which tag is not certain"
            )

    def label_names(self, config: PretrainedConfig) -> tuple[str, ...] | None:
        """The names of id2label, in the order of the outputs."""
        names: Mapping[Any, Any] = config.id2label or {}
        return tuple(str(names[index]) for index in sorted(names))

    def columns(self, task: TokenClassification) -> Mapping[str, str | None]:
        """The columns of the words and of their tags."""
        return {"tokens": task.tokens, "tags": task.tags}

    def read(self, task: TokenClassification, reading: Reading) -> Samples:
        """Read sentences with their tags."""
        return read_sentences(task, reading)

    def recognise(
        self, table: DataTable, named: Mapping[str, str], label_names: Sequence[str] | None
    ) -> Mapping[str, str]:
        """Lists of words, and as many tags."""
        return recognise_words(table, named, label_names)

    def label_words(self, samples: Samples) -> str:
        """Types of entities and how many there are of each."""
        if not isinstance(samples, TaggedSamples) or samples.truth is None:
            return ""
        kinds = Counter(kind for found in samples.truth.entities for kind, _, _ in found)
        ordered = sorted(kinds.items(), key=lambda one: (-one[1], one[0]))
        return listed([f"{kind} {count(found)}" for kind, found in ordered]) or "no entity"

    def token_counts(
        self,
        task: TokenClassification,
        samples: Samples,
        rows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
    ) -> Sequence[int]:
        """Word pieces of some sentences, as transformers' run_ner cuts their words."""
        if not isinstance(samples, TaggedSamples) or wants_spaces(tokenizer):
            return super().token_counts(task, samples, rows, tokenizer, folder)
        words = [list(samples.words[row]) for row in rows]
        encoded = tokenizer(words, is_split_into_words=True, truncation=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def encode(
        self,
        task: TokenClassification,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        inputs: ModelInputs,
    ) -> EncodedDataset:
        """Sentences as tensors, with their tags where these are known."""
        return encode_sentences(task, samples, tokenizer, inputs)

    def tokenizer_note(
        self,
        task: TokenClassification,
        tokenizer: PreTrainedTokenizerBase,
    ) -> str:
        """A remark where the library's tokenizer joins words together; empty otherwise."""
        if not glues_words(tokenizer):
            return ""
        return (
            f"{type(tokenizer).__name__} gives the model a sentence's words without the space "
            "before them, as transformers' own call does; if it was trained on running text, set "
            "add_prefix_space in its tokenizer.json"
        )

    def graph(self, model: PreTrainedModel, task: TokenClassification) -> Graph:
        """Token ids to the scores of every tag at every token."""
        from harness.tasks.graphs import LogitsGraph

        return LogitsGraph(model)

    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """One choice for each real token."""
        values = scores.numpy()
        best = np.sort(values, axis=-1)
        real = inputs["attention_mask"] == 1
        return Probe(
            inputs=inputs,
            values=values,
            choices=values.argmax(-1),
            margins=best[..., -1] - best[..., -2],
            value_counts=np.broadcast_to(real[:, :, None], values.shape),
            choice_counts=real,
            offset_free=True,
        )

    def bare_tokens(
        self,
        task: TokenClassification,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        pair: str | None,
        **settings: Any,
    ) -> BatchEncoding:
        """The call of transformers' run_ner on the words of one sentence."""
        return library_tokens(
            tokenizer, text.split(), truncation=True, max_length=task.max_length, **settings
        )

    def graph_values(
        self, outputs: Sequence[NDArray[Any]], place: int, tokens: int
    ) -> NDArray[np.float32]:
        """The scores of a row's real tokens, (tokens, tags)."""
        values: NDArray[np.float32] = outputs[0][place][:tokens]
        return values

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """The scores of every tag at every token."""
        return (TensorSpec("logits", "FP32", (-1, width)),)

    def read_answer(self, batch: Batch, outputs: Tensors) -> TagAnswer:
        """The likeliest tag of every token."""
        return read_tags(batch, outputs)

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """Tags and scores of the real tokens."""
        return compared_tags(batch, outputs)

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: TaggedDataset,
        replies: Sequence[tuple[Batch, TagAnswer | None]],
    ) -> TaggedOutcomes:
        """Every sentence's tags and entities; none of an unanswered sentence."""
        return tagged_outcomes(variant, dataset, replies)

    def restore(self, stored: StoredOutcomes) -> TaggedOutcomes:
        """Read outcomes back."""
        return restore_tags(stored)

    def truth(self, dataset: TaggedDataset) -> Columns:
        """The right tags of every sentence."""
        return {"true_tags": pa.array(dataset.tags, pa.list_(pa.string()))}

    def text_answer(
        self,
        task: TokenClassification,
        dataset: EncodedDataset,
        outputs: tuple[TensorSpec, ...],
    ) -> TextAnswer:
        """The entities of a text as JSON."""
        return span_answer(dataset)

    def text_outcomes(
        self,
        variant: ModelVariant,
        dataset: TaggedDataset,
        replies: Sequence[tuple[Positions, Tensors | None]],
    ) -> TaggedOutcomes:
        """The entities that spans of characters are, by their words."""
        return span_outcomes(variant, dataset, replies)

    def statistics(
        self,
        outcomes: TaggedOutcomes,
        dataset: TaggedDataset,
        kept: Mask,
    ) -> tuple[Statistic, ...]:
        """Entity F1, precision and recall, and token accuracy."""
        counts = counts_of(outcomes, kept)
        return tagging_statistics(counts, outcomes.right_words[kept], outcomes.words[kept])

    def paired_measures(
        self, outcomes: TaggedOutcomes, teacher: TaggedOutcomes, seed: int
    ) -> list[Measure]:
        """Sentences that became right or wrong, and entities in common."""
        return tagged_measures(outcomes, teacher, seed)

    def slice_losses(
        self,
        outcomes: TaggedOutcomes,
        teacher: TaggedOutcomes,
        divisions: Sequence[Division],
        seed: int,
        dataset: TaggedDataset | None = None,
    ) -> tuple[SliceLoss, ...] | None:
        """Losses by type of entity, by words in the sentence, and by columns of the data."""
        if outcomes.size != teacher.size:
            return ()
        return slices_of_tags(outcomes, teacher, divisions, seed=seed)

    def loss_chain(self, steps: Sequence[Step[TaggedOutcomes]], seed: int) -> LossChain | None:
        """The loss of entity F1, step by step."""
        return entity_chain(steps, seed=seed)

    def loss_details(
        self,
        outcomes: TaggedOutcomes,
        teacher: TaggedOutcomes,
        dataset: TaggedDataset,
        texts: Sequence[str],
    ) -> LossDetails:
        """The sentences in which most was lost."""
        return LossDetails(
            examples=worst_sentences(outcomes, teacher, texts), examples_in="wrong entities"
        )
