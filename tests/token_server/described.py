"""What the server of tokens says of its one model, `m`: a decoupled one with vLLM's tensors."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2

from token_server.scripts import ECHO

MODEL = ECHO
OWNED = "owner/m"
"""The same, under a name of the kind that the Hugging Face hub gives; OpenAI's interface alone."""
_INPUTS = [
    ("text_input", "BYTES", [1]),
    ("stream", "BOOL", [1]),
    ("sampling_parameters", "BYTES", [1]),
    ("exclude_input_in_output", "BOOL", [1]),
    ("return_finish_reason", "BOOL", [1]),
    ("return_num_input_tokens", "BOOL", [1]),
    ("return_num_output_tokens", "BOOL", [1]),
]
_OUTPUTS = [
    ("text_output", "BYTES", [-1]),
    ("finish_reason", "BYTES", [1]),
    ("num_input_tokens", "UINT32", [1]),
    ("num_output_tokens", "UINT32", [1]),
]


def metadata() -> Any:
    """Inputs and outputs."""
    answer = service_pb2.ModelMetadataResponse(name=MODEL, versions=["1"], platform="python")
    for tensors, described in ((_INPUTS, answer.inputs), (_OUTPUTS, answer.outputs)):
        for name, datatype, shape in tensors:
            described.add(name=name, datatype=datatype, shape=shape)
    return answer


def configuration() -> Any:
    """A model that may answer a request several times."""
    config = model_config_pb2.ModelConfig(name=MODEL, backend="python", max_batch_size=0)
    config.model_transaction_policy.decoupled = True
    for tensors, described in ((_INPUTS, config.input), (_OUTPUTS, config.output)):
        for name, datatype, shape in tensors:
            kind = model_config_pb2.DataType.Value(
                f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}"
            )
            described.add(name=name, data_type=kind, dims=shape)
    return config


def unary(method: str) -> bytes | None:
    """The answer to a unary call, both serialised; None: there is no such method."""
    answers = {
        "ServerLive": lambda: service_pb2.ServerLiveResponse(live=True),
        "ServerReady": lambda: service_pb2.ServerReadyResponse(ready=True),
        "ModelReady": lambda: service_pb2.ModelReadyResponse(ready=True),
        "ServerMetadata": lambda: service_pb2.ServerMetadataResponse(name="fake", version="1"),
        "ModelMetadata": metadata,
        "ModelConfig": lambda: service_pb2.ModelConfigResponse(config=configuration()),
    }
    if method not in answers:
        return None
    serialised: bytes = answers[method]().SerializeToString()
    return serialised


def described(path: str) -> tuple[int, bytes]:
    """Status and body of the answer to what asks about the server over HTTP."""
    if path in {"/health", "/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}/ready"}:
        return 200, b""
    answers: dict[str, Any] = {
        "/v1/models": {
            "object": "list",
            "data": [
                {"id": one, "object": "model", "created": 0, "owned_by": "tests"}
                for one in (MODEL, OWNED)
            ],
        },
        "/v2": {"name": "fake", "version": "1", "extensions": ["binary_tensor_data"]},
        "/v2/repository/index": [{"name": MODEL, "version": "1", "state": "READY"}],
        f"/v2/models/{MODEL}": _as_json(metadata()),
        f"/v2/models/{MODEL}/config": _as_json(configuration()),
    }
    if path not in answers:
        return 404, b'{"error":"Not Found"}'
    return 200, json.dumps(answers[path]).encode()


def _as_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)
