"""A checkpoint wrapped so that an exported graph answers the task and nothing more.

Importing this module imports torch: families do so when a graph is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NO_TOKEN = -1
"""Is in no text, and in no vocabulary."""


class Graph(nn.Module):
    """What a family exports: its forward pass takes right-padded rows and answers the task."""

    output_names: tuple[str, ...]
    model: PreTrainedModel

    def scores(self, *args: Any, **kwargs: Any) -> Tensor:
        """The model's raw scores, before the graph's outputs are made of them."""
        raise NotImplementedError

    def answer(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """The outputs made of scores, token ids and mask, in the order of `output_names`."""
        raise NotImplementedError


class PaddedModel(Graph):
    """A checkpoint that answers a padded row as it would the row alone.

    The attention mask says what is padding. Some models look at the token ids as well: decoders'
    classifiers pool the last token that is not the configuration's pad token, RoBERTa counts
    positions over the others. So whatever token a row was padded with, the model is shown its own
    pad token there, and its own code does as it does with the row alone: a text that ends in that
    very token is pooled at the token before it, as transformers does. Where the configuration has
    no pad token, or one beyond the vocabulary, the model is shown one that no text can hold.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        text = model.config.get_text_config()
        embedding: Any = model.get_input_embeddings()
        pad = getattr(text, "pad_token_id", None)
        self.pad_token_id: int = _NO_TOKEN if pad is None else pad
        if not 0 <= self.pad_token_id < embedding.weight.shape[0]:
            for config in (model.config, text):
                config.pad_token_id = self.pad_token_id
            embedding.register_forward_pre_hook(self._look_up_another)

    def ask(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Any:
        """The checkpoint's own answer to right-padded rows, (batch, sequence)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        shown = torch.where(attention_mask.bool(), input_ids, self.pad_token_id)
        return self.model(input_ids=shown, attention_mask=attention_mask, **types)

    def answer(
        self,
        scores: Tensor,
        input_ids: Tensor,  # noqa: ARG002  (a graph that scores its tokens needs them)
        attention_mask: Tensor,  # noqa: ARG002
    ) -> tuple[Tensor, ...]:
        """The outputs made of the scores: these, as they are, are the only one."""
        return (scores,)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """See `answer`; rows are right-padded, (batch, sequence)."""
        scores = self.scores(input_ids, attention_mask, token_type_ids)
        return self.answer(scores, input_ids, attention_mask)

    def _look_up_another(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (ids,) = inputs
        return (torch.where(ids == self.pad_token_id, 0, ids),)


class LogitsGraph(PaddedModel):
    """Token ids to the checkpoint's logits: of a row's classes, or of the tags at every token."""

    output_names = ("logits",)

    def scores(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits in single precision, (batch, classes) or (batch, sequence, tags)."""
        return self.ask(input_ids, attention_mask, token_type_ids).logits.float()  # type: ignore[no-any-return]
