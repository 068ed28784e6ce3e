"""A checkpoint's weights: counted without reading them, and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.export.configuration import read_config
from harness.export.reasons import plain_reason
from harness.study import Model
from harness.tasks.quiet import quiet
from harness.types import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def count_parameters(model: Model, folder: Path, kind: TaskKind) -> int:
    """Count on a model without memory: the file also stores buffers, and shared weights once."""
    import torch

    config = read_config(model, folder)
    try:
        with quiet(), torch.device("meta"):
            empty = _auto_class(kind).from_config(config, trust_remote_code=model.trust_remote_code)
    except Exception as error:
        # A configuration that lacks what its model reads fails as Python does: in any way.
        raise CheckpointError(
            f"checkpoint {model.checkpoint}: transformers cannot build it: {plain_reason(error)}"
        ) from error
    return sum(weight.numel() for weight in empty.parameters())


def load_model(
    model: Model, folder: Path, kind: TaskKind, *, attention: str | None = "eager"
) -> PreTrainedModel:
    """Read the weights, in single precision and ready for inference.

    Args:
        model: the study's section.
        folder: where the checkpoint lies.
        kind: what it is asked to do.
        attention: the form of its attention. The plain ('eager') one exports to fewer operators
            than the fused one, and ONNX Runtime runs them a little faster; None leaves the choice
            to the library.

    Raises:
        CheckpointError: the weights cannot be read, are of other sizes than the configuration
            says, or the task's head is not among them.
    """
    import torch

    if getattr(read_config(model, folder), "alibi", False):
        attention = None  # Falcon's plain form adds its bias twice
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        with quiet():
            loaded, report = _auto_class(kind).from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, with the sizes
                **chosen,
            )
    except Exception as error:
        # safetensors, torch and the model's own code have no common base of exceptions.
        raise CheckpointError(
            f"checkpoint {model.checkpoint}: the weights cannot be read: {plain_reason(error)}"
        ) from error
    other_sizes = sorted(report["mismatched_keys"])
    if other_sizes:
        name, held, built = other_sizes[0]
        raise CheckpointError(
            f"checkpoint {model.checkpoint}: its config.json is not that of its weights: {name} "
            f"has the shape {list(held)}, and {list(built)} by config.json",
            next_step="look at the number of classes (id2label), of tokens and of positions there",
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"checkpoint {model.checkpoint} has no weights for {', '.join(missing[:4])}"
            f"{' and more' if len(missing) > 4 else ''}: it was not trained for {kind}",  # noqa: PLR2004
            next_step="fine-tune it for the task first, or name the checkpoint that was",
        )
    return loaded.eval()  # type: ignore[no-any-return]


def _auto_class(kind: TaskKind) -> Any:
    import transformers

    return {
        TaskKind.SEQUENCE_CLASSIFICATION: transformers.AutoModelForSequenceClassification,
        TaskKind.QUESTION_ANSWERING: transformers.AutoModelForQuestionAnswering,
        TaskKind.CAUSAL_LM: transformers.AutoModelForCausalLM,
    }[kind]
