"""What is exported: a checkpoint wrapped by its task's family, ready for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.tasks.family import AnyFamily

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.tasks.graphs import Graph


def make_graph(model: PreTrainedModel, family: AnyFamily) -> Graph:
    """Wrap a loaded model for its task, ready for inference.

    Args:
        model: the checkpoint with its weights.
        family: what it is asked to do.
    """
    graph: Graph = family.graph(model)
    graph.requires_grad_(requires_grad=False)
    return graph.eval()
