"""What an artefact is compared on: real samples in several shapes, and the checkpoint's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.tasks.encoding import EncodedDataset

if TYPE_CHECKING:
    from torch import Tensor

    from harness.export.graphs import Graph

SHAPES = ((1, 2), (1, 5), (3, 17), (8, 32))
"""(batch, sequence); one batch of the longest samples follows."""
LARGEST_BATCH = 16
LARGEST_TOKENS = 2048
"""Of that batch: a language model's scores of them take tokens x vocabulary x 4 bytes."""


@dataclass(frozen=True)
class Probe:
    """One batch and the checkpoint's answer to it."""

    inputs: Mapping[str, NDArray[np.int64]]
    """By name, (batch, sequence)."""
    values: NDArray[np.float32]
    """The checkpoint's first output: logits (batch, labels), token_logprobs (batch, sequence); of
    an extractive answer both, start_logits and end_logits as (batch, 2, sequence)."""
    choices: NDArray[np.int64]
    """The checkpoint's prediction: class (batch,), next token (batch, sequence), likeliest start
    and end (batch, 2)."""
    margins: NDArray[np.float32]
    """How far the best score lies above the second, shaped as `choices`."""
    value_counts: NDArray[np.bool_]
    """Which of `values` say something: not padding, not the first token."""
    choice_counts: NDArray[np.bool_]
    """Which of `choices` do: not padding."""

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, sequence)."""
        batch, length = self.inputs["input_ids"].shape
        return batch, length


def sample_batch(encoded: EncodedDataset, batch: int, length: int) -> dict[str, NDArray[np.int64]]:
    """Real rows in a given shape, cut or padded; from two rows on, every second one is shortened.

    Rows are taken at even distances from the longest group, and again from the start where there
    are too few. The shortened ones make sure that padding is compared whatever the data is like.
    """
    group = encoded.groups[-1]
    rows = np.linspace(0, len(group.rows) - 1, min(batch, len(group.rows))).astype(int)
    rows = np.resize(rows, batch)
    kept = min(length, group.length)
    inputs = {}
    for name, values in group.inputs.items():
        fill = encoded.pad_token_id if name == "input_ids" else 0
        padded = np.full((batch, length), fill, dtype=np.int64)
        padded[:, :kept] = values[rows, :kept]
        padded[1::2, max(2, length * 2 // 3) :] = fill
        inputs[name] = padded
    return inputs


def make_probes(graph: Graph, encoded: EncodedDataset, max_length: int) -> tuple[Probe, ...]:
    """Ask the checkpoint itself: a batch for each of several shapes, up to the longest."""
    shapes = {(batch, min(length, max_length)) for batch, length in SHAPES}
    shapes.add((min(LARGEST_BATCH, max(2, LARGEST_TOKENS // max_length)), max_length))
    return tuple(_probe(graph, sample_batch(encoded, *shape)) for shape in sorted(shapes))


def _probe(graph: Graph, inputs: Mapping[str, NDArray[np.int64]]) -> Probe:
    import torch

    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    with torch.inference_mode():
        scores = graph.scores(**tensors)
        if "start_logits" in graph.output_names:
            return _span_probe(inputs, scores)
        values = graph.answer(scores, tensors["input_ids"], tensors["attention_mask"])[0].numpy()
        best = scores.topk(2, dim=-1).values
    mask = inputs["attention_mask"].astype(bool)
    per_token = scores.ndim > 2  # noqa: PLR2004  (batch, sequence, vocabulary)
    return Probe(
        inputs=inputs,
        values=values,
        choices=scores.argmax(-1).numpy(),
        margins=(best[..., 0] - best[..., 1]).numpy(),
        value_counts=_scored(mask) if per_token else np.ones_like(values, dtype=bool),
        choice_counts=mask if per_token else np.ones(len(mask), dtype=bool),
    )


def _span_probe(inputs: Mapping[str, NDArray[np.int64]], scores: Tensor) -> Probe:
    """Start and end are chosen among a row's real tokens: padding is nobody's answer."""
    values = scores.numpy()
    counts = np.broadcast_to(inputs["attention_mask"].astype(bool)[:, None], values.shape)
    real = np.where(counts, values, -np.inf)
    best = np.sort(real, axis=-1)
    return Probe(
        inputs=inputs,
        values=values,
        choices=real.argmax(-1),
        margins=best[..., -1] - best[..., -2],
        value_counts=counts,
        choice_counts=np.ones(values.shape[:2], dtype=bool),
    )


def _scored(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    scored = mask.copy()
    scored[:, 0] = False
    scored[:, 1:] &= mask[:, :-1]
    return scored
