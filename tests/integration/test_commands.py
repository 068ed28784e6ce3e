"""The commands beside run, sweep and evaluate, as a person calls them."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import psutil
import pytest

from harness.cli.main import run_command
from harness.load.requests.payloads import REPOSITORY_FILE, read_payloads
from harness.runs.folder import read_run
from tests.held_up import PATIENCE_S, is_held_up
from tests.ports import free_ports

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment", "undisturbed")]


@pytest.fixture(scope="module")
def study(local_study):
    return local_study


@pytest.fixture(scope="module")
def repository(study):
    """The study's exported model repository."""
    return study.parent / "model_repository"


def serve(study, repository, ports):
    wanted = ",".join(map(str, ports))
    command = [sys.executable, "-m", "harness", "serve", str(study), "--json"]
    command += ["--repository", str(repository), "--ports", wanted]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_export_leaves_what_any_triton_loads(repository):
    for variant in ("own-teacher-fp32", "own-student-fp32"):
        folder = repository / variant
        assert 'backend: "onnxruntime"' in (folder / "config.pbtxt").read_text()
        for part in (
            "1/model.onnx",
            "tokenizer/tokenizer.json",
            "warmup/input_ids",
            "manifest.json",
        ):
            assert (folder / part).is_file()


def test_export_leaves_what_a_client_without_a_tokenizer_sends(repository):
    for variant in ("own-teacher-fp32", "own-student-fp32"):
        (group,) = read_payloads(repository / variant / REPOSITORY_FILE)
        inputs = json.loads((repository / variant / "manifest.json").read_text())["inputs"]
        assert {name: array.dtype.name for name, array in group.items()} == {
            each["name"]: each["datatype"].lower() for each in inputs
        }
        assert {array.shape for array in group.values()} == {(60, 16)}


def test_export_again_changes_nothing(study, repository):
    model = repository / "own-teacher-fp32" / "1" / "model.onnx"
    before = (model.stat().st_mtime_ns, model.read_bytes())
    assert run_command(["export", str(study), "--repository", str(repository)]) == 0
    assert (model.stat().st_mtime_ns, model.read_bytes()) == before


def test_serve_answers_until_it_is_interrupted(study, repository):
    ports = free_ports(3)
    process = serve(study, repository, ports)
    # The JSON document ends in its own line: everything is loaded by then.
    lines = iter(process.stdout.readline, "}\n")
    document = json.loads("".join(lines) + "}")
    assert document["http"] == f"127.0.0.1:{ports[0]}"
    assert document["models"] == ["own-teacher-fp32", "own-student-fp32"]
    for model in document["models"]:
        with urllib.request.urlopen(f"http://{document['http']}/v2/models/{model}/ready") as answer:
            assert answer.status == 200
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1], "a process is left"


def test_serve_on_a_taken_port_says_so(study, repository, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = ",".join(map(str, [port, *free_ports(2)]))
        command = ["serve", str(study), "--repository", str(repository), "--ports", ports]
        assert run_command(command) == 5
    assert str(port) in capsys.readouterr().err


def test_load_prints_both_sides_of_one_trial(study, repository, tmp_path, capsys):
    capsys.readouterr()
    command = ["load", str(study), "--variant", "own-student-fp32", "--protocol", "http",
               "--concurrency", "2", "--client-batch-size", "4", "--duration", "2",
               "--repository", str(repository), "--out", str(tmp_path / "run")]  # fmt: skip
    code = run_command([*command, "--json"])
    result = json.loads(capsys.readouterr().out)
    exits = {"pass": 0, "fail": 3, "undecided": 4, "invalid": 5}
    assert code == exits[result["decision"]]
    # Other work on the machine may make the trial invalid, and nothing else here may.
    held_up = is_held_up(result["invalid_reason"])
    assert held_up or result["decision"] != "invalid", result["invalid_reason"]
    (stored,) = read_run(tmp_path / "run").trials
    late = stored.server.requests_uncertainty  # 0 unless the counters were read late
    server, client = result["server"]["inferences"], result["requests"] * 4
    in_flight = 2  # each edge of the window cuts through those
    assert abs(server - client) <= 0.05 * client + 4 * (late + in_flight)
    assert stored.requests == result["requests"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--variant", "own-student-int8", "own-student-fp32"),
        ("--cpus-server", "0-99999", "usable cores"),
        ("--concurrency", "0", "at least one is needed"),
        ("--protocol", "smtp", "smtp"),
    ],
)
def test_load_refuses_what_cannot_be_before_it_starts(study, option, value, said, capsys):
    options = {"--variant": "own-student-fp32", "--duration": "1"} | {option: value}
    command = ["load", str(study), *(part for pair in options.items() for part in pair)]
    assert run_command(command) == 2
    assert said in capsys.readouterr().err
