"""How a family turns a checkpoint into a graph, and compares the graph with the checkpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray

from harness.tasks.parity import Inputs, Probe
from harness.tasks.roles.base import FamilyRole, S

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import (
        BatchEncoding,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from harness.tasks.graphs import Graph


class ExportsGraphs(FamilyRole, Generic[S]):
    """The graph of one kind of task; its parity with the checkpoint and the bare library."""

    causal: bool = False
    """Whether each token is predicted from those before it alone."""
    unused_weights: tuple[str, ...] = ()
    """Beginnings of names of weights that may be missing, because the graph has no use for them."""

    @abstractmethod
    def graph(self, model: PreTrainedModel, task: S) -> Graph:
        """The torch module that is exported, around a checkpoint.

        Args:
            model: the checkpoint with its weights.
            task: what it is asked to do.
        """

    def recipe(self, task: S) -> dict[str, Any]:
        """What of the section decides how the graph is made, as JSON has it."""
        return {}

    # Parity with the checkpoint

    @abstractmethod
    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """What the gate compares of the checkpoint's own answer to one batch.

        Args:
            inputs: the batch.
            scores: the graph's `scores`.
            outputs: the graph's `answer`.
        """

    def probe_answer(
        self,
        outputs: Sequence[NDArray[Any]],
        probe: Probe,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """An artefact's values and choices, shaped as the probe's."""
        return outputs[0], outputs[0].argmax(-1)

    def deviation(self, expected: Sequence[NDArray[Any]], answered: Sequence[NDArray[Any]]) -> str:
        """How far an artefact is from its checkpoint in the terms of such a task, in words.

        Args:
            expected: the checkpoint's values, for each probe.
            answered: the artefact's values, shaped alike.

        Returns:
            Empty where the error says it all.
        """
        return ""

    # Parity with the bare library

    def filled(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        fill: Callable[[Sequence[str]], str],
    ) -> tuple[str, str | None]:
        """A sample that is as long as the task allows, for the bare library to be asked.

        Args:
            texts: the texts of some samples.
            pairs: the second texts of these samples; None where they have none.
            fill: makes one text out of several that fills the task's max_length.
        """
        return fill(texts), None if pairs is None else fill(pairs)

    def bare_options(self, task: S) -> dict[str, Any]:
        """Options with which the library's own tokenizer is called on one row."""
        return {"truncation": True, "max_length": task.max_length}

    def bare_tokens(
        self,
        task: S,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        pair: str | None,
        **settings: Any,
    ) -> BatchEncoding:
        """What the library's own tokenizer makes of one row.

        Args:
            task: the section of the study, which says the length.
            tokenizer: the tokenizer as the library opens it.
            text: the row's text.
            pair: the row's second text; None where it has none.
            settings: further options of the call, beside the family's own.
        """
        texts = (text,) if pair is None else (text, pair)
        encoded: BatchEncoding = tokenizer(*texts, **self.bare_options(task), **settings)
        return encoded

    def bare_values(self, answer: Any, model: PreTrainedModel, task: S) -> Tensor:
        """What is compared of the bare library's answer to one row: its logits, (labels,).

        Args:
            answer: what the model returned.
            model: the model as the library opened it.
            task: the task that the model was asked to do.
        """
        return answer.logits[0]  # type: ignore[no-any-return]

    def graph_values(
        self,
        outputs: Sequence[NDArray[Any]],
        place: int,
        tokens: int,
    ) -> NDArray[np.float32]:
        """The values of one row of the graph's outputs, as `bare_values` has them.

        Args:
            outputs: the graph's outputs of a batch.
            place: where the row stands in the batch.
            tokens: how many tokens the row has without padding.
        """
        values: NDArray[np.float32] = outputs[0][place]
        return values
