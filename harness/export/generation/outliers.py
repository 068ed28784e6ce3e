"""Which matrix products of a decoder must stay in single precision when the others are int8.

Weights are quantised once; the other factor, a step's tokens, when it is there, with one scale for
all its values. Trained language models have a few values that are a thousand times the others,
mostly at a text's first token (Sun et al., 'Massive activations in large language models', 2024,
arXiv:2402.17762): beside them nothing is left of what the other tokens bring. So the products are
looked at while the decoder reads texts, and where the rounding would be more than a share of what
an ordinary token brings, the product is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.export.generation.convert import INPUTS, buffer_names
from harness.system.libraries import quiet
from harness.types.generation import GeneratorSettings

if TYPE_CHECKING:
    import onnx

MOST_NOISE = 3e-3
"""Of the rounding's mean square over that of an ordinary token; 25 dB. Without outliers it is near
1e-4; of SmolLM2-135M's products half have less than 1.2e-3, and a few have 1 to 500."""
_STEPS = 255
"""Of eight bits."""


def spoilt_products(
    path: Path, settings: GeneratorSettings, texts: Sequence[Sequence[int]]
) -> list[str]:
    """Names of the nodes that int8 would spoil, in the graph's order.

    Args:
        path: the decoder in single precision; a copy with more outputs is written beside it for
            the while.
        settings: what it is like.
        texts: tokens that are read, each by itself.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    products = _products(model.graph)
    if not products or not texts:
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
        noises = np.array(_noises(copy, settings, watched, texts))
    finally:
        copy.unlink(missing_ok=True)
    worst = dict(zip(watched, noises.max(axis=0), strict=True))
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


def _noises(
    path: Path, settings: GeneratorSettings, watched: list[str], texts: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Of each text and each of the watched values, see `rounding_noise`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about speed
    with quiet():
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = []
    for text in texts:
        ids = np.array([text], np.int64)
        span = np.arange(ids.shape[1])
        inputs: dict[str, NDArray[Any]] = dict(
            zip(INPUTS, (ids, np.zeros(1, np.int64), span, span[None, -1:]), strict=True)
        )
        shape = (1, settings.heads, ids.shape[1], settings.head_size)
        for name in buffer_names(settings.layers):
            inputs[f"past.{name}"] = np.zeros(shape, np.float32)
        found.append([rounding_noise(one) for one in session.run(watched, inputs)])
    return found


def rounding_noise(values: NDArray[np.float32]) -> float:
    """Mean square that eight bits with one scale round off, over that of an ordinary token.

    Args:
        values: (..., width), a token a row.
    """
    rows = values.reshape(-1, values.shape[-1])
    step = (max(float(rows.max()), 0.0) - min(float(rows.min()), 0.0)) / _STEPS
    ordinary = float(np.median((rows**2).mean(axis=-1)))
    return step**2 / 12 / ordinary if ordinary > 0 else 0.0
