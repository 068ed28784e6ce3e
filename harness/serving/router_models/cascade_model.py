"""The student answers; a row whose confidence is below a threshold goes to the teacher.

Written into the model repository as `<student>-router/1/model.py` and run by Triton's Python
backend, which asks the two other models in the same server: it imports nothing of the harness.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the router."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read which models it routes between, and where.

        Args:
            args: Triton's description of the instance. The configuration's parameters are the
                models' names, the threshold, the teacher's largest batch, which of the inputs the
                teacher takes, and `columns`: of each of the student's classes, in order, the place
                among the teacher's.
        """
        config = json.loads(args["model_config"])
        said = {name: one["string_value"] for name, one in config["parameters"].items()}
        self._inputs = [one["name"] for one in config["input"]]
        self._output = config["output"][0]["name"]
        self._student, self._teacher = said["student"], said["teacher"]
        self._threshold = float(said["threshold"])
        self._teacher_batch = int(said["teacher_batch"])
        self._teacher_inputs = set(json.loads(said["teacher_inputs"]))
        self._columns = json.loads(said["columns"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests of one shape, all their rows together."""
        try:
            inputs = {name: _joined(requests, name) for name in self._inputs}
            logits = self._ask(self._student, inputs)
            below = np.flatnonzero(confidence_of(logits) < self._threshold)
            for start in range(0, len(below), self._teacher_batch):
                rows = below[start : start + self._teacher_batch]
                own = {name: inputs[name][rows] for name in self._teacher_inputs}
                logits[rows] = self._ask(self._teacher, own)[:, self._columns]
        except RuntimeError as error:
            failure = pb_utils.TritonError(f"router: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum([_rows(request, self._inputs[0]) for request in requests])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(self._output, np.ascontiguousarray(part))])
            for part in np.split(logits, ends[:-1])
        ]

    def _ask(self, model: str, inputs: Mapping[str, Any]) -> Any:
        request = pb_utils.InferenceRequest(
            model_name=model,
            requested_output_names=[self._output],
            inputs=[
                pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in inputs.items()
            ],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(f"{model}: {response.error().message()}")
        # A copy: the answer's memory is the server's.
        return np.array(pb_utils.get_output_tensor_by_name(response, self._output).as_numpy())


def confidence_of(logits: Any) -> Any:
    """The greatest softmax probability of each row; 0 where a logit is not a number."""
    usable = np.isfinite(logits).all(axis=1)
    found = np.zeros(len(logits))
    # In double precision, and from the largest down, so that no exponential overflows.
    own = logits[usable].astype(np.float64)
    found[usable] = 1 / np.exp(own - own.max(axis=1, keepdims=True)).sum(axis=1)
    return found


def _joined(requests: Sequence[Any], name: str) -> Any:
    return np.concatenate(
        [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
    )


def _rows(request: Any, name: str) -> int:
    return int(pb_utils.get_input_tensor_by_name(request, name).as_numpy().shape[0])
