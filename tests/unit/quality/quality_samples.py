"""Small data sets, variants and an endpoint that answers by a rule: made, not loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ServerError
from harness.tasks.causal_lm.outcomes import WindowOutcomes
from harness.tasks.causal_lm.rows import WindowDataset
from harness.tasks.classification.outcomes import NO_PREDICTION, ClassOutcomes, LabelOutcomes
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.types import ModelFormat, ModelVariant, Precision, Role, TensorSpec

CLASSES = ("arts", "law", "science")
LENGTHS = (4, 7)


def variant(
    task: str = "sequence-classification",
    name: str = "student",
    role: Role = Role.STUDENT,
) -> ModelVariant:
    tokens = tuple(TensorSpec(n, "INT64", (-1,)) for n in ("input_ids", "attention_mask"))
    outputs: tuple[TensorSpec, ...] = (TensorSpec("logits", "FP32", (len(CLASSES),)),)
    if task == "causal-lm":
        outputs = (
            TensorSpec("token_logprobs", "FP32", (-1,)),
            TensorSpec("greedy_token_ids", "INT64", (-1,)),
        )
    return ModelVariant(
        name=name,
        family="family",
        role=role,
        task=task,
        format=ModelFormat.ONNX,
        precision=Precision.FP32,
        source="",
        sha256=f"digest of {name}",
        path=Path(name),
        inputs=tokens,
        outputs=outputs,
        parameters=1,
        size_bytes=1,
    )


def dataset(rows: int = 50, *, language: bool = False, seed: int = 0) -> EncodedDataset:
    """Rows of two lengths, some padded; token ids tell the row (id = row * 100 + position)."""
    rng = np.random.default_rng(seed)
    which = rng.integers(len(LENGTHS), size=rows)
    groups = []
    for number, length in enumerate(LENGTHS):
        mine = np.flatnonzero(which == number)
        real = rng.integers(2, length + 1, size=len(mine))
        mask = (np.arange(length) < real[:, None]).astype(np.int64)
        ids = (mine[:, None] * 100 + np.arange(length)) * mask
        groups.append(EncodedGroup(inputs={"input_ids": ids, "attention_mask": mask}, rows=mine))
    if language:
        return windows(rng.integers(5, 40, size=rows), tuple(groups))
    labels = np.arange(rows) % len(CLASSES)
    return labelled(labels, CLASSES, tuple(groups))


def labelled(
    labels: NDArray[np.int64], names: tuple[str, ...], groups: tuple[EncodedGroup, ...] = ()
) -> LabelledDataset:
    """A classifier's data set with these labels."""
    return LabelledDataset(
        groups=groups,
        size=len(labels),
        labels=labels,
        label_names=names,
        class_names=names,
        truncated=0,
        padding_share=0.0,
        digest="",
        pad_token_id=0,
    )


def windows(byte_counts: NDArray[np.int64], groups: tuple[EncodedGroup, ...] = ()) -> WindowDataset:
    """A language model's data set, a document a window."""
    return WindowDataset(
        groups=groups,
        size=len(byte_counts),
        byte_counts=byte_counts,
        word_counts=np.zeros(len(byte_counts), dtype=np.int64),
        windows=tuple((row, 0, 1) for row in range(len(byte_counts))),
        truncated=0,
        padding_share=0.0,
        digest="",
        pad_token_id=0,
    )


@dataclass
class RuleEndpoint:
    """Answers each request by a rule on its rows; fails those that a predicate names."""

    rule: Callable[[NDArray[np.int64], Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]
    fails: Callable[[NDArray[np.int64]], bool] = lambda rows: False
    requests: list[tuple[int, ...]] = field(default_factory=list)

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        rows = inputs["input_ids"].max(axis=1) // 100
        self.requests.append(tuple(rows.tolist()))
        if self.fails(rows):
            raise ServerError(f"refused rows {rows.tolist()}")
        return self.rule(rows, inputs)


def classify(
    rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Right on all rows but every fifth, which is taken for the next class."""
    answer = (rows + (rows % 5 == 0)) % len(CLASSES)
    return {"logits": np.eye(len(CLASSES), dtype=np.float32)[answer]}


def speak(rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Log probability -(1 + row/100) for every token, padding and the first one included."""
    shape = inputs["input_ids"].shape
    logprobs = np.broadcast_to(-(1 + rows[:, None] / 100), shape).astype(np.float32)
    return {"token_logprobs": logprobs, "greedy_token_ids": inputs["input_ids"] + 1}


def classified(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], name: str = "student"
) -> tuple[LabelOutcomes, LabelledDataset]:
    """Outcomes with these predictions, and a data set with these labels."""
    split = labelled(labels, tuple(str(label) for label in range(int(labels.max()) + 1)))
    outcomes = LabelOutcomes(
        variant=name,
        sha256="",
        predictions=predictions,
        correct=predictions == labels,
        unanswered=np.zeros(len(labels), dtype=bool),
    )
    return outcomes, split


def spoken(
    log_likelihood: NDArray[np.float64],
    tokens: NDArray[np.int64],
    byte_counts: NDArray[np.int64],
    name: str = "student",
) -> tuple[WindowOutcomes, WindowDataset]:
    """A language model's outcomes (NaN = unanswered), and their data set."""
    outcomes = WindowOutcomes(
        variant=name,
        sha256="",
        log_likelihood=log_likelihood,
        tokens=tokens,
        bytes=byte_counts,
        words=np.zeros(len(tokens), dtype=np.int64),
        greedy=(np.empty(0, dtype=np.int64),) * len(tokens),
        documents=-1 - np.arange(len(tokens)),  # not known
        unanswered=np.isnan(log_likelihood),
    )
    return outcomes, windows(byte_counts)


def sure(
    labels: NDArray[np.int64],
    logits: NDArray[np.floating],
    name: str = "student",
    label_names: tuple[str, ...] | None = None,
) -> ClassOutcomes:
    """Outcomes of a classifier with these logits; a row with NaN is unanswered."""
    unanswered = np.isnan(logits).any(axis=1)
    predictions = np.where(unanswered, NO_PREDICTION, np.nan_to_num(logits).argmax(axis=1))
    return ClassOutcomes(
        variant=name,
        sha256="",
        predictions=predictions,
        correct=predictions == labels,
        unanswered=unanswered,
        logits=logits.astype(np.float32),
        label_names=label_names or tuple(f"class {i}" for i in range(logits.shape[1])),
    )
