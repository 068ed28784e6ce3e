"""A kind of task that the harness does not have: how many tokens a text is. All of it is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic, share_statistic
from harness.statistics.paired import Mask, PairedRows, paired_scores
from harness.tasks.encoding import EncodedDataset, encode_texts, fields_of
from harness.tasks.family import TaskFamily
from harness.tasks.losses import Step, chain_of_rows
from harness.tasks.outcomes import Batch, Columns, Outcomes, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.parity import Inputs, Probe, class_probe
from harness.tasks.roles.reading import Reading
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.tasks.samples import Samples, digest_of, draw, read_texts, slice_columns
from harness.tasks.section import PaddedSection
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import LossChain


class CountSection(PaddedSection):
    kind: Literal["toy-count"]
    text: str = "text"
    count: str = "count"
    max_length: int = 16


@dataclass(frozen=True, kw_only=True)
class CountSamples(Samples):
    counts: tuple[int, ...]


@rowwise
@dataclass(frozen=True, kw_only=True)
class CountDataset(EncodedDataset):
    counts: NDArray[np.int64] = field(metadata=PER_ROW)


@rowwise
@dataclass(frozen=True, kw_only=True)
class CountOutcomes(Outcomes):
    kind = "toy-count"

    said: NDArray[np.int64] = field(metadata=PER_ROW)
    correct: NDArray[np.bool_] = field(metadata=PER_ROW)

    def columns(self) -> Columns:
        return {"said": pa.array(self.said), "correct": pa.array(self.correct)}


@dataclass(frozen=True)
class CountAnswer:
    said: NDArray[np.int64]
    usable: NDArray[np.bool_]


class CountFamily(TaskFamily[CountSection, CountDataset, CountAnswer, CountOutcomes]):
    kind = "toy-count"
    section = CountSection
    dataset = CountDataset
    lacking = "counts"
    auto_class = "AutoModel"
    architectures = ("ForCounting",)
    described = "a counter of tokens"

    def columns(self, task: CountSection) -> Mapping[str, str | None]:
        return {"text": task.text, "count": task.count}

    def read(self, task: CountSection, reading: Reading) -> Samples:
        (texts,) = read_texts(reading.table, (task.text,))
        kept = draw(len(texts), task.samples, reading.seed)
        counts = tuple(int(str(reading.table.rows[row][task.count])) for row in kept)
        drawn = tuple(texts[row] for row in kept)
        return CountSamples(
            texts=drawn,
            pairs=None,
            digest=digest_of(drawn, counts),
            rows=tuple(kept),
            seed=reading.seed,
            columns=slice_columns(reading.table, task.slices, kept),
            counts=counts,
        )

    def encode(
        self, task: CountSection, samples: Samples, tokenizer: Any, inputs: Any
    ) -> EncodedDataset:
        encoded = encode_texts(task, samples, tokenizer, inputs)
        if not isinstance(samples, CountSamples):
            return encoded
        return CountDataset(**fields_of(encoded), counts=np.array(samples.counts))

    def graph(self, model: Any, task: Any) -> Any:
        raise NotImplementedError

    def probe(self, inputs: Inputs, scores: Any, outputs: tuple[Any, ...]) -> Probe:
        return class_probe(inputs, scores)

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        return (TensorSpec("count", "FP32", (1,)),)

    def read_answer(self, batch: Batch, outputs: Tensors) -> CountAnswer:
        count = outputs["count"][:, 0]
        usable = np.isfinite(count)
        return CountAnswer(np.where(usable, count, -1).astype(np.int64), np.asarray(usable))

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        return [RowAnswer(np.rint(one), one.astype(np.float64)) for one in outputs["count"]]

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: CountDataset,
        replies: Sequence[tuple[Batch, CountAnswer | None]],
    ) -> CountOutcomes:
        said = np.full(dataset.size, -1, dtype=np.int64)
        for batch, answer in replies:
            if answer is not None:
                said[batch.rows] = answer.said
        return CountOutcomes(
            variant=variant.name,
            sha256=variant.sha256,
            unanswered=said < 0,
            said=said,
            correct=said == dataset.counts,
        )

    def restore(self, stored: StoredOutcomes) -> CountOutcomes:
        return CountOutcomes(
            **stored.common, said=stored.array("said"), correct=stored.array("correct")
        )

    def statistics(
        self, outcomes: CountOutcomes, dataset: CountDataset, kept: Mask
    ) -> tuple[Statistic, ...]:
        return (share_statistic("accuracy", outcomes.correct[kept]),)

    def right(self, metric: str, outcomes: CountOutcomes) -> Mask | None:
        return outcomes.correct

    def paired_rows(
        self, outcomes: CountOutcomes, teacher: CountOutcomes, seed: int
    ) -> PairedRows | None:
        return paired_scores(teacher.correct, outcomes.correct, seed=seed)

    def loss_chain(self, steps: Sequence[Step[CountOutcomes]], seed: int) -> LossChain | None:
        return chain_of_rows(
            "accuracy",
            steps,
            lambda before, after: paired_scores(before.correct, after.correct, seed=seed),
        )
