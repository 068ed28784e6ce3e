"""gRPC requests and answers, over a real server."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.grpc as tritonclient
from fake_server import Behaviour, FakeServer, Fault
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request

from harness.load.transports.contract import RequestFailure
from harness.load.transports.grpc import GrpcTransport

IDS = np.arange(8, dtype=np.int64).reshape(2, 4)


def test_a_request_is_what_tritonclient_would_send() -> None:
    ours = service_pb2.ModelInferRequest.FromString(
        GrpcTransport("localhost:8001", timeout_s=1).encode("bert", {"input_ids": IDS})
    )
    tensor = tritonclient.InferInput("input_ids", [2, 4], "INT64")
    tensor.set_data_from_numpy(IDS)
    theirs = _get_inference_request(
        model_name="bert", inputs=[tensor], model_version="", request_id="", outputs=None,
        sequence_id=0, sequence_start=False, sequence_end=False, priority=0, timeout=None,
        parameters=None,
    )  # fmt: skip
    assert ours == theirs


def test_answers_and_refusals() -> None:
    with FakeServer() as server:
        transport = GrpcTransport(f"grpc://{server.grpc}", timeout_s=5)
        request = transport.encode("m", {"input_ids": IDS})
        transport.connect()
        (tensor,) = transport.send(request)
        assert (tensor.name, tensor.datatype, tensor.shape) == ("logits", "FP32", (2, 4))
        assert tensor.data == np.ones((2, 4), "<f4").tobytes()
        server.behaviour = Behaviour(fault=Fault.UNAVAILABLE)
        with pytest.raises(RequestFailure, match="overloaded") as caught:
            transport.send(request)
        assert caught.value.kind == "grpc_UNAVAILABLE"
        server.behaviour = Behaviour()
        assert transport.send(request)
        transport.close()
        transport.close()


def test_a_server_that_is_not_there() -> None:
    transport = GrpcTransport("127.0.0.1:1", timeout_s=5)
    with pytest.raises(RequestFailure) as caught:
        transport.connect()
    assert caught.value.kind == "grpc_UNAVAILABLE"
    transport.close()


def test_no_answer_in_time() -> None:
    with FakeServer(Behaviour(fault=Fault.STALL)) as server:
        transport = GrpcTransport(server.grpc, timeout_s=0.2)
        with pytest.raises(RequestFailure, match=r"no answer from .* in 0\.2 s") as caught:
            transport.send(transport.encode("m", {"input_ids": IDS}))
        assert caught.value.kind == "timeout"
        transport.close()
