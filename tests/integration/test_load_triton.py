"""Load on the real server: its own counters are the second witness, grpcio the third."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint_models import language_model
from load_rig import (
    ENOUGH,
    OPEN,
    Watcher,
    count_ok,
    enough,
    failures_in,
    make_payloads,
    make_workload,
    outcomes,
)
from numpy.typing import NDArray
from tiny_model import counters_at_rest

from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.requests.answers import make_known_answers, write_known_answers
from harness.load.requests.payloads import draw_payloads, read_payloads
from harness.load.transports.address import parse_target
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import Endpoint, TritonClient
from harness.types import (
    GrpcImplementation,
    LoadResult,
    ModelVariant,
    TensorSpec,
    TimeSlice,
    WireProtocol,
)

pytestmark = pytest.mark.triton
REFUSED = {WireProtocol.HTTP: "http_400", WireProtocol.GRPC: "grpc_INVALID_ARGUMENT"}
UNKNOWN = {WireProtocol.HTTP: "http_404", WireProtocol.GRPC: "grpc_NOT_FOUND"}


@dataclass
class Drive:
    """Generators on one endpoint, how they speak to it, and the payloads they send."""

    generators: LoadGenerators
    protocol: WireProtocol
    payloads: Path
    reported: list[TimeSlice] = field(default_factory=list)
    """All of the latest load: a process that hears late of a window's end sends beyond it."""

    def run(
        self,
        model: str,
        outputs: Sequence[TensorSpec],
        watcher: Watcher | None = None,
        *,
        known_answers: Path | None = None,
        **changes: Any,
    ) -> LoadResult:
        """Without a watcher the window lasts until enough came of it, however busy the machine."""
        watcher = watcher or Watcher(decided=enough())
        workload = make_workload(protocol=self.protocol, **{**watcher.times_s, **changes})
        job = LoadJob(model, self.payloads, tuple(outputs), workload, known_answers)
        self.reported.clear()
        return self.generators.run(
            job, watcher, listen=lambda _, report: self.reported.extend(report.slices)
        )


def make_generators(endpoint: Endpoint, folder: Path, wire: str, workers: int) -> LoadGenerators:
    return LoadGenerators(
        http=parse_target(endpoint.http),
        grpc=parse_target(endpoint.grpc),
        workers=workers,
        log_dir=folder / "logs",
        implementation=GrpcImplementation("grpcio" if wire == "grpcio" else "native"),
    )


@pytest.fixture(scope="module")
def generators_for(
    embedded_triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], LoadGenerators]]:
    """Two workers for the harness's own protocols, one for grpcio; started when asked for."""
    folder = tmp_path_factory.mktemp("drive")
    native = make_generators(embedded_triton.endpoint, folder, "native", 2)
    grpcio = make_generators(embedded_triton.endpoint, folder / "grpcio", "grpcio", 1)
    with native, grpcio:
        yield lambda wire: grpcio if wire == "grpcio" else native


@pytest.fixture(params=["http", "grpc", "grpcio"])
def drive(
    request: pytest.FixtureRequest,
    generators_for: Callable[[str], LoadGenerators],
    tmp_path: Path,
) -> Drive:
    protocol = WireProtocol.HTTP if request.param == "http" else WireProtocol.GRPC
    return Drive(generators_for(request.param), protocol, make_payloads(tmp_path))


@pytest.fixture(scope="module")
def client(embedded_triton: EmbeddedTriton) -> Iterator[TritonClient]:
    with TritonClient(embedded_triton.endpoint) as made:
        made.load("tiny")
        yield made


@dataclass(frozen=True)
class Counted:
    """What Triton counted between two looks at its statistics."""

    requests: int
    rows: int


def counted(client: TritonClient, load: Callable[[], LoadResult]) -> tuple[LoadResult, Counted]:
    before = counters_at_rest(client)
    result = load()
    after = counters_at_rest(client)
    requests = [one["inference_stats"]["success"]["count"] for one in (before, after)]
    rows = [one["inference_count"] for one in (before, after)]
    return result, Counted(requests[1] - requests[0], rows[1] - rows[0])


@pytest.mark.parametrize(("client_batch_size", "concurrency"), [(1, 1), (8, 16)])
def test_triton_counts_what_was_sent(
    drive: Drive,
    client: TritonClient,
    tiny_variant: ModelVariant,
    client_batch_size: int,
    concurrency: int,
) -> None:
    result, triton = counted(
        client,
        lambda: drive.run(
            "tiny",
            tiny_variant.outputs,
            client_batch_size=client_batch_size,
            concurrency=concurrency,
        ),
    )
    assert outcomes(result.window) >= ENOUGH
    assert not failures_in(drive.reported)
    assert count_ok(drive.reported) == triton.requests > concurrency
    assert triton.rows == triton.requests * client_batch_size


def test_triton_counts_what_an_open_loop_sent(
    drive: Drive, client: TritonClient, tiny_variant: ModelVariant
) -> None:
    wide = {**OPEN, "concurrency": 400}
    result, triton = counted(client, lambda: drive.run("tiny", tiny_variant.outputs, **wide))
    assert outcomes(result.window) >= ENOUGH
    assert not failures_in(drive.reported)
    assert count_ok(drive.reported) == triton.requests


def test_answers_are_those_that_nvidias_client_gets(
    drive: Drive, client: TritonClient, tiny_variant: ModelVariant, tmp_path: Path
) -> None:
    """Asked row by row beforehand; under load the rows come back in batches of many requests."""
    known = known_answers(client, drive.payloads, tmp_path, scale=1.0)
    result = drive.run("tiny", tiny_variant.outputs, known_answers=known, concurrency=8)
    assert (dict(failures_in(result.slices)), result.first_failure) == ({}, "")
    assert count_ok(result.window) > 0


def test_answers_that_are_not_those_are_wrong(
    drive: Drive, client: TritonClient, tiny_variant: ModelVariant, tmp_path: Path
) -> None:
    known = known_answers(client, drive.payloads, tmp_path, scale=1.5)
    result = drive.run("tiny", tiny_variant.outputs, known_answers=known, concurrency=8)
    assert set(failures_in(result.slices)) == {"wrong_answer"}
    assert count_ok(result.slices) == 0


_answers: list[list[dict[str, NDArray[np.generic]]]] = []
"""That `known_answers` has asked for: of the same payloads each time."""


def known_answers(client: TritonClient, payloads: Path, folder: Path, *, scale: float) -> Path:
    """What NVIDIA's client is answered to every request of the pool, by a factor."""
    if not _answers:
        drawn = draw_payloads(read_payloads(payloads), batch_size=2, seed=5)
        # Row 0 is answered with zeros: nothing is a factor away from that.
        asked = make_known_answers(drawn, lambda inputs: client.infer("tiny", inputs))
        _answers.append([dict(one) for one in asked])
    scaled = [{name: array * scale for name, array in one.items()} for one in _answers[0]]
    path = folder / "known.npz"
    write_known_answers(path, scaled, 0.001)
    return path


def test_a_wrong_promise_is_found_out(drive: Drive, client: TritonClient) -> None:
    promised = [TensorSpec("logits", "FP32", (4,))]
    result = drive.run("tiny", promised)
    assert set(result.failures) == {"wrong_shape"}
    assert count_ok(result.slices) == 0


def test_a_batch_that_the_model_refuses_fails_in_tritons_words(
    drive: Drive, client: TritonClient, tiny_variant: ModelVariant
) -> None:
    result = drive.run("tiny", tiny_variant.outputs, client_batch_size=64)
    assert set(result.failures) == {REFUSED[drive.protocol]}
    assert "batch-size must be <=" in result.first_failure


def test_a_model_that_is_not_there_fails(drive: Drive) -> None:
    result = drive.run("nobody", [])
    assert set(result.failures) == {UNKNOWN[drive.protocol]}
    assert "nobody" in result.first_failure


def test_scores_of_sequences_are_as_long_as_the_sequences(
    drive: Drive, client: TritonClient, tiny_repository: Path
) -> None:
    if not (tiny_repository / "speaker").exists():
        language_model(tiny_repository)
    client.load("speaker")
    outputs = [
        TensorSpec("token_logprobs", "FP32", (-1,)),
        TensorSpec("greedy_token_ids", "INT64", (-1,)),
    ]
    result = drive.run("speaker", outputs, client_batch_size=4)
    assert result.failures == {}
    assert result.completed > 0


def test_a_server_killed_in_the_window_ends_as_failures(
    server_environment: ServerEnvironment,
    drive: Drive,
    tiny_variant: ModelVariant,
    tmp_path: Path,
) -> None:
    repository, targets = tiny_variant.path.parent, drive.generators._targets
    before = dict(targets)
    with EmbeddedTriton(server_environment, repository, log_file=tmp_path / "triton.log") as server:
        with TritonClient(server.endpoint) as client:
            client.load("tiny")
        endpoint = server.endpoint
        targets[WireProtocol.HTTP] = parse_target(endpoint.http)
        targets[WireProtocol.GRPC] = parse_target(endpoint.grpc)
        try:
            result = drive.run(
                "tiny",
                tiny_variant.outputs,
                Watcher(
                    decided=lambda window: failures_in(window).total() > 4,  # it went on trying
                    on_window_start=lambda: os.kill(server.pid, signal.SIGKILL),
                ),
            )
        finally:
            targets.update(before)
    assert set(result.failures) <= {"connection", "grpc_UNAVAILABLE"}
    assert sum(result.failures.values()) > 4
