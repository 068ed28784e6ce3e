"""Triton's `onnxruntime` backend, in Python: serves `model.onnx` where the C++ backend is missing.

A *python-based backend*: Triton starts its Python stub with this file for every model whose
configuration says `backend: "onnxruntime"`, one process for each instance. NVIDIA's containers have
a C++ backend of that name; both serve the same repository. This file runs in the server's
environment: it imports nothing of the harness.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from ort_session import (  # type: ignore[import-not-found]  # lies beside this file
    ConfigurationError,
    check_tensors,
    model_file,
    providers,
    run_options,
    session_options,
    unhonoured,
)
from request_batches import (  # type: ignore[import-not-found]  # lies beside this file
    Arrays,
    Joiner,
    groups,
    split,
)

_PARENT_CHECK_INTERVAL_S = 0.5
_GRACE_S = 1.0


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the model.

        Args:
            args: Triton's description of the instance; `model_repository` is the model's folder.

        Raises:
            TritonModelException: the configuration, the model and this machine do not fit.
        """
        _end_with_server()
        config = json.loads(args["model_config"])
        self._batching = config.get("max_batch_size", 0) > 0
        self._output_names = [output["name"] for output in config["output"]]
        self._run_options = run_options(config)
        self._joiner = Joiner(config.get("max_batch_size", 0))
        try:
            self._session = _open_session(config, args)
        except (ConfigurationError, RuntimeError, ValueError) as error:
            # ONNX Runtime's own exceptions (no such file, invalid graph, ...) are RuntimeErrors.
            raise pb_utils.TritonModelException(str(error)) from error
        # Instances are named <model>_<group>_<number>: the first one speaks for all.
        if args["model_instance_name"].endswith("_0_0"):
            _report_unhonoured(config, args)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer Triton's requests; one that fails leaves the others alone."""
        inputs = [{t.name(): t.as_numpy() for t in request.inputs()} for request in requests]
        if len(requests) == 1:
            return self._run([inputs[0]])
        responses: list[Any] = [None] * len(requests)
        for positions in groups(inputs, batching=self._batching):
            answers = self._run([inputs[position] for position in positions])
            for position, answer in zip(positions, answers, strict=True):
                responses[position] = answer
        return responses

    def _run(self, requests: Sequence[Arrays]) -> list[Any]:
        try:
            outputs = self._session.run(
                self._output_names, self._joiner.join(requests), self._run_options
            )
            return self._responses(outputs, requests)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client is told it)
            if len(requests) == 1:
                failure = pb_utils.TritonError(f"onnxruntime: {error}")
                return [pb_utils.InferenceResponse(error=failure)]
        # One bad request (a token out of range) must not fail those that shared its batch.
        return [self._run([request])[0] for request in requests]

    def _responses(self, outputs: Sequence[Any], requests: Sequence[Arrays]) -> list[Any]:
        if self._batching:
            counts = [len(next(iter(inputs.values()))) for inputs in requests]
            shares = list(zip(*(split(output, counts) for output in outputs), strict=True))
        else:
            shares = [tuple(outputs)]
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(n, a) for n, a in zip(self._output_names, share, strict=True)]
            )
            for share in shares
        ]


def _open_session(config: Mapping[str, Any], args: Mapping[str, str]) -> ort.InferenceSession:
    path = model_file(config, args["model_repository"], args["model_version"])
    device = int(args["model_instance_device_id"])
    session = ort.InferenceSession(
        path,
        session_options(config),
        providers=providers(
            args["model_instance_kind"], device, ort.get_available_providers(), config
        ),
    )
    check_tensors(config, session, path)
    return session


def _report_unhonoured(config: Mapping[str, Any], args: Mapping[str, str]) -> None:
    ignored = list(unhonoured(config, args["model_instance_kind"]))
    if ignored:
        pb_utils.Logger.log_warn(
            f"model '{args['model_name']}': the embedded onnxruntime backend runs on plain ONNX "
            f"Runtime {ort.__version__} and ignores: {'; '.join(ignored)}"
        )


def _end_with_server() -> None:
    """End this process soon after the server, however that ended.

    The stub watches its parent by signal 0, which a dead server that nobody has waited for still
    answers; the parent's number changes in every case.
    """
    server = os.getppid()

    def watch() -> None:
        while os.getppid() == server:
            time.sleep(_PARENT_CHECK_INTERVAL_S)
        time.sleep(_GRACE_S)  # the stub's own, orderly end comes first
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-server", daemon=True).start()
