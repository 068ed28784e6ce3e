"""The graph of a token classifier: token ids to the scores of every tag at every token."""

from __future__ import annotations

from torch import Tensor

from harness.tasks.graphs import PaddedModel


class TaggerGraph(PaddedModel):
    """Token ids to scores of tags."""

    output_names = ("logits",)

    def scores(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits, (batch, sequence, tags)."""
        return self.ask(input_ids, attention_mask, token_type_ids).logits.float()  # type: ignore[no-any-return]

    def answer(
        self,
        scores: Tensor,
        input_ids: Tensor,  # noqa: ARG002  (the scoring graph's needs them)
        attention_mask: Tensor,  # noqa: ARG002
    ) -> tuple[Tensor]:
        """The outputs made from the scores: the logits, as they are."""
        return (scores,)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor]:
        """Logits, (batch, sequence, tags), as the only output."""
        scores = self.scores(input_ids, attention_mask, token_type_ids)
        return self.answer(scores, input_ids, attention_mask)
