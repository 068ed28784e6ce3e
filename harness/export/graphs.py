"""What is exported: a checkpoint wrapped so that the graph answers the task and nothing more.

Importing this module imports torch; the export does so when it has something to export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.types import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NO_TOKEN = -1
"""Is in no text, and in no vocabulary."""


class PaddedModel(nn.Module):
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

    def _look_up_another(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (ids,) = inputs
        return (torch.where(ids == self.pad_token_id, 0, ids),)


class ClassifierGraph(PaddedModel):
    """Token ids to class scores."""

    output_names = ("logits",)

    def scores(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits, (batch, labels)."""
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
        """Logits, (batch, labels), as the only output."""
        scores = self.scores(input_ids, attention_mask, token_type_ids)
        return self.answer(scores, input_ids, attention_mask)


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

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `answer`."""
        scores = self.scores(input_ids, attention_mask, token_type_ids)
        return self.answer(scores, input_ids, attention_mask)


class ScoringGraph(nn.Module):
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
        """See `answer`."""
        scores = self.scores(input_ids, attention_mask)
        return self.answer(scores, input_ids, attention_mask)


Graph = ClassifierGraph | SpanGraph | ScoringGraph
_GRAPHS: dict[TaskKind, type[Graph]] = {
    TaskKind.SEQUENCE_CLASSIFICATION: ClassifierGraph,
    TaskKind.QUESTION_ANSWERING: SpanGraph,
    TaskKind.CAUSAL_LM: ScoringGraph,
}


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


def make_graph(model: PreTrainedModel, kind: TaskKind) -> Graph:
    """Wrap a loaded model for its task, ready for inference.

    Args:
        model: the checkpoint with its weights.
        kind: what it is asked to do.
    """
    graph = _GRAPHS[kind](model)
    graph.requires_grad_(requires_grad=False)
    return graph.eval()
