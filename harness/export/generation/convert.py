"""A checkpoint's decoder as an ONNX graph over slots; see `graph.py` for what that is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError, HarnessError
from harness.export.convert import SINGLE_FILE_LIMIT_BYTES, finish_graph, trace, weights_bytes
from harness.system.libraries import plain_reason

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_EXAMPLE = {"batch": 3, "length": 5, "span": 17, "answers": 2, "capacity": 23}
"""Sizes to trace with: none is 1, which the exporter takes for a constant, and no two are equal."""

INPUTS = ("input_ids", "start", "span", "at")
LOGITS = "logits"


def buffer_names(layers: int) -> list[str]:
    """Names of the buffers, in the graph's order; inputs are `past.`, outputs `present.` each."""
    return [f"{side}.{layer}" for layer in range(layers) for side in ("keys", "values")]


def write_decoder(
    model: PreTrainedModel,
    shape: tuple[int, int, int],
    path: Path,
    *,
    single_file_limit_bytes: int = SINGLE_FILE_LIMIT_BYTES,
) -> None:
    """Export a model's decoder in single precision; the model is of no other use afterwards.

    Args:
        model: with its weights, ready for inference.
        shape: layers, heads of keys and values, size of a head.
        path: the file to write.
        single_file_limit_bytes: weights larger than this go to `<path>.data`.

    Raises:
        CheckpointError: torch cannot export this architecture, or its attention is its own.
        EnvironmentFailure: the result is too new for the pinned server.
    """
    import torch

    from harness.export.generation.graph import DecoderGraph

    layers, heads, size = shape
    graph = DecoderGraph(model)
    batch, length, span = (_EXAMPLE[name] for name in ("batch", "length", "span"))
    past = [torch.zeros(batch, heads, _EXAMPLE["capacity"], size) for _ in range(2 * layers)]
    names = buffer_names(layers)
    arguments = (
        torch.ones(batch, length, dtype=torch.long),
        torch.arange(1, batch + 1),
        torch.arange(span),
        torch.zeros(batch, _EXAMPLE["answers"], dtype=torch.long),
        past,
    )
    try:
        trace(
            graph,
            path,
            arguments,
            input_names=[*INPUTS, *(f"past.{name}" for name in names)],
            output_names=[LOGITS, *(f"present.{name}" for name in names)],
            dynamic_shapes=_dynamic(len(past)),
            external_data=weights_bytes(model) > single_file_limit_bytes,
        )
    except OSError:
        raise  # the disk, not the model
    except Exception as error:
        # The exporter raises what it likes; torch.onnx.errors are only some of it.
        raise CheckpointError(
            f"the decoder of {type(model).__name__} cannot be exported to ONNX: {reason_of(error)}",
            next_step="serve it with vLLM or another server and measure it there "
            "(docs/external-servers.md)",
        ) from error
    finish_graph(path)


def _dynamic(buffers: int) -> tuple[Any, ...]:
    return (
        {0: "batch", 1: "length"},
        {0: "batch"},
        {0: "span"},
        {0: "batch", 1: "answers"},
        [{0: "batch", 2: "capacity"}] * buffers,
    )


def reason_of(error: BaseException) -> str:
    """What the graph itself said, where that was the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HarnessError):
            return str(cause)
        cause = cause.__cause__
    return plain_reason(error)
