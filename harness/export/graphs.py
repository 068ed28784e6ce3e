"""What is exported: a checkpoint wrapped by its task's family, ready for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.tasks.registry import family_of
from harness.tasks.section import TaskSection

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.tasks.graphs import Graph


def make_graph(model: PreTrainedModel, task: TaskSection) -> Graph:
    """Wrap a loaded model for its task, ready for inference.

    Args:
        model: the checkpoint with its weights.
        task: what it is asked to do.
    """
    graph: Graph = family_of(task).graph(model, task)
    graph.requires_grad_(requires_grad=False)
    return graph.eval()
