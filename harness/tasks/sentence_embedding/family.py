"""Sentence embeddings as a task family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure, mean_and_tail
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import TaskFamily
from harness.tasks.losses import Division, LossDetails, Step
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.outcomes import Batch, RowAnswer, StoredOutcomes, Tensors, TextAnswer
from harness.tasks.parity import Inputs, Probe
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable
from harness.tasks.rowwise import Positions
from harness.tasks.samples import Samples
from harness.tasks.sentence_embedding.losses import (
    OF_PAIRS,
    OF_QUERIES,
    slices_of_vectors,
    unit_texts,
    vector_chain,
    vector_details,
)
from harness.tasks.sentence_embedding.modules import FILES, has_modules, unshared_prompt
from harness.tasks.sentence_embedding.outcomes import (
    EmbeddingOutcomes,
    VectorAnswer,
    compared_vectors,
    cosines,
    embedding_statistics,
    read_vectors,
    restore_vectors,
    text_vector_outcomes,
    vector_outcomes,
)
from harness.tasks.sentence_embedding.recognition import (
    queries_in,
    recognise_score,
    retrieval_beside,
)
from harness.tasks.sentence_embedding.rows import (
    EmbeddingDataset,
    EmbeddingSamples,
    SentenceEmbedding,
    encode_embeddings,
    longest,
    modules_of,
    prompts,
    read_embeddings,
    with_prompts,
)
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import LossChain, SliceLoss
from harness.words.numbers import cosine, count, number

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import (
        BatchEncoding,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from harness.tasks.graphs import Graph


class SentenceEmbeddingFamily(
    TaskFamily[SentenceEmbedding, EmbeddingDataset, VectorAnswer, EmbeddingOutcomes]
):
    """A vector for each text."""

    kind = "sentence-embedding"
    section = SentenceEmbedding
    dataset = EmbeddingDataset
    lacking = "texts"
    rows_called = "texts"
    metrics = ("sts_spearman", "ndcg_at_10", "recall_at_10", "recall_at_100")
    auto_class = "AutoModel"
    architectures = ("Model",)
    described = "a sentence encoder"
    has_ensemble = True
    checkpoint_files = FILES
    unused_weights = ("pooler.",)

    def made_for(self, config: PretrainedConfig) -> bool:
        """Whether it was saved by sentence-transformers, or without any head."""
        architecture = (config.architectures or [""])[0]
        headless = architecture.endswith("Model") and not architecture.endswith("LMHeadModel")
        return headless or has_modules(Path(str(config.name_or_path)))

    def columns(self, task: SentenceEmbedding) -> Mapping[str, str | None]:
        """Columns of the text, of the pair's second text, and of the score."""
        return {"text": task.text, "text_pair": task.text_pair, "score": task.score}

    def read(self, task: SentenceEmbedding, reading: Reading) -> Samples:
        """Every text of the pairs and of the retrieval set."""
        return read_embeddings(task, reading)

    def recognise(
        self, table: DataTable, named: Mapping[str, str], label_names: Sequence[str] | None
    ) -> Mapping[str, str]:
        """How alike two texts are, where there are pairs."""
        return recognise_score(table, named)

    def data_in(self, folder: Path) -> Path | None:
        """The queries of a retrieval set."""
        return queries_in(folder)

    def beside(self, data: Path) -> Mapping[str, Mapping[str, Path]]:
        """A retrieval set in BEIR's files."""
        return retrieval_beside(data)

    def label_words(self, samples: Samples) -> str:
        """The range of the pairs' scores, in words."""
        if not isinstance(samples, EmbeddingSamples) or samples.scored is None:
            return ""
        scores = samples.scored.scores
        return f"from {number(min(scores))} to {number(max(scores))}"

    def lacks(self, task: SentenceEmbedding, metric: str) -> str:
        """Scores of pairs, or a retrieval set."""
        if metric == OF_PAIRS:
            return "" if task.score else "'text_pair' and 'score'"
        return "" if task.retrieval else "'retrieval'"

    def encode(
        self,
        task: SentenceEmbedding,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        inputs: ModelInputs,
    ) -> EncodedDataset:
        """Texts as tensors, each behind its prompt."""
        return encode_embeddings(task, samples, tokenizer, inputs)

    def graph(self, model: PreTrainedModel, task: SentenceEmbedding) -> Graph:
        """Token ids to the text's vector."""
        from harness.tasks.sentence_embedding.graph import EmbeddingGraph

        return EmbeddingGraph(model, modules_of(task, Path(str(model.name_or_path))))

    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """The numbers alone: there is no choice among them."""
        values = scores.numpy()
        nothing = np.zeros(len(values), dtype=np.int64)
        return Probe(
            inputs=inputs,
            values=values,
            choices=nothing,
            margins=np.zeros(len(values), np.float32),
            value_counts=np.ones_like(values, dtype=bool),
            choice_counts=np.zeros(len(values), dtype=bool),
        )

    def deviation(self, expected: Sequence[NDArray[Any]], answered: Sequence[NDArray[Any]]) -> str:
        """The cosines of the vectors with the checkpoint's."""
        near = cosines(np.concatenate(expected), np.concatenate(answered))
        return (
            f"its vectors have a mean cosine of {cosine(near.mean())} with the checkpoint's, the "
            f"lowest {cosine(near.min())}, over {len(near)} texts"
        )

    def tokenizer_note(self, task: SentenceEmbedding, tokenizer: PreTrainedTokenizerBase) -> str:
        """A remark where documents get a prompt that sentence-transformers itself leaves out."""
        name = unshared_prompt(Path(tokenizer.name_or_path)) if task.retrieval else ""
        if not name:
            return ""
        return (
            f"documents stand behind the checkpoint's prompt '{name}', which the encode_document "
            "of sentence-transformers leaves out unless it is called 'document'"
        )

    def recipe(self, task: SentenceEmbedding) -> dict[str, Any]:
        """What the study says of checkpoints whose own files do not."""
        return {"pooling": task.pooling, "normalised": task.normalised}

    def bare_tokens(
        self,
        task: SentenceEmbedding,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        pair: str | None,
        **settings: Any,
    ) -> BatchEncoding:
        """A text cut where the checkpoint's own library cuts it."""
        most = longest(task, modules_of(task, Path(tokenizer.name_or_path)))
        encoded: BatchEncoding = tokenizer(text, truncation=True, max_length=most, **settings)
        return encoded

    def bare_values(self, answer: Any, model: PreTrainedModel, task: SentenceEmbedding) -> Tensor:
        """The vector of one unpadded text, as a model card makes it."""
        from harness.tasks.sentence_embedding.graph import pooled_alone

        modules = modules_of(task, Path(str(model.name_or_path)))
        return pooled_alone(answer.last_hidden_state[0], modules)

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """The served output: the vector, (dimensions,)."""
        return (TensorSpec("sentence_embedding", "FP32", (width,)),)

    def read_answer(self, batch: Batch, outputs: Tensors) -> VectorAnswer:
        """The vectors of a batch."""
        return read_vectors(outputs)

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """The vector of each row."""
        return compared_vectors(outputs)

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: EmbeddingDataset,
        replies: Sequence[tuple[Batch, VectorAnswer | None]],
    ) -> EmbeddingOutcomes:
        """The vector of every text, as outcome rows."""
        return vector_outcomes(variant, dataset, replies)

    def restore(self, stored: StoredOutcomes) -> EmbeddingOutcomes:
        """Read outcomes back."""
        return restore_vectors(stored)

    def text_answer(
        self,
        task: SentenceEmbedding,
        dataset: EncodedDataset,
        outputs: tuple[TensorSpec, ...],
    ) -> TextAnswer:
        """The vector that the model itself gives for a text."""
        return TextAnswer(outputs)

    def asked_texts(self, task: SentenceEmbedding, samples: Samples, folder: Path) -> Sequence[str]:
        """Each text behind the checkpoint's prompt for its role."""
        if not isinstance(samples, EmbeddingSamples):
            return samples.texts
        return with_prompts(samples, prompts(modules_of(task, folder)))

    def longest_text(self, task: SentenceEmbedding, folder: Path) -> int:
        """The task's max_length, or the checkpoint's own where that is less."""
        return longest(task, modules_of(task, folder))

    def text_outcomes(
        self,
        variant: ModelVariant,
        dataset: EmbeddingDataset,
        replies: Sequence[tuple[Positions, Tensors | None]],
    ) -> EmbeddingOutcomes:
        """The vector of every text, from an ensemble that takes texts."""
        return text_vector_outcomes(variant, dataset, replies)

    def scorable(self, outcomes: EmbeddingOutcomes) -> Mask:
        """The answered texts: a pair with another has no cosine; a query without one is wrong."""
        return ~outcomes.unanswered

    def statistics(
        self, outcomes: EmbeddingOutcomes, dataset: EmbeddingDataset, kept: Mask
    ) -> tuple[Statistic, ...]:
        """The metrics of pairs with a score, and of the retrieval set."""
        return embedding_statistics(outcomes.vectors, dataset, kept, outcomes.similarity)

    def paired_measures(
        self, outcomes: EmbeddingOutcomes, teacher: EmbeddingOutcomes, seed: int
    ) -> list[Measure]:
        """How near each vector is to the teacher's, where they have as many dimensions."""
        if outcomes.vectors.shape != teacher.vectors.shape:
            return []
        near = cosines(outcomes.vectors, teacher.vectors)
        return list(mean_and_tail(near, ("cosine_mean", "cosine_p5"), 0.05, seed))

    def beside_teacher(
        self, outcomes: EmbeddingOutcomes, teacher: EmbeddingOutcomes
    ) -> dict[str, NDArray[np.float64]]:
        """The cosine of each text's vector with the teacher's."""
        if outcomes.vectors.shape != teacher.vectors.shape:
            return {}
        return {"cosine_to_teacher": cosines(outcomes.vectors, teacher.vectors)}

    def not_compared(self, variant: ModelVariant, teacher: ModelVariant) -> str:
        """Why there is no cosine with the teacher: other dimensions; empty otherwise."""
        own, theirs = (one.outputs[0].shape[-1] for one in (variant, teacher))
        if own == theirs:
            return ""
        return (
            f"{variant.name} has no cosine with the teacher: its vectors have {own} dimensions, "
            f"the teacher's {theirs}"
        )

    def row_texts(self, dataset: EncodedDataset, samples: Samples) -> tuple[str, ...]:
        """The text of each pair or query, which losses are counted in."""
        return unit_texts(cast("EmbeddingDataset", dataset), samples.texts)

    def loss_metric_of(self, task: SentenceEmbedding) -> str:
        """The metric of losses: the pairs' where they have a score, else the retrieval's."""
        if task.score:
            return OF_PAIRS
        return OF_QUERIES if task.retrieval else ""

    def chain_rows(
        self, dataset: EmbeddingDataset, most: int, seed: int
    ) -> NDArray[np.int64] | None:
        """Both texts of as many pairs as there is room for; a retrieval set is whole or nothing."""
        if dataset.scored is None and dataset.retrieval is None:
            raise DataError(
                "the data has neither pairs with a score nor a retrieval set: no metric could be "
                "lost",
                next_step="name the columns text_pair and score, or a retrieval set",
            )
        if dataset.size <= most:
            return None
        if dataset.scored is None:
            raise DataError(
                f"the retrieval set has {count(dataset.size)} texts, and chain_samples is "
                f"{count(most)}: of a part of the documents nDCG would be another number",
                next_step=f"set chain_samples: {dataset.size}",
            )
        pairs = np.column_stack([dataset.scored.first, dataset.scored.second])
        rows: set[int] = set()
        for place in np.random.default_rng(seed).permutation(len(pairs)).tolist():
            wanted = rows | set(pairs[place].tolist())
            if len(wanted) > most:
                break
            rows = wanted
        return np.array(sorted(rows), dtype=np.int64)

    def loss_chain(self, steps: Sequence[Step[EmbeddingOutcomes]], seed: int) -> LossChain | None:
        """In STS Spearman or nDCG@10, over the pairs or queries that every step answered."""
        return vector_chain(steps, seed=seed)

    def slice_losses(
        self,
        outcomes: EmbeddingOutcomes,
        teacher: EmbeddingOutcomes,
        divisions: Sequence[Division],
        seed: int,
        dataset: EmbeddingDataset | None = None,
    ) -> tuple[SliceLoss, ...] | None:
        """Losses by length of the pairs or queries."""
        if dataset is None or outcomes.size != teacher.size:
            return ()
        return slices_of_vectors(outcomes, teacher, divisions, dataset, seed=seed)

    def loss_details(
        self,
        outcomes: EmbeddingOutcomes,
        teacher: EmbeddingOutcomes,
        dataset: EmbeddingDataset,
        texts: Sequence[str],
    ) -> LossDetails:
        """The pairs or queries that lost most."""
        return vector_details(outcomes, teacher, dataset, texts)
