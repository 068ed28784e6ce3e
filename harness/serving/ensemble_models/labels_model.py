"""Scores of labels to those that a text gets: the last part of a multi-label classifier's ensemble.

Written into the model repository as `<variant>-labels/1/model.py` and run by Triton's Python
backend in the server's own environment: it imports nothing of the harness.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the post-processing."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the names of the labels, in the order of the model's outputs, and the threshold.

        Args:
            args: Triton's description of the instance; of the configuration's parameters `labels`
                is a JSON list, and `threshold` the probability from which on a label is given.
        """
        parameters = json.loads(args["model_config"])["parameters"]
        self._labels = json.loads(parameters["labels"]["string_value"])
        self._threshold = float(parameters["threshold"]["string_value"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer Triton's requests; one that fails leaves the others alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        logits = pb_utils.get_input_tensor_by_name(request, "logits").as_numpy()
        if not np.isfinite(logits).all():
            failure = pb_utils.TritonError("labels: the model's scores are not numbers")
            return pb_utils.InferenceResponse(error=failure)
        # In double precision; of a number and its negative, so that no exponential overflows.
        small = np.exp(-np.abs(logits.astype(np.float64)))
        probabilities = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
        rows = [
            json.dumps(
                [name for name, one in zip(self._labels, row, strict=True) if one],
                ensure_ascii=False,
            ).encode()
            for row in probabilities >= self._threshold
        ]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("LABELS", np.array(rows, dtype=np.object_)[:, None]),
                pb_utils.Tensor("PROBABILITIES", probabilities.astype(np.float32)),
            ]
        )
