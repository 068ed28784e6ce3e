"""Load on the real server: its own counters are the second witness."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from endpoint_models import language_model
from load_rig import WORKLOAD, make_payloads, merged, nothing

from harness.load.generators import LoadGenerators, LoadJob
from harness.serving.embedded import EmbeddedTriton
from harness.serving.endpoint import Endpoint, TritonClient
from harness.serving.environment import ServerEnvironment
from harness.types import LoadResult, ModelVariant, TensorSpec, WireProtocol, Workload

pytestmark = pytest.mark.triton
PROTOCOLS = list(WireProtocol)


class Drive:
    """Generators on one endpoint, and the payloads they send."""

    def __init__(self, endpoint: Endpoint, folder: Path) -> None:
        self.generators = LoadGenerators(
            http=endpoint.http, grpc=endpoint.grpc, processes=2, log_dir=folder / "logs"
        )
        self._payloads = make_payloads(folder)

    def run(self, model: str, outputs: Sequence[TensorSpec], **changes: object) -> LoadResult:
        start = changes.pop("on_window_start", nothing)
        workload = replace(Workload(**WORKLOAD), **changes)
        job = LoadJob(model, self._payloads, tuple(outputs), workload)
        return self.generators.run(job, on_window_start=start, on_window_end=nothing)


@pytest.fixture(scope="module")
def drive(
    embedded_triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Drive]:
    made = Drive(embedded_triton.endpoint, tmp_path_factory.mktemp("drive"))
    with made.generators:
        yield made


@pytest.fixture(scope="module")
def client(embedded_triton: EmbeddedTriton) -> Iterator[TritonClient]:
    with TritonClient(embedded_triton.endpoint) as made:
        made.load("tiny")
        yield made


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("client_batch_size", "concurrency"), [(1, 1), (4, 3), (8, 16)])
def test_triton_counts_what_was_sent(
    drive: Drive,
    client: TritonClient,
    tiny_variant: ModelVariant,
    protocol: WireProtocol,
    client_batch_size: int,
    concurrency: int,
) -> None:
    before = client.statistics("tiny")
    result = drive.run(
        "tiny",
        tiny_variant.outputs,
        protocol=protocol,
        client_batch_size=client_batch_size,
        concurrency=concurrency,
        warmup_s=0.0,
    )
    after = client.statistics("tiny")
    succeeded = (
        after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
    )
    assert result.failures == {}
    assert merged(result).get_total_count() == succeeded > 0
    assert after["inference_count"] - before["inference_count"] == succeeded * client_batch_size
    assert 0 <= succeeded - result.completed <= concurrency


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_promise_is_found_out(
    drive: Drive, client: TritonClient, protocol: WireProtocol
) -> None:
    promised = [TensorSpec("logits", "FP32", (4,))]
    result = drive.run("tiny", promised, protocol=protocol)
    assert set(result.failures) == {"wrong_shape"}
    assert merged(result).get_total_count() == 0


@pytest.mark.parametrize(
    ("protocol", "kind"), [("http", "http_400"), ("grpc", "grpc_INVALID_ARGUMENT")]
)
def test_a_batch_that_the_model_refuses_fails_in_tritons_words(
    drive: Drive, client: TritonClient, tiny_variant: ModelVariant, protocol: str, kind: str
) -> None:
    result = drive.run(
        "tiny", tiny_variant.outputs, protocol=WireProtocol(protocol), client_batch_size=64
    )
    assert set(result.failures) == {kind}
    assert "batch-size must be <=" in result.first_failure


@pytest.mark.parametrize(("protocol", "kind"), [("http", "http_404"), ("grpc", "grpc_NOT_FOUND")])
def test_a_model_that_is_not_there_fails(drive: Drive, protocol: str, kind: str) -> None:
    result = drive.run("nobody", [], protocol=WireProtocol(protocol))
    assert set(result.failures) == {kind}
    assert "nobody" in result.first_failure


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scores_of_sequences_are_as_long_as_the_sequences(
    drive: Drive,
    client: TritonClient,
    tiny_repository: Path,
    protocol: WireProtocol,
) -> None:
    if not (tiny_repository / "speaker").exists():
        language_model(tiny_repository)
    client.load("speaker")
    outputs = [
        TensorSpec("token_logprobs", "FP32", (-1,)),
        TensorSpec("greedy_token_ids", "INT64", (-1,)),
    ]
    result = drive.run("speaker", outputs, protocol=protocol, client_batch_size=4)
    assert result.failures == {}
    assert result.completed > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_killed_in_the_window_ends_as_failures(
    server_environment: ServerEnvironment,
    tiny_variant: ModelVariant,
    tmp_path: Path,
    protocol: WireProtocol,
) -> None:
    with EmbeddedTriton(
        server_environment, tiny_variant.path.parent, log_file=tmp_path / "triton.log"
    ) as server:
        with TritonClient(server.endpoint) as client:
            client.load("tiny")
        drive = Drive(server.endpoint, tmp_path)
        with drive.generators:
            result = drive.run(
                "tiny",
                tiny_variant.outputs,
                protocol=protocol,
                on_window_start=lambda: os.kill(server.pid, signal.SIGKILL),
            )
    assert set(result.failures) <= {"connection", "grpc_UNAVAILABLE"}
    assert sum(result.failures.values()) > 4  # it went on trying
