"""Each row goes to the student or to the teacher, by its key; or to both, to be compared.

Written into the model repository as `<student>-rollout/1/model.py` and run by Triton's Python
backend, which asks the two other models in the same server: it imports nothing of the harness.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_BUCKETS = 2**64
_NOT_ASKED, _FAILED = -1.0, -2.0
"""Stand in for the milliseconds that a model took."""


class TritonPythonModel:
    """One instance of the split."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read which models it splits between, and how.

        Args:
            args: Triton's description of the instance. The configuration's parameters are the
                models' names, the student's share of all keys, the salt of their hash, the mode
                (canary, mirror or shadow), the teacher's largest batch, which of the inputs the
                teacher takes, and `columns`: of each of the student's classes, in order, the place
                among the teacher's. The student takes as large a batch as the split itself.
        """
        config = json.loads(args["model_config"])
        said = {name: one["string_value"] for name, one in config["parameters"].items()}
        self._inputs = [one["name"] for one in config["input"] if one["name"] != "KEY"]
        self._output = config["output"][0]["name"]
        self._student, self._teacher = said["student"], said["teacher"]
        self._share, self._salt, self._mode = float(said["share"]), said["salt"], said["mode"]
        self._teacher_batch = int(said["teacher_batch"])
        self._teacher_inputs = json.loads(said["teacher_inputs"])
        self._columns = json.loads(said["columns"])

    async def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer Triton's requests; one that fails leaves the others alone."""
        return [await self._answer(request) for request in requests]

    async def _answer(self, request: Any) -> Any:
        try:
            return pb_utils.InferenceResponse(await self._tensors(request))
        except RuntimeError as error:
            failure = pb_utils.TritonError(f"rollout: {error}")
            return pb_utils.InferenceResponse(error=failure)

    async def _tensors(self, request: Any) -> list[Any]:
        keys = pb_utils.get_input_tensor_by_name(request, "KEY").as_numpy().reshape(-1)
        inputs = {
            name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in self._inputs
        }
        chosen = np.array([in_student_share(key, self._share, self._salt) for key in keys])
        to_teacher = np.ones_like(chosen) if self._mode != "canary" else ~chosen
        served = np.zeros_like(chosen) if self._mode == "shadow" else chosen
        teacher_inputs = {name: inputs[name] for name in self._teacher_inputs}
        (student, student_ms), (teacher, teacher_ms) = await asyncio.gather(
            self._ask(self._student, inputs, chosen),
            self._ask(self._teacher, teacher_inputs, to_teacher),
        )
        failed = {str(one) for one in (teacher, student) if isinstance(one, str)}
        if (isinstance(student, str) and served.any()) or (
            isinstance(teacher, str) and not served.all()
        ):
            raise RuntimeError("; ".join(sorted(failed)))
        logits = np.full((2, len(keys), len(self._columns)), np.nan, dtype=np.float32)
        if not isinstance(teacher, str):
            logits[0, to_teacher] = teacher[:, self._columns]
        if not isinstance(student, str):
            logits[1, chosen] = student
        which, rows = served.astype(np.int32), np.arange(len(keys))
        times = np.stack(
            [np.where(to_teacher, teacher_ms, _NOT_ASKED), np.where(chosen, student_ms, _NOT_ASKED)]
        )
        return [
            pb_utils.Tensor(self._output, logits[which, rows]),
            pb_utils.Tensor("SERVED_BY", which[:, None]),
            pb_utils.Tensor("OTHER", logits[1 - which, rows]),
            pb_utils.Tensor("MODEL_MS", np.ascontiguousarray(times.T.astype(np.float32))),
        ]

    async def _ask(self, model: str, inputs: Mapping[str, Any], rows: Any) -> tuple[Any, float]:
        """The answers to some rows, or why there are none, and how many milliseconds they took.

        What a copy of a request meets with is no failure of the request. More rows than the
        teacher takes at once are asked of it one batch after the other.
        """
        if not rows.any():
            return np.zeros((0, len(self._columns)), dtype=np.float32), _NOT_ASKED
        places = np.flatnonzero(rows)
        batch = self._teacher_batch if model == self._teacher else len(places)
        answers = []
        started = time.monotonic()
        for start in range(0, len(places), batch):
            request = self._request(model, inputs, places[start : start + batch])
            response = await request.async_exec()
            if response.has_error():
                return f"{model}: {response.error().message()}", _FAILED
            # A copy: the answer's memory is the server's.
            answer = pb_utils.get_output_tensor_by_name(response, self._output).as_numpy()
            answers.append(np.array(answer))
        return np.concatenate(answers), 1e3 * (time.monotonic() - started)

    def _request(self, model: str, inputs: Mapping[str, Any], places: Any) -> Any:
        return pb_utils.InferenceRequest(
            model_name=model,
            requested_output_names=[self._output],
            inputs=[
                pb_utils.Tensor(name, np.ascontiguousarray(array[places]))
                for name, array in inputs.items()
            ],
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        )


def in_student_share(key: bytes, share: float, salt: str) -> bool:
    """Whether the student serves a key: as the client's own split decides it."""
    digest = hashlib.blake2b(salt.encode() + b"\0" + key, digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * _BUCKETS
