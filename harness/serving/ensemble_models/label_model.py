"""Class scores to a label and how probable it is: the last part of a served ensemble.

Written into the model repository as `<variant>-label/1/model.py` and run by Triton's Python
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
        """Read the names of the classes, in the order of the model's outputs.

        Args:
            args: Triton's description of the instance; the configuration's parameter `labels` is
                a JSON list.
        """
        parameters = json.loads(args["model_config"])["parameters"]
        names = json.loads(parameters["labels"]["string_value"])
        self._labels = np.array([name.encode() for name in names], dtype=np.object_)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer Triton's requests; one that fails leaves the others alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        logits = pb_utils.get_input_tensor_by_name(request, "logits").as_numpy()
        if not np.isfinite(logits).all():
            failure = pb_utils.TritonError("label: the model's scores are not numbers")
            return pb_utils.InferenceResponse(error=failure)
        # In double precision, and from the largest down, so that no exponential overflows.
        weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        shares = weights / weights.sum(axis=1, keepdims=True)
        best = logits.argmax(axis=1)
        scores = np.take_along_axis(shares, best[:, None], axis=1).astype(np.float32)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("LABEL", self._labels[best][:, None]),
                pb_utils.Tensor("SCORE", scores),
            ]
        )
