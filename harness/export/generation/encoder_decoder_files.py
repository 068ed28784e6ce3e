"""An encoder-decoder's two graphs as ONNX files; see `encoder_decoder.py` for what they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.export.convert import SINGLE_FILE_LIMIT_BYTES, finish_graph, trace, weights_bytes
from harness.export.generation.convert import INPUTS, LOGITS, buffer_names, reason_of
from harness.types.generation import GeneratorSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENCODER_INPUTS = ("input_ids", "lengths")
DECODER_INPUTS = (*INPUTS, "sources", "source_span")
_EXAMPLE = {"batch": 3, "length": 5, "span": 17, "answers": 2, "capacity": 23}
_SOURCES = {"span": 13, "capacity": 29}
"""Sizes to trace with: none is 1, which the exporter takes for a constant, and no two are equal."""


def write_encoder_decoder(
    model: PreTrainedModel,
    settings: GeneratorSettings,
    encoder: Path,
    decoder: Path,
    *,
    single_file_limit_bytes: int = SINGLE_FILE_LIMIT_BYTES,
) -> None:
    """Export both graphs in single precision; the model is of no other use afterwards.

    Args:
        model: with its weights, ready for inference.
        settings: its sizes, and the tokens that each side holds at most.
        encoder: the file to write of the encoder.
        decoder: and of the decoder.
        single_file_limit_bytes: weights larger than this go to `<path>.data`.

    Raises:
        CheckpointError: torch cannot export this architecture, or its attention is its own.
        EnvironmentFailure: the result is too new for the pinned server.
    """
    from harness.export.generation.encoder_decoder import EncoderGraph, SourcedDecoderGraph

    external = weights_bytes(model) > single_file_limit_bytes
    # Each graph replaces parts of the model that the other takes as they are.
    other = copy.deepcopy(model)
    _write(
        lambda: EncoderGraph(other, settings.source_context),
        encoder,
        model,
        **_of_encoder(settings),
        external_data=external,
    )
    _write(
        lambda: SourcedDecoderGraph(model, settings.context),
        decoder,
        model,
        **_of_decoder(settings),
        external_data=external,
    )


def _write(make: Callable[[], Any], path: Path, model: PreTrainedModel, **settings: Any) -> None:
    try:
        trace(make(), path, **settings)
    except OSError:
        raise  # the disk, not the model
    except Exception as error:
        # The exporter raises what it likes; torch.onnx.errors are only some of it.
        raise CheckpointError(
            f"{type(model).__name__} cannot be exported to ONNX: {reason_of(error)}",
            next_step="serve it with another server and measure it there "
            "(docs/external-servers.md)",
        ) from error
    finish_graph(path)


def _of_encoder(settings: GeneratorSettings) -> dict[str, Any]:
    import torch

    batch, length = _EXAMPLE["batch"], _EXAMPLE["length"]
    return {
        "arguments": (
            torch.ones(batch, length, dtype=torch.long),
            torch.tensor([length, length - 1, length - 2]),
        ),
        "input_names": [*ENCODER_INPUTS],
        "output_names": [f"read.{name}" for name in buffer_names(settings.layers)],
        "dynamic_shapes": ({0: "batch", 1: "length"}, {0: "batch"}),
    }


def _of_decoder(settings: GeneratorSettings) -> dict[str, Any]:
    import torch

    batch, length = _EXAMPLE["batch"], _EXAMPLE["length"]
    names = buffer_names(settings.layers)

    def buffers(capacity: int) -> list[Any]:
        shape = (batch, settings.heads, capacity, settings.head_size)
        return [torch.zeros(shape) for _ in names]

    return {
        "arguments": (
            torch.ones(batch, length, dtype=torch.long),
            torch.arange(1, batch + 1),
            torch.arange(_EXAMPLE["span"]),
            torch.zeros(batch, _EXAMPLE["answers"], dtype=torch.long),
            (torch.arange(7, 7 + batch), torch.arange(_SOURCES["span"])),
            buffers(_EXAMPLE["capacity"]),
            buffers(_SOURCES["capacity"]),
        ),
        "input_names": [
            *DECODER_INPUTS,
            *(f"past.{name}" for name in names),
            *(f"read.{name}" for name in names),
        ],
        "output_names": [LOGITS, *(f"present.{name}" for name in names)],
        "dynamic_shapes": (
            {0: "batch", 1: "length"},
            {0: "batch"},
            {0: "span"},
            {0: "batch", 1: "answers"},
            ({0: "batch"}, {0: "source_span"}),
            [{0: "batch", 2: "capacity"}] * len(names),
            [{0: "batch", 2: "source_capacity"}] * len(names),
        ),
    }
