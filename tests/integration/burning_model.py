"""A model on the real Triton whose every request burns processor time, and trials on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from samples import sample_variant

from harness.flow.options import RunSettings
from harness.flow.serving import Site
from harness.flow.trial import TrialRunner
from harness.load.generators.pool import LoadGenerators
from harness.load.requests.payloads import write_payloads
from harness.load.transports.address import parse_target
from harness.runs.folder import RunFolder
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.study.objective import parse_objective
from harness.telemetry.prometheus.client import Prometheus
from harness.types import (
    ModelVariant,
    ServingConfig,
    TensorSpec,
    Trial,
    TrialResult,
    WireProtocol,
    Workload,
)

MODEL = "burner"
ROWS = 8
"""Different requests that there are."""
_SOURCE = """
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            numbers = pb.get_input_tensor_by_name(request, "NUMBERS").as_numpy()
            until_s = time.thread_time() + {burn_s}
            while time.thread_time() < until_s:
                pass
            answer = {factor} * numbers.sum(axis=1, keepdims=True)
            tensor = pb.Tensor("SUM", answer.astype(np.float32))
            responses.append(pb.InferenceResponse([tensor]))
        return responses
"""
_CONFIG: dict[str, Any] = {
    "name": MODEL,
    "backend": "python",
    "max_batch_size": 8,
    "input": [{"name": "NUMBERS", "data_type": "TYPE_FP32", "dims": [4]}],
    "output": [{"name": "SUM", "data_type": "TYPE_FP32", "dims": [1]}],
    "instance_group": [{"kind": "KIND_CPU", "count": 1}],
}


@dataclasses.dataclass
class BurningServer:
    """The running server, with what trials on it need."""

    server: EmbeddedTriton
    client: TritonClient
    runner: TrialRunner
    folder: RunFolder
    payloads: Path

    def watched_by(self, prometheus: Prometheus) -> BurningServer:
        """The same, with a Prometheus asked for the server's side of the trials."""
        settings = RunSettings(prometheus=prometheus)
        runner = TrialRunner(
            Site(self.server, self.client, None),
            self.runner._generators,
            self.folder,
            variants={MODEL: _variant()},
            payloads={MODEL: self.payloads},
            settings=settings,
        )
        return dataclasses.replace(self, runner=runner)

    def load(self, **changes: Any) -> None:
        """Load the model, with other parts of its configuration."""
        self.client.load(MODEL, json.dumps(_CONFIG | changes))

    def measure(self, slo: str = "p95 < 10 s", **changes: Any) -> TrialResult:
        """One trial of a closed loop."""
        plain = Workload(WireProtocol.HTTP, 1, 4, 2.0, 0.5, 3)
        trial = Trial(MODEL, "f", ServingConfig(), dataclasses.replace(plain, **changes))
        return self.runner.measure(trial, parse_objective(slo))


def write_version(repository: Path, version: int, *, burn_s: float, factor: float = 1.0) -> None:
    """A version of the model: `SUM` is so many times the sum of a row's numbers."""
    folder = repository / MODEL / str(version)
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(_SOURCE.format(burn_s=burn_s, factor=factor))


@contextmanager
def burning_server(
    environment: ServerEnvironment,
    folder: Path,
    *,
    burn_s: float,
    **server: Any,
) -> Iterator[BurningServer]:
    """Triton with the model in its repository, not loaded yet, and load generators."""
    repository = folder / "repository"
    write_version(repository, 1, burn_s=burn_s)
    numbers = np.arange(4 * ROWS, dtype=np.float32).reshape(ROWS, 4)
    write_payloads(folder / "payloads.npz", [{"NUMBERS": numbers}])
    with (
        EmbeddedTriton(environment, repository, log_file=folder / "log", **server) as triton,
        TritonClient(triton.endpoint) as client,
        LoadGenerators(
            http=parse_target(triton.endpoint.http),
            grpc=parse_target(triton.endpoint.grpc),
            workers=1,
            log_dir=folder / "logs",
        ) as generators,
        RunFolder.create(folder / "run", {}) as run,
    ):
        runner = TrialRunner(
            Site(triton, client, None),
            generators,
            run,
            variants={MODEL: _variant()},
            payloads={MODEL: folder / "payloads.npz"},
            settings=RunSettings(),
        )
        yield BurningServer(triton, client, runner, run, folder / "payloads.npz")


def _variant() -> ModelVariant:
    return dataclasses.replace(
        sample_variant(MODEL),
        inputs=(TensorSpec("NUMBERS", "FP32", (4,)),),
        outputs=(TensorSpec("SUM", "FP32", (1,)),),
    )
