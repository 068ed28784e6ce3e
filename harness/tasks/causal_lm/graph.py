"""The graph of a causal language model. Importing this module imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.tasks.graphs import Graph
from harness.tasks.parity import Inputs, Probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ScoringGraph(Graph):
    """Token ids to how probable the model finds each, and what it would have said.

    The vocabulary-sized logits stay inside the graph: for 64 tokens of a 50,000-word vocabulary
    they would be 13 MB a sample on the wire, and the load test would measure the network.
    """

    output_names = ("token_logprobs", "greedy_token_ids")

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        _add_a_position(model)

    def scores(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the next token at each position, (batch, sequence, vocabulary)."""
        answer = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return answer.logits.float()  # type: ignore[no-any-return]

    def answer(
        self, scores: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log probability of each token given those before it, and the likeliest next token.

        Returns:
            `token_logprobs` (batch, sequence), natural logarithm; 0 for the first token, which
            nothing precedes, and at padding. `greedy_token_ids` (batch, sequence).
        """
        before, targets = scores[:, :-1], input_ids[:, 1:, None]
        # log softmax of one entry, without making the whole vocabulary's.
        logprobs = before.gather(-1, targets).squeeze(-1) - before.logsumexp(-1)
        scored = (attention_mask[:, 1:] * attention_mask[:, :-1]).to(logprobs.dtype)
        return nn.functional.pad(logprobs * scored, (1, 0)), scores.argmax(-1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute what `answer` describes."""
        scores = self.scores(input_ids, attention_mask)
        return self.answer(scores, input_ids, attention_mask)


def _add_a_position(model: PreTrainedModel) -> None:
    """Let a model with a learned table of positions read one token more than the table has.

    A window of one token more than there are positions scores as many tokens as the model can: the
    last is only a target, so what its position looks like changes no score. Which position a token
    has stays the model's own business (RoBERTa begins behind its pad token, OPT at two).
    """
    tokens = model.get_input_embeddings()
    for name, module in model.named_modules():
        positional = "pos" in name.rpartition(".")[2] or name.endswith("wpe")
        if positional and isinstance(module, nn.Embedding) and module is not tokens:
            rows = module.weight.detach()
            module.weight = nn.Parameter(torch.cat([rows, rows[-1:]]), requires_grad=False)
        for buffer in ("position_ids", "token_type_ids"):
            # BERT's: tables of as many columns as there are positions, cut to a row's length.
            kept = module._buffers.get(buffer)
            if kept is not None and kept.ndim == 2:  # noqa: PLR2004  (1, positions)
                last = kept[:, -1:] + (1 if buffer == "position_ids" else 0)
                module._buffers[buffer] = torch.cat([kept, last], dim=1)


def token_probe(inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
    """Log probabilities of the scored tokens, and the next token at each real one.

    Args:
        inputs: the batch.
        scores: logits, (batch, sequence, vocabulary).
        outputs: of the graph.
    """
    best = scores.topk(2, dim=-1).values
    mask = inputs["attention_mask"].astype(bool)
    return Probe(
        inputs=inputs,
        values=outputs[0].numpy(),
        choices=scores.argmax(-1).numpy(),
        margins=(best[..., 0] - best[..., 1]).numpy(),
        value_counts=_scored(mask),
        choice_counts=mask,
    )


def _scored(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    scored = mask.copy()
    scored[:, 0] = False
    scored[:, 1:] &= mask[:, :-1]
    return scored
