"""Servers that are not ours, over both protocols: what they are asked, and may leave out."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from http1_server import make_certificate
from kserve_server import kserve_server
from tritonclient.grpc import service_pb2, service_pb2_grpc

from harness.errors import ServerError, UsageError
from harness.load.transports.address import parse_target
from harness.serving.external.grpc import GrpcServer
from harness.serving.external.http import HttpServer
from harness.serving.external.server import check_alive, describe, serving_of, states_of
from harness.types import Accelerator, ServingConfig, TensorSpec

SESAME = (("Authorization", "Bearer sesame"),)


class Doubling(service_pb2_grpc.GRPCInferenceServiceServicer):
    """What the protocol asks of every server, for one model, and for those who know the word."""

    def ServerLive(self, request, context):  # noqa: N802
        if ("authorization", "Bearer sesame") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request, context):  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=request.name == "doubled")

    def ModelMetadata(self, request, context):  # noqa: N802
        answer = service_pb2.ModelMetadataResponse(name="doubled")
        answer.inputs.add(name="numbers", datatype="FP32", shape=[-1, -1])
        answer.outputs.add(name="twice", datatype="FP32", shape=[-1, -1])
        return answer


@contextmanager
def grpc_server(folder):
    certificate, _ = make_certificate(folder)
    key = (folder / "key.pem").read_bytes()
    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Doubling(), server)
    shown = grpc.ssl_server_credentials([(key, certificate.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", shown)
    server.start()
    try:
        yield port, certificate
    finally:
        server.stop(grace=None).wait()


@pytest.mark.parametrize("verified", [True, False])
def test_grpc_over_tls_with_metadata(tmp_path, verified):
    with grpc_server(tmp_path) as (port, certificate):
        trust = {"ca_file": certificate} if verified else {"verify": False}
        server = GrpcServer(parse_target(f"grpcs://127.0.0.1:{port}", headers=SESAME, **trust))
        assert server.not_live() == ""
        assert server.model_ready("doubled")
        assert not server.model_ready("other")
        assert server.models() is None
        model = describe(server, "doubled")
        assert model.inputs == (TensorSpec("numbers", "FP32", (-1, -1)),)
        assert model.serving.max_batch_size == 0
        with pytest.raises(ServerError):
            server.statistics("doubled")
        server.close()
        stranger = GrpcServer(parse_target(f"grpcs://127.0.0.1:{port}", ca_file=certificate))
        with pytest.raises(ServerError, match=r"refuses this client: .*who are you.*no --header"):
            stranger.not_live()
        stranger.close()
        unknown = GrpcServer(parse_target(f"grpcs://127.0.0.1:{port}"))
        with pytest.raises(ServerError, match="no answer from 127"):
            unknown.not_live()
        unknown.close()


def test_a_plain_port_shows_no_certificate():
    with kserve_server() as port, pytest.raises(UsageError, match="shows no certificate"):
        GrpcServer(parse_target(f"grpcs://127.0.0.1:{port}", verify=False))


def test_http_without_triton_s_extensions():
    with kserve_server() as port:
        server = HttpServer(parse_target(f"http://127.0.0.1:{port}"))
        assert server.not_live() == ""
        assert server.models() is None
        assert server.config("doubled") is None
        assert not server.model_ready("other")
        with pytest.raises(ServerError, match="no statistics"):
            server.statistics("doubled")
        numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
        (twice,) = server.infer("doubled", {"numbers": numbers}).values()
        np.testing.assert_array_equal(twice, 2 * numbers)
        with pytest.raises(ServerError, match="HTTP 404: not here"):
            server.infer("other", {"numbers": numbers})
        server.check()
    with pytest.raises(ServerError, match="is gone"):
        server.check()


def test_a_host_that_cannot_be_asked_is_not_said_to_be_gone():
    check_alive(parse_target("http://nowhere.invalid:80"))


def test_what_a_configuration_says_of_serving():
    config = {
        "max_batch_size": 8,
        "instance_group": [{"kind": "KIND_GPU", "count": 2}, {"kind": "KIND_GPU"}],
        "dynamic_batching": {"max_queue_delay_microseconds": "1500"},
        "parameters": {"intra_op_thread_count": {"string_value": "4"}},
    }
    assert serving_of(config) == ServingConfig(8, 1500, 3, "gpu", 4)
    named = {"gpu_execution_accelerator": [{"name": "auto"}, {"name": "tensorrt"}]}
    accelerated = config | {"optimization": {"execution_accelerators": named}}
    assert serving_of(accelerated).accelerator is Accelerator.TENSORRT
    assert serving_of({}) == ServingConfig(0, 0, 0, "cpu", 0)


def test_instances_on_gpus_are_counted_on_each():
    groups = [
        {"kind": "KIND_GPU", "count": 1, "gpus": [0]},
        {"kind": "KIND_GPU", "count": 2, "gpus": [1, 2]},
        {"kind": "KIND_GPU", "count": 9, "gpus": [0], "passive": True},
        {"kind": "KIND_CPU", "count": 3},
    ]
    assert serving_of({"instance_group": groups}).instance_count == 1 + 2 * 2 + 3


def test_a_model_is_ready_where_one_of_its_versions_is():
    index = [("m", "READY"), ("m", "UNAVAILABLE"), ("n", "UNAVAILABLE"), ("n", "LOADING")]
    assert states_of(index) == {"m": "READY", "n": "LOADING"}
