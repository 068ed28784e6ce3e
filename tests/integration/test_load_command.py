"""`harness load` as a person calls it: against Triton, and against a server nobody here wrote."""

import json
import shutil
import sys
import urllib.error
import urllib.request

import numpy as np
import pyarrow.parquet as pq
import pytest
from http1_server import make_certificate
from kserve_server import kserve_server
from tiny_model import make_tiny_variant

from harness.cli.main import run_command
from harness.errors import (
    EXIT_ENVIRONMENT,
    EXIT_OBJECTIVE_NOT_MET,
    EXIT_OK,
    EXIT_UNDECIDED,
    ServerError,
)
from harness.load.requests.payloads import write_payloads
from harness.runs.folder import read_manifest, read_run
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from tests.ports import free_port

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("undisturbed")]

MEASURED = {EXIT_OK, EXIT_ENVIRONMENT}
"""A busy machine makes a trial invalid, with a reason; what was counted must be right even so."""
BY_VERDICT = {
    "pass": EXIT_OK,
    "fail": EXIT_OBJECTIVE_NOT_MET,
    "undecided": EXIT_UNDECIDED,
    "invalid": EXIT_ENVIRONMENT,
}
SHORT = ["--duration", "0.6", "--warmup", "0.4", "--json"]
UNTIL_DECIDED = ["--until-decided", "--duration", "600", "--warmup", "0.4"]
"""However slow the machine is: a trial that does not end makes its test hang."""


@pytest.fixture(scope="module")
def addresses(embedded_triton):
    """Of both protocols of a running Triton that has the model `tiny` loaded."""
    with TritonClient(embedded_triton.endpoint) as client:
        client.load("tiny")
    endpoint = embedded_triton.endpoint
    return {"http": f"http://{endpoint.http}", "grpc": f"grpc://{endpoint.grpc}"}


def token_payloads(path, *, rows=40, lengths=(16, 32), name="input_ids", kind=np.int64):
    generator = np.random.default_rng(3)
    groups = [
        {
            name: generator.integers(0, 9, (rows, length)).astype(kind),
            "attention_mask": np.ones((rows, length), np.int64),
        }
        for length in lengths
    ]
    write_payloads(path, groups)
    return path


@pytest.fixture
def payloads(tmp_path):
    return token_payloads(tmp_path / "payloads.npz")


def load(*arguments):
    """Run `harness load` in this process; its exit code."""
    return run_command(["load", *map(str, arguments)])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_running_triton_is_measured_as_it_is(addresses, protocol, payloads, capsys):
    where = ["--url", addresses[protocol], "--model", "tiny", "--payloads", payloads]
    assert load(*where, "--concurrency", 2, "--client-batch-size", 3, *SHORT) in MEASURED
    result = json.loads(capsys.readouterr().out)
    assert result["trial"]["workload"]["protocol"] == protocol
    assert result["requests"] > 0, result["reason"]
    assert result["failures"] == 0
    assert result["sha256"].startswith("remote:"), "the file's digest is not known"
    # Triton's two counters are read while two requests of three rows are in flight.
    assert result["server"]["inferences"] == pytest.approx(3 * result["server"]["requests"], abs=6)
    serving = result["trial"]["serving"]
    assert (serving["max_batch_size"], serving["instance_count"]) == (16, 1)


def test_an_open_loop_with_mixes_keeps_every_request(addresses, payloads, tmp_path, capsys):
    out = tmp_path / "run"
    where = ["--url", addresses["grpc"], "--model", "tiny", "--payloads", payloads]
    traffic = ["--rate", 200, "--arrivals", "constant", "--batch-mix", "1:0.5,4:0.5",
               "--length-mix", "16:1,32:2", "--max-in-flight", 400, "--workers", 2]  # fmt: skip
    assert load(*where, *traffic, *SHORT, "--records", "--out", out) in MEASURED
    result = json.loads(capsys.readouterr().out)
    assert result["offered_requests_per_s"] == pytest.approx(200, rel=0.02)
    assert result["requests"] == pytest.approx(120, abs=2)
    (stored,) = read_run(out).trials
    assert stored.requests == result["requests"]
    records = [pq.read_table(file) for file in (out / "records").rglob("worker-*.parquet")]
    assert len(records) == 2
    assert sum(one.num_rows for one in records) >= stored.requests


def test_a_decided_objective_ends_the_trial_and_is_the_exit_code(addresses, payloads, capsys):
    where = ["--url", addresses["http"], "--model", "tiny", "--payloads", payloads, "--json"]
    hopeless = ["--slo", "p50 < 0.01 ms", *UNTIL_DECIDED]
    code = load(*where, *hopeless, "--concurrency", 1)
    result = json.loads(capsys.readouterr().out)
    assert result["duration_s"] < 600
    if result["valid"]:
        assert code == EXIT_OBJECTIVE_NOT_MET
        assert "p50" in result["reason"]


@pytest.mark.parametrize(
    ("slo", "verdict", "said"),
    [
        ("p50 < 60 s", "pass", "Pass, p50 < 60 s"),
        ("p50 < 0.001 ms", "fail", "is over 0.001 ms"),
        ("error_rate < 0.0001%", "undecided", "cannot yet be told from 0.0001%"),
        (
            "p50 < 60 s, accuracy >= 90%",
            "pass",
            "accuracy >= 90%: a load test does not measure quality",
        ),
    ],
)
def test_the_verdict_is_said_and_is_the_exit_code(addresses, payloads, slo, verdict, said, capsys):
    """60 s of a busy machine's time are more than any request takes; 1 us is less."""
    where = ["--url", addresses["http"], "--model", "tiny", "--payloads", payloads]
    lasts = SHORT[:-1] if verdict == "undecided" else UNTIL_DECIDED
    code = load(*where, "--slo", slo, "--concurrency", 1, *lasts)
    text = " ".join(capsys.readouterr().out.split())
    if code != EXIT_ENVIRONMENT:
        assert code == BY_VERDICT[verdict]
        assert said in text


def test_a_trace_is_replayed(addresses, payloads, tmp_path, capsys):
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp\n" + "".join(f"{number / 100}\n" for number in range(300)))
    where = ["--url", addresses["http"], "--model", "tiny", "--payloads", payloads]
    assert load(*where, "--arrivals", f"trace:{trace}", *SHORT) in MEASURED
    assert json.loads(capsys.readouterr().out)["requests"] == pytest.approx(60, abs=2)


def test_a_person_reads_both_latencies_and_the_evidence(addresses, payloads, capsys):
    where = ["--url", addresses["grpc"], "--model", "tiny", "--payloads", payloads]
    load(*where, "--rate", 100, "--slo", "p95 < 5 s", *SHORT[:-1])
    text = capsys.readouterr().out
    for part in ("response", "service", "schedule delay p99", "event loop lag p99", "fell due",
                 "generator CPU", "validity", "decision", "warm-up", "p95 < 5 s"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("verified", [True, False])
def test_a_server_that_is_not_triton_over_tls_with_a_header(tmp_path, verified, capsys):
    certificate, tls = make_certificate(tmp_path)
    write_payloads(tmp_path / "p.npz", [{"numbers": np.ones((8, 5), np.float32)}])
    trust = ["--ca-file", certificate] if verified else ["--insecure"]
    out = tmp_path / "run"
    with kserve_server(tls=tls, authorization="Bearer sesame") as port:
        code = load("--url", f"https://127.0.0.1:{port}", *trust, "--model", "doubled",
                    "--payloads", tmp_path / "p.npz", "--header", "Authorization: Bearer sesame",
                    "--concurrency", 1, "--out", out, *SHORT)  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    assert code in MEASURED
    assert result["requests"] > 0, result["reason"]
    assert result["failures"] == 0
    assert result["server"]["requests"] is None, "it keeps no statistics"
    for file in out.rglob("*"):
        assert not file.is_file() or b"sesame" not in file.read_bytes(), file


def test_a_header_s_value_stays_out_of_the_run_folder(addresses, payloads, tmp_path, monkeypatch):
    out = tmp_path / "run"
    command = ["load", "--url", addresses["http"], "--model", "tiny", "--payloads", str(payloads),
               "--header", "Authorization: Bearer sesame", "--out", str(out), *SHORT]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["harness", *command])  # what the manifest keeps
    assert run_command(command) in MEASURED
    assert "'Authorization: ...'" in read_manifest(out)["command"]


@pytest.fixture(scope="module")
def study(local_study):
    return local_study


@pytest.fixture(scope="module")
def repository(study):
    return study.parent / "model_repository"


def test_a_study_s_variant_on_a_server_that_is_up(
    study, repository, server_environment, tmp_path, capsys
):
    """It gets the study's own test data, in the encoding of that variant's tokenizer."""
    log_file = tmp_path / "triton.log"
    asked = [study, "--variant", "own-student-fp32", "--until-decided", *SHORT]
    with EmbeddedTriton(server_environment, repository, log_file=log_file) as server:
        url = f"grpc://{server.endpoint.grpc}"
        assert load(*asked, "--url", url) == 2
        assert "has not loaded the model 'own-student-fp32'" in capsys.readouterr().err
        with TritonClient(server.endpoint) as client:
            client.load("own-student-fp32")
            load(*asked, "--url", url, "--out", tmp_path / "run")
            assert client.statistics("own-student-fp32")["inference_count"] > 0
    result = json.loads(capsys.readouterr().out)
    assert result["requests"] > 0, result["reason"]
    assert result["failures"] == 0
    assert result["trial"]["family"] == "sentences"
    assert not (tmp_path / "run" / "verdict.json").exists()


def test_a_study_s_variant_is_served_and_loaded(study, repository, capsys):
    """By grpcio; by the harness's own transport in test_commands, with both sides' counts."""
    asked = [study, "--variant", "own-student-fp32", "--repository", repository]
    code = load(*asked, "--rate", 80, "--transport", "grpcio", "--max-batch-size", 4, *SHORT)
    result = json.loads(capsys.readouterr().out)
    assert code == BY_VERDICT[result["decision"]], "the study has its own objective"
    assert result["requests"] > 0, result["reason"]
    assert result["sha256"]
    assert result["trial"]["serving"]["max_batch_size"] == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--variant is missing"),
        (["--variant", "nobody"], "no variant 'nobody'"),
        (["--variant", "own-student-fp32", "--client-batch-size", "17"], "max_batch_size, 16"),
        (["--variant", "own-student-fp32", "--length-mix", "9:1"], "padded lengths there are: 16"),
        (
            ["--variant", "own-student-fp32", "--model", "x"],
            "with a study file, --payloads is not used",
        ),
        (["--variant", "own-student-fp32", "--slo", "perplexity < 3"], "asks for perplexity"),
        (["--variant", "own-student-fp32", "--slo", "accuracy >= 9%"], "does not measure quality"),
    ],
)
def test_what_a_study_cannot_have_is_said_before_anything_starts(study, options, said, capsys):
    assert load(study, *options) == 2
    assert said in capsys.readouterr().err


def test_a_model_that_somebody_else_broke_is_no_reason_not_to_measure_another(
    addresses, embedded_triton, tiny_repository, payloads, tmp_path
):
    """Triton calls itself ready only while every model that it was told to load is."""
    broken = make_tiny_variant(tiny_repository, "broken")
    (broken.path / "1" / "model.onnx").write_bytes(b"no model")
    try:
        with TritonClient(embedded_triton.endpoint) as client, pytest.raises(ServerError):
            client.load("broken")
    finally:
        shutil.rmtree(broken.path)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{addresses['http']}/v2/health/ready")
    for address in addresses.values():
        where = ["--url", address, "--model", "tiny", "--payloads", payloads]
        assert load(*where, "--concurrency", 2, *SHORT) in MEASURED


@pytest.mark.parametrize("scheme", ["http", "grpc", "https", "grpcs"])
def test_nobody_there(scheme, payloads, capsys):
    url = f"{scheme}://127.0.0.1:{free_port()}"
    assert load("--url", url, "--model", "tiny", "--payloads", payloads) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "127.0.0.1" in said[0]
    assert said[1] == "next: check its address, and that it is up"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nobody"], "has no model 'nobody'"),
        (["--model", "nobody"], "next: models that are ready there: tiny"),
        (["--client-batch-size", "17"], "the model takes at most 16"),
        (["--batch-mix", "1:1,32:1"], "the model takes at most 16"),
        (["--length-mix", "64:1"], "the padded lengths there are: 16, 32"),
        (["--rate", "0"], "a rate of 0 requests/s: it must be above 0"),
        (["--duration", "-1"], "a duration of -1 s: it must be above 0"),
        (["--warmup", "-1"], "a warm-up of -1 s: it must be 0 or more"),
        (["--concurrency", "0"], "at least one is needed"),
        (["--protocol", "smtp"], "smtp"),
        (["--arrivals", "uniform"], "'uniform' is not an arrival process"),
        (["--arrivals", "trace:/nowhere.csv"], "/nowhere.csv: no trace can be read"),
        (["--rate", "9", "--shape", "zigzag"], "'zigzag' is not a shape"),
        (["--header", "Content-Length: 3"], "Content-Length"),
        (["--instances", "2"], "apply only to a server that the harness starts"),
        (["--until-decided"], "--until-decided needs an objective"),
        (["--records"], "--records needs --out"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    addresses, payloads, tmp_path, options, said, capsys
):
    where = ["--url", addresses["http"], "--payloads", payloads]
    model = [] if "--model" in options else ["--model", "tiny"]
    out = [] if "--records" in options else ["--out", tmp_path / "run"]
    assert load(*where, *model, *out, *options) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"name": "input_idz"}, "the payloads lack the model's input input_ids"),
        ({"kind": np.bytes_}, "input input_ids: the payloads hold BYTES, not INT64"),
    ],
)
def test_payloads_that_do_not_fit(addresses, protocol, tmp_path, made, said, capsys):
    path = token_payloads(tmp_path / "wrong.npz", **made)
    assert load("--url", addresses[protocol], "--model", "tiny", "--payloads", path) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stamps", "said"),
    [("1\n3\n2\n", "line 3: '2' is earlier"), ("1\nx\n", "line 2: 'x' is neither a number")],
)
def test_traces_that_cannot_be_replayed(addresses, payloads, tmp_path, stamps, said, capsys):
    trace = tmp_path / "trace.csv"
    trace.write_text(stamps)
    where = ["--url", addresses["http"], "--model", "tiny", "--payloads", payloads]
    assert load(*where, "--arrivals", f"trace:{trace}") == 2
    assert said in capsys.readouterr().err


def test_a_wrong_kind_of_server_is_said(embedded_triton, payloads, capsys):
    """The other protocol's port, the metrics port, a server that wants to know who asks."""
    grpc_port = embedded_triton.endpoint.grpc
    wanted = ["--model", "tiny", "--payloads", payloads]
    assert load("--url", f"http://{grpc_port}", *wanted) == 2
    assert "does not speak HTTP" in capsys.readouterr().err
    metrics = embedded_triton.endpoint.metrics.removesuffix("/metrics")
    assert load("--url", metrics, *wanted) == 2
    said = capsys.readouterr().err
    assert "the first request to 'tiny' failed: http_405" in said
    assert "nothing takes KServe v2's inference requests there" in " ".join(said.split())
    with kserve_server(authorization="Bearer sesame") as port:
        assert load("--url", f"http://127.0.0.1:{port}", *wanted) == 2
    said = capsys.readouterr().err
    assert "HTTP 401: who are you?" in said
    assert "--header 'Authorization: Bearer ...'" in said
