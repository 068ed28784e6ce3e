"""Servers behind gateways, restrictions, and those that answer inference alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kserve_server import kserve_server
from tiny_model import TINY_MODEL, make_tiny_variant

from harness.cli.main import run_command
from harness.errors import EXIT_ENVIRONMENT
from harness.load.requests.payloads import write_payloads
from harness.runs.folder import read_run
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton, Ports
from harness.serving.endpoint import TritonClient
from tests.local_study import write_local_study

MEASURED = {0, EXIT_ENVIRONMENT}
"""Measured; a busy machine makes a trial invalid, and what was counted must be right even so."""
SHORT = ["--concurrency", 2, "--duration", 0.5, "--warmup", 0.1, "--json"]

pytestmark = pytest.mark.usefixtures("undisturbed")


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


CONFIG = """
name: "{name}" backend: "onnxruntime" max_batch_size: 0
input [ {{ name: "ids" data_type: TYPE_INT32 dims: [ -1, -1 ] }},
        {{ name: "mask" data_type: TYPE_INT32 dims: [ -1, -1 ] }} ]
output [ {{ name: "total" data_type: TYPE_FP32 dims: [ 1 ] }},
         {{ name: "scores" data_type: TYPE_FP32 dims: [ -1, 3 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""


def write_strangers_model(repository: Path, name: str, weights: tuple[float, ...]) -> None:
    """Names, types and shapes of its own, no batcher, and an output without rows."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    axes, whole = ["batch", "sequence"], ["one"]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["ids", "mask"], ["kept"]),
            helper.make_node("Cast", ["kept"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["numbers", "axes"], ["sums"], keepdims=1),
            helper.make_node("Mul", ["sums", "weights"], ["scores"]),
            helper.make_node("ReduceSum", ["sums"], ["sum"], keepdims=0),
            helper.make_node("Reshape", ["sum", "axes"], ["total"]),
        ],
        name,
        [helper.make_tensor_value_info(one, TensorProto.INT32, axes) for one in ("ids", "mask")],
        [
            helper.make_tensor_value_info("total", TensorProto.FLOAT, whole),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
            numpy_helper.from_array(np.array([weights], np.float32), "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (repository / name / "1").mkdir(parents=True)
    onnx.save(model, repository / name / "1" / "model.onnx")
    (repository / name / "config.pbtxt").write_text(CONFIG.format(name=name))


@pytest.fixture(scope="module")
def strangers(
    tmp_path_factory: pytest.TempPathFactory, server_environment: ServerEnvironment
) -> Iterator[EmbeddedTriton]:
    repository = tmp_path_factory.mktemp("strangers")
    write_strangers_model(repository, "own-teacher-fp32", (1.0, -0.5, 2.0))
    write_strangers_model(repository, "own-student-fp32", (2.0, -1.0, 0.5))
    log_file = repository.parent / "strangers.log"
    with EmbeddedTriton(server_environment, repository, log_file=log_file) as server:
        yield server


def strangers_study(folder: Path, **named: dict[str, str]) -> Path:
    study = write_local_study(
        folder,
        serving={"max_batch_sizes": [8], "queue_delays_us": [0, 500], "instance_counts": [1]},
        traffic={"protocols": ["http"], "client_batch_sizes": [4], "concurrencies": [2],
                 "duration_s": 0.5, "warmup_s": 0.1, "saturation_shares": []},
    )  # fmt: skip
    document = yaml.safe_load(study.read_text())
    for model in document["families"][0]["models"]:
        model |= {"inputs": {"input_ids": "ids", "attention_mask": "mask"}, **named}
    study.write_text(yaml.safe_dump(document))
    return study


@pytest.mark.triton
def test_a_model_of_other_names_types_and_shapes_is_scored(strangers, tmp_path, capsys):
    url = ["--url", f"http://{strangers.endpoint.http}"]
    out = tmp_path / "run"
    unnamed = strangers_study(tmp_path)
    assert run_command(["evaluate", str(unnamed), *url, "--out", str(out)]) == 2
    assert not out.exists()
    said = capsys.readouterr().err
    assert "has no output 'logits': it has total, scores" in said
    assert "outputs: {logits: total}" in said
    study = strangers_study(tmp_path, outputs={"logits": "scores"})
    assert run_command(["evaluate", str(study), *url, "--out", str(out)]) == 0
    run = read_run(out)
    # The sums are positive, so each model always says the class of its largest weight.
    rows = list(csv.DictReader((tmp_path / "test.csv").open()))
    scores = {one.variant: one.value for one in run.scores if one.metric == "accuracy"}
    for name, label in (("own-teacher-fp32", "other"), ("own-student-fp32", "code")):
        right = sum(row["kind"] == label for row in rows) / len(rows)
        assert scores[name] == pytest.approx(right)


@pytest.mark.triton
def test_a_model_that_does_not_batch_is_swept_as_it_is(strangers, tmp_path, capsys):
    url, out = f"http://{strangers.endpoint.http}", tmp_path / "run"
    study = strangers_study(tmp_path, outputs={"logits": "scores"})
    code = run_command(["sweep", str(study), "--url", url, "--search", "grid", "--out", str(out)])
    assert code in {0, 3, 4}, capsys.readouterr().err
    run = read_run(out)
    assert {one.trial.serving.max_batch_size for one in run.trials} == {0}
    assert {one.trial.serving.queue_delay_us for one in run.trials} == {0}
    assert all(one.failures == 0 for one in run.trials)
    assert any(one.requests for one in run.trials)
    with TritonClient(strangers.endpoint) as client:
        client.load("own-teacher-fp32")
        config = client._client.get_model_config("own-teacher-fp32").config
    assert config.max_batch_size == 0
