"""The graph of an extractive question answerer. Importing this module imports torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.tasks.graphs import PaddedModel
from harness.tasks.parity import Inputs, Probe


class SpanGraph(PaddedModel):
    """Token ids to how well an answer would start, and end, at each token."""

    output_names = ("start_logits", "end_logits")

    def scores(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits of start and end, (batch, 2, sequence)."""
        answer = self.ask(input_ids, attention_mask, token_type_ids)
        return torch.stack([answer.start_logits, answer.end_logits], dim=1).float()

    def answer(
        self,
        scores: Tensor,
        input_ids: Tensor,  # noqa: ARG002  (the scoring graph's needs them)
        attention_mask: Tensor,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """`start_logits` and `end_logits`, (batch, sequence) each."""
        return scores[:, 0], scores[:, 1]


def span_probe(inputs: Inputs, scores: Tensor) -> Probe:
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
