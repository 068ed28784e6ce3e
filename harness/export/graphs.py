"""What is exported: a checkpoint wrapped so that the graph answers the task and nothing more.

Importing this module imports torch; the export does so when it has something to export.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.types import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ClassifierGraph(nn.Module):
    """Token ids to class scores."""

    output_names = ("logits",)

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def scores(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits, (batch, labels)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        answer = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return answer.logits.float()  # type: ignore[no-any-return]

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


class SpanGraph(nn.Module):
    """Token ids to how well an answer would start, and end, at each token."""

    output_names = ("start_logits", "end_logits")

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def scores(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits of start and end, (batch, 2, sequence)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        answer = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
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
        self.last_position = _last_learned_position(model)

    def scores(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the next token at each position, (batch, sequence, vocabulary)."""
        places = {}
        if self.last_position is not None:
            # A window of one token more than there are positions scores as many tokens as the
            # model can: the last is only a target, so which position it has changes no score.
            order = torch.arange(input_ids.shape[1], device=input_ids.device)
            places = {"position_ids": order.clamp(max=self.last_position)[None]}
        answer = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **places
        )
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


def _last_learned_position(model: PreTrainedModel) -> int | None:
    """The last row of a learned table of positions (GPT-2's, OPT's); None for rotary ones.

    A table may start with rows that no token has (OPT's two), which its own lookup skips.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or "position_ids" not in inspect.signature(model.forward).parameters:
        return None
    tokens = model.get_input_embeddings()
    learned = any(
        isinstance(module, nn.Embedding)
        and module is not tokens
        and module.num_embeddings in {positions, positions + 2}
        for module in model.modules()
    )
    return int(positions) - 1 if learned else None


def make_graph(model: PreTrainedModel, kind: TaskKind, pad_token_id: int) -> Graph:
    """Wrap a loaded model for its task, ready for inference.

    Args:
        model: the checkpoint with its weights.
        kind: what it is asked to do.
        pad_token_id: what samples are padded with. Decoder classifiers look for the last token
            that is not padding, by the model's own configuration, which may name none.
    """
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_token_id
    graph = _GRAPHS[kind](model)
    graph.requires_grad_(requires_grad=False)
    return graph.eval()
