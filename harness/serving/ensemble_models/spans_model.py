"""Scores of tags to entities as JSON: the last part of a token classifier's ensemble.

Written into the model repository as `<variant>-spans/1/model.py`, beside `entity_spans.py`, and
run by Triton's Python backend in the server's own environment: it imports nothing of the harness.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from entity_spans import EntitySpans


class TritonPythonModel:
    """One instance of the post-processing."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read what the model's tags say.

        Args:
            args: Triton's description of the instance; the configuration's parameter `tags` is a
                JSON list with prefix and type of each output.
        """
        parameters = json.loads(args["model_config"])["parameters"]
        self._spans = EntitySpans(json.loads(parameters["tags"]["string_value"]))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer Triton's requests; one that fails leaves the others alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        logits, offsets, words = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("logits", "OFFSETS", "WORDS")
        )
        if not np.isfinite(logits[words >= 0]).all():
            failure = pb_utils.TritonError("spans: the model's scores are not numbers")
            return pb_utils.InferenceResponse(error=failure)
        rows = [
            json.dumps(self._spans.read(*row), ensure_ascii=False).encode()
            for row in zip(logits, offsets, words, strict=True)
        ]
        answer = np.array(rows, dtype=np.object_)[:, None]
        return pb_utils.InferenceResponse([pb_utils.Tensor("SPANS", answer)])
