"""The graph of a sentence encoder: token ids to the text's vector, pooled and normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.tasks.graphs import PaddedModel
from harness.tasks.sentence_embedding.modules import DenseLayer, EmbeddingModules

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class EmbeddingGraph(PaddedModel):
    """The exported graph: token ids in, vectors out."""

    output_names = ("sentence_embedding",)

    def __init__(self, model: PreTrainedModel, modules: EmbeddingModules) -> None:
        super().__init__(model)
        self.pooling = modules.pooling
        self.normalised = modules.normalised
        self.dense = nn.Sequential(*map(read_dense, modules.dense))

    def scores(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """The vectors of a batch, (batch, dimensions)."""
        tokens = self.ask(input_ids, attention_mask, token_type_ids).last_hidden_state.float()
        vectors = self.dense(self._pooled(tokens, attention_mask))
        return nn.functional.normalize(vectors, dim=-1) if self.normalised else vectors

    def _pooled(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """One vector a row, of right-padded token vectors (batch, sequence, hidden)."""
        real = attention_mask[:, :, None]
        if self.pooling == "cls":
            return tokens[:, 0]
        if self.pooling == "max":
            return torch.where(real.bool(), tokens, float("-inf")).amax(dim=1)
        if self.pooling == "last":
            # The last real token, by a sum: every other one is multiplied by zero.
            after = nn.functional.pad(attention_mask[:, 1:], (0, 1))
            return (tokens * (attention_mask - after)[:, :, None].to(tokens.dtype)).sum(dim=1)
        kept = real.to(tokens.dtype)
        return (tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1e-9)


def pooled_alone(tokens: Tensor, modules: EmbeddingModules) -> Tensor:
    """The vector of one text that no padding was added to, as a model card makes it.

    Args:
        tokens: the model's last hidden state, (tokens, hidden).
        modules: the way from there.
    """
    vector = {
        "mean": lambda: tokens.mean(dim=0),
        "cls": lambda: tokens[0],
        "max": lambda: tokens.max(dim=0).values,
        "last": lambda: tokens[-1],
    }[modules.pooling]().float()
    for layer in modules.dense:
        vector = read_dense(layer)(vector)
    return vector / vector.norm() if modules.normalised else vector


def read_dense(layer: DenseLayer) -> nn.Sequential:
    """A layer with its weights, in single precision."""
    from safetensors.torch import load_file

    weights = load_file(str(layer.weights))
    matrix = weights["linear.weight"].float()
    bias = weights.get("linear.bias")
    linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(matrix, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.float(), requires_grad=False)
    activation: Any = getattr(nn, layer.activation)
    return nn.Sequential(linear, activation())
