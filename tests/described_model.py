"""What the fake server says of its one described model: what is asked of a server before a load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tritonclient.grpc import service_pb2, service_pb2_grpc

from harness.types import TensorSpec

MODEL = "m"
MOST_ROWS = 64
INPUTS = (TensorSpec("input_ids", "INT64", (-1,)), TensorSpec("attention_mask", "INT64", (-1,)))


def described_over_http(path: str, outputs: Sequence[TensorSpec]) -> tuple[int, bytes]:
    """Status and body of the answer to a GET, or to what asks for the repository's index."""
    answers: dict[str, Any] = {
        "/v2/health/live": {},
        "/v2": {"name": "fake", "version": "1", "extensions": ["binary_tensor_data"]},
        "/v2/repository/index": [{"name": MODEL, "version": "1", "state": "READY"}],
        f"/v2/models/{MODEL}/ready": {},
        f"/v2/models/{MODEL}": {
            "name": MODEL,
            "inputs": [_as_json(one) for one in INPUTS],
            "outputs": [_as_json(one) for one in outputs],
        },
        f"/v2/models/{MODEL}/config": {"name": MODEL, "max_batch_size": MOST_ROWS},
    }
    if path not in answers:
        return 400, b'{"error":"Request for unknown model"}'
    return 200, json.dumps(answers[path]).encode()


class DescribingServicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """The same over gRPC; a subclass says what the outputs are."""

    outputs: Sequence[TensorSpec] = ()

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802  (the protocol's)
        return service_pb2.ServerLiveResponse(live=True)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802  (the protocol's)
        return service_pb2.ModelReadyResponse(ready=request.name == MODEL)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.ModelMetadataResponse(name=request.name)
        answer.inputs.extend(_as_message(one) for one in INPUTS)
        answer.outputs.extend(_as_message(one) for one in self.outputs)
        return answer

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.ModelConfigResponse()
        answer.config.name, answer.config.max_batch_size = request.name, MOST_ROWS
        return answer

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.RepositoryIndexResponse()
        answer.models.add(name=MODEL, version="1", state="READY")
        return answer


def _as_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": [-1, *spec.shape]}


def _as_message(spec: TensorSpec) -> Any:
    return service_pb2.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=[-1, *spec.shape]
    )
