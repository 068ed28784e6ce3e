"""Which matrix products of a graph must stay in single precision when the others are int8.

Weights are quantised once; the other factor, a step's tokens, when it is there, with one scale for
all its values. Trained language models have a few values that are a thousand times the others,
mostly at a text's first token (Sun et al., 'Massive activations in large language models', 2024,
arXiv:2402.17762): beside them nothing is left of what the other tokens bring. So the products are
looked at while the graph reads texts, and where the rounding would be more than a share of what
an ordinary token brings, the product is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.export.generation.convert import INPUTS, buffer_names
from harness.export.generation.encoder_decoder_files import DECODER_INPUTS, ENCODER_INPUTS
from harness.system.libraries import quiet
from harness.types.generation import GeneratorSettings

if TYPE_CHECKING:
    import onnx

MOST_NOISE = 3e-3
"""Of the rounding's mean square over that of an ordinary token; 25 dB. Without outliers it is near
1e-4; of SmolLM2-135M's products half have less than 1.2e-3, and a few have 1 to 500."""
Feed = Mapping[str, NDArray[Any]]
"""The inputs of one run of a graph, by name."""
_STEPS = 255
"""Of eight bits."""


def spoilt_products(path: Path, feeds: Iterable[Feed]) -> list[str]:
    """Names of the nodes that int8 would spoil, in the graph's order.

    Args:
        path: the graph in single precision; a copy with more outputs is written beside it for the
            while.
        feeds: what it reads: see `decoder_feeds`, `encoder_feeds` and `sourced_decoder_feeds`.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    products = _products(model.graph)
    if not products:
        return []
    watched = list(dict.fromkeys(products.values()))
    known = {one.name for one in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in watched
        if name not in known
    )
    copy = path.with_name(f"watched-{path.name}")
    try:
        copy.write_bytes(model.SerializeToString())
        del model
        noises = _noises(copy, watched, feeds)
    finally:
        copy.unlink(missing_ok=True)
    if not noises:
        return []
    worst = dict(zip(watched, np.max(noises, axis=0), strict=True))
    return [node for node, tokens in products.items() if worst[tokens] > MOST_NOISE]


def _products(graph: onnx.GraphProto) -> dict[str, str]:
    """The name of what each product with a constant matrix multiplies, by the node's name.

    The quantiser makes a MatMul of a Gemm (GPT-2 has them) before it looks at names.
    """
    constants = {one.name for one in graph.initializer}
    return {
        node.name if node.op_type == "MatMul" else f"{node.name}_MatMul": node.input[0]
        for node in graph.node
        if node.op_type in {"MatMul", "Gemm"} and node.input[1] in constants
    }


def _noises(path: Path, watched: list[str], feeds: Iterable[Feed]) -> list[list[float]]:
    """Of each run and each of the watched values, see `rounding_noise`."""
    session = _session(path)
    return [[rounding_noise(one) for one in session.run(watched, dict(feed))] for feed in feeds]


def decoder_feeds(
    settings: GeneratorSettings, texts: Iterable[Sequence[int]]
) -> Iterator[dict[str, NDArray[Any]]]:
    """What a causal decoder reads of each text: all of it at once.

    Args:
        settings: what the decoder is like.
        texts: tokens.
    """
    for text in texts:
        ids = np.array([text], np.int64)
        span = np.arange(ids.shape[1])
        yield {
            **dict(zip(INPUTS, (ids, np.zeros(1, np.int64), span, span[None, -1:]), strict=True)),
            **_empty(settings, ids.shape[1]),
        }


def encoder_feeds(sources: Iterable[Sequence[int]]) -> Iterator[dict[str, NDArray[Any]]]:
    """What an encoder reads of each text."""
    for source in sources:
        values = (np.array([source], np.int64), np.array([len(source)]))
        yield dict(zip(ENCODER_INPUTS, values, strict=True))


def sourced_decoder_feeds(
    settings: GeneratorSettings,
    encoder: Path,
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
) -> Iterator[dict[str, NDArray[Any]]]:
    """What the decoder behind an encoder reads of each answer: all of it at once.

    Args:
        settings: what both are like.
        encoder: its graph in single precision.
        pairs: tokens of a source, and of what is written of it.
    """
    session, names = _session(encoder), buffer_names(settings.layers)
    for source, answer in pairs:
        (feed,) = encoder_feeds([source])
        read = session.run([f"read.{name}" for name in names], feed)
        ids = np.array([[settings.decoder_start, *answer[:-1]]], np.int64)
        span = np.arange(ids.shape[1])
        sources = np.array([len(source)]), np.arange(len(source))
        values = (ids, np.zeros(1, np.int64), span, span[None, -1:], *sources)
        yield {
            **dict(zip(DECODER_INPUTS, values, strict=True)),
            **{f"read.{name}": one for name, one in zip(names, read, strict=True)},
            **_empty(settings, ids.shape[1]),
        }


def _empty(settings: GeneratorSettings, capacity: int) -> dict[str, NDArray[Any]]:
    shape = (1, settings.heads, capacity, settings.head_size)
    return {f"past.{name}": np.zeros(shape, np.float32) for name in buffer_names(settings.layers)}


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about speed
    with quiet():
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def rounding_noise(values: NDArray[np.float32]) -> float:
    """Mean square that eight bits with one scale round off, over that of an ordinary token.

    Args:
        values: (..., width), a token a row.
    """
    rows = values.reshape(-1, values.shape[-1])
    step = (max(float(rows.max()), 0.0) - min(float(rows.min()), 0.0)) / _STEPS
    ordinary = float(np.median((rows**2).mean(axis=-1)))
    return step**2 / 12 / ordinary if ordinary > 0 else 0.0
