"""Servers behind gateways, restrictions, and those that answer inference alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kserve_server import kserve_server
from tiny_model import TINY_MODEL, make_tiny_variant

from harness.cli.main import run_command
from harness.errors import EXIT_ENVIRONMENT
from harness.load.payloads import write_payloads
from harness.serving.embedded import EmbeddedTriton, Ports
from harness.serving.endpoint import TritonClient
from harness.serving.environment import ServerEnvironment

MEASURED = {0, EXIT_ENVIRONMENT}
"""Measured; a busy machine makes a trial invalid, and what was counted must be right even so."""
SHORT = ["--concurrency", 2, "--duration", 0.5, "--warmup", 0.1, "--json"]


def load(*arguments: object) -> int:
    return run_command(["load", *map(str, arguments)])


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.npz"
    np.savez(path, numbers=np.arange(40, dtype=np.float32).reshape(8, 5))
    return path


def measured(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["requests"] > 0, result["reason"]
    assert result["failures"] == 0
    return result, printed.err


@pytest.mark.parametrize("binary", [True, False])
def test_a_path_prefix_is_part_of_every_request(numbers, binary, capsys):
    with kserve_server(prefix="/gate/way", binary=binary) as port:
        url = f"http://127.0.0.1:{port}/gate/way/"
        assert load("--url", url, "--model", "doubled", "--payloads", numbers, *SHORT) in MEASURED
        measured(capsys)
        wrong = f"http://127.0.0.1:{port}/way"
        assert load("--url", wrong, "--model", "doubled", "--payloads", numbers, *SHORT) == 2
    said = capsys.readouterr().err
    assert "it knows no /way/v2/health/live: is it a KServe v2 server?" in said
    assert "the first request to 'doubled' failed: http_404" in said


def test_grpc_has_no_path(numbers, capsys):
    url = "grpc://127.0.0.1:8001/gate"
    assert load("--url", url, "--model", "doubled", "--payloads", numbers, *SHORT) == 2
    assert "has a path, and gRPC knows none" in capsys.readouterr().err


@pytest.mark.parametrize("binary", [True, False])
def test_a_server_that_answers_inference_alone_is_driven(numbers, binary, capsys):
    with kserve_server(bare=True, binary=binary) as port:
        where = ["--url", f"http://127.0.0.1:{port}", "--payloads", numbers]
        assert load(*where, "--model", "doubled", *SHORT) in MEASURED
        _, said = measured(capsys)
        assert ("bodies are JSON" in said) is not binary
        assert "model configurations, statistics" in said
        assert load(*where, "--model", "nobody", *SHORT) == 2
    assert "the first request to 'nobody' failed: http_404" in capsys.readouterr().err


def test_restricted_endpoints_cost_their_figures_and_the_header_is_named(numbers, capsys):
    with kserve_server(restricted="admin-key") as port:
        where = ["--url", f"http://127.0.0.1:{port}", "--payloads", numbers, "--model", "doubled"]
        assert load(*where, *SHORT) in MEASURED
        _, said = measured(capsys)
        assert "--header 'admin-key: VALUE'" in said
        assert load(*where, "--header", "admin-key: yes", *SHORT) in MEASURED
        _, said = measured(capsys)
        assert "admin-key" not in said


def test_inference_that_is_restricted_is_refused_with_the_header(numbers, capsys):
    with kserve_server(authorization="Bearer sesame") as port:
        where = ["--url", f"http://127.0.0.1:{port}", "--payloads", numbers, "--model", "doubled"]
        assert load(*where, *SHORT) == 2
    assert "--header 'Authorization: Bearer ...'" in capsys.readouterr().err


class _RestrictedTriton(EmbeddedTriton):
    """As `tritonserver` is started where only inference is for everybody."""

    def _command(self, ports: Ports) -> list[str]:
        apis = "metadata,model-config,model-repository,statistics:admin-key=yes"
        return [
            *super()._command(ports),
            f"--http-restricted-api={apis}",
            f"--grpc-restricted-protocol={apis}",
        ]


@pytest.fixture(scope="module")
def restricted_triton(
    tmp_path_factory: pytest.TempPathFactory, server_environment: ServerEnvironment
) -> Iterator[EmbeddedTriton]:
    repository = tmp_path_factory.mktemp("repository")
    make_tiny_variant(repository)
    log_file = repository.parent / "triton.log"
    with _RestrictedTriton(server_environment, repository, log_file=log_file) as server:
        with TritonClient(server.endpoint) as client:
            client._client.load_model(TINY_MODEL, headers={"triton-grpc-protocol-admin-key": "yes"})
        yield server


@pytest.mark.triton
@pytest.mark.parametrize(
    ("protocol", "header"),
    [("http", "admin-key"), ("grpc", "triton-grpc-protocol-admin-key")],
)
def test_a_triton_that_restricts_all_but_inference(
    restricted_triton, protocol, header, tmp_path, capsys
):
    ids = np.random.default_rng(0).integers(0, 9, (20, 8))
    write_payloads(tmp_path / "p.npz", [{"input_ids": ids, "attention_mask": np.ones_like(ids)}])
    place = getattr(restricted_triton.endpoint, protocol)
    where = ["--url", f"{protocol}://{place}", "--model", TINY_MODEL, "--payloads",
             tmp_path / "p.npz"]  # fmt: skip
    assert load(*where, *SHORT) in MEASURED
    result, said = measured(capsys)
    assert result["server"]["requests"] is None
    assert f"--header '{header}: VALUE'" in said
    assert load(*where, "--header", f"{header}: yes", *SHORT) in MEASURED
    result, said = measured(capsys)
    assert result["server"]["requests"] > 0
    assert header not in said
    assert "statistics" not in said
