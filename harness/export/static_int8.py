"""int8 for TensorRT: explicit quantise and dequantise nodes, with ranges measured on real data.

TensorRT takes no dynamic quantisation. It wants the nodes in the graph, symmetric, weights by
channel; the ranges of the activations are taken from samples of the task's data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.export.convert import artefact_files, finish_graph
from harness.tasks.encoding import EncodedDataset
from harness.tasks.quiet import quiet

BATCH = 16
"""Rows a calibration batch; a batch has one padded length, as requests do."""
QUANTISED = ("MatMul", "Gemm")
"""What is worth eight bits; the rest would pay more for conversion than it gains."""


def calibration_batches(
    encoded: EncodedDataset, samples: int, seed: int
) -> Iterator[dict[str, NDArray[np.int64]]]:
    """Draw rows without replacement, batch by batch, each of one padded length.

    Args:
        encoded: the task's data as the checkpoint's tokenizer makes it.
        samples: rows to draw at most.
        seed: the study's.

    Yields:
        Arrays (rows, length) by input name; no labels.
    """
    drawn = np.random.default_rng(seed).permutation(encoded.size)[:samples]
    for group in encoded.groups:
        places = np.flatnonzero(np.isin(group.rows, drawn))
        for start in range(0, len(places), BATCH):
            chosen = places[start : start + BATCH]
            yield {name: values[chosen] for name, values in group.inputs.items()}


def write_static_int8(
    source: Path, path: Path, encoded: EncodedDataset, *, samples: int, seed: int
) -> None:
    """Quantise the matrix products of a graph for TensorRT.

    Args:
        source: the single-precision graph.
        path: the file to write; weights beside it where the source has them beside.
        encoded: data to calibrate with.
        samples: rows to calibrate with at most.
        seed: draws them.

    Raises:
        EnvironmentFailure: the result is too new for the pinned server.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._batches = calibration_batches(encoded, samples, seed)

        def get_next(self) -> Mapping[str, NDArray[np.int64]] | None:
            return next(self._batches, None)

    with quiet():
        quantize_static(
            source,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=[*QUANTISED],
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=len(artefact_files(source)) > 1,
            # Symmetric, as TensorRT asks; no pair is shared, so that it can fuse each.
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "DedicatedQDQPair": True,
            },
        )
    finish_graph(path)
