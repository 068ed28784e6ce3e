"""Servers that somebody else runs: MLServer from PyPI, and a Triton that may or may not be told."""

import csv
import json
import random

import numpy as np
import pytest
import transformers
import yaml
from kserve_server import kserve_server
from mlserver_rig import SCATTERED, mlserver

from harness.cli.main import run_command
from harness.errors import EXIT_ENVIRONMENT
from harness.load.requests.payloads import write_payloads
from harness.quality.collection import read_outcomes
from harness.runs.folder import read_manifest, read_run
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from tests.local_study import LABELS, write_local_study
from tests.tiny_models import LINES

ROWS = 60
MODELS = {"own-teacher-fp32": (1, 5, 7), "student": (2, 3, 11)}
RENAMED_PAIR = ("own-student-fp32", "student")
RENAMED = ["--model-name", "=".join(RENAMED_PAIR)]
ENDED = {0, 3, 4}
"""Decided, or not: a busy machine makes trials invalid; what was counted must be right even so."""

pytestmark = pytest.mark.usefixtures("undisturbed")


def harness(*arguments):
    return run_command([str(argument) for argument in arguments])


SERVING = {"max_batch_sizes": [8], "queue_delays_us": [0, 500]}
"""Two serving configurations, which only a server with model control can be put through."""
TRAFFIC = {"protocols": ["http"], "client_batch_sizes": [1, 4], "concurrencies": [2],
           "duration_s": 0.5, "warmup_s": 0.1, "saturation_shares": [0.4]}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Of rows of which no two have the same words: an answer shows whose it is."""
    path = write_local_study(tmp_path_factory.mktemp("study"), serving=SERVING, traffic=TRAFFIC)
    draw = random.Random(7)
    words = sorted({word for line in LINES for word in line.split()})
    with (path.parent / "test.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence", "kind"])
        for number in range(ROWS):
            writer.writerow([" ".join(draw.sample(words, 3)), LABELS[number % 3]])
    document = yaml.safe_load(path.read_text())
    document["families"][0]["task"]["max_length"] = 64
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def own_study(local_study):
    """Of models that are exported."""
    document = yaml.safe_load(local_study.read_text())
    path = local_study.parent / "two_configurations.yaml"
    path.write_text(yaml.safe_dump({**document, "serving": SERVING, "traffic": TRAFFIC}))
    return path


def bare_logits(study, checkpoint, weights):
    """What `SCATTERED` makes of each row's own tokens, without the harness and any server."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(study.parent / checkpoint)
    rows = list(csv.DictReader((study.parent / "test.csv").open(encoding="utf-8")))
    totals = [sum(tokenizer(row["sentence"])["input_ids"]) for row in rows]
    labels = np.array([LABELS.index(row["kind"]) for row in rows])
    return np.outer(totals, weights) % 97, labels


@pytest.fixture(scope="module")
def mlserver_urls(tmp_path_factory):
    with mlserver(tmp_path_factory.mktemp("mlserver"), MODELS, SCATTERED) as urls:
        yield urls


@pytest.mark.timeout(900)  # the environment is made on first use
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_mlserver_is_load_tested(mlserver_urls, protocol, tmp_path, capsys):
    ids = np.random.default_rng(0).integers(0, 9, (20, 8))
    write_payloads(tmp_path / "p.npz", [{"input_ids": ids, "attention_mask": np.ones_like(ids)}])
    out = tmp_path / "run"
    code = harness("load", "--url", mlserver_urls[protocol], "--model", "student", "--payloads",
                   tmp_path / "p.npz", "--client-batch-size", 3, "--concurrency", 2, "--duration",
                   1, "--warmup", 0.3, "--json", "--out", out)  # fmt: skip
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert code in {0, EXIT_ENVIRONMENT}
    assert result["requests"] > 0, result["reason"]
    assert result["failures"] == 0
    assert result["server"]["requests"] is None
    assert printed.err.count("is mlserver 1.7.1; it does not offer: ") == 1
    assert ("bodies are JSON" in printed.err) == (protocol == "http")
    (row,) = csv.DictReader((out / "trials.csv").open())
    assert float(row["throughput_requests_per_s"]) > 0
    for missing in ("server_queue_ms", "server_requests", "max_batch_size", "instance_count"):
        assert row[missing] == "", missing


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_mlserver_is_scored_and_swept_as_it_is(mlserver_urls, study, protocol, tmp_path, capsys):
    out = tmp_path / "run"
    command = "sweep" if protocol == "http" else "evaluate"
    code = harness(command, study, "--url", mlserver_urls[protocol], *RENAMED, "--out", out)
    said = capsys.readouterr().err
    assert code in ENDED, said
    assert said.count("no model control (it has none)") == 1
    assert "the study's 2 are not swept" in said
    run = read_run(out)
    digests = {variant.name: variant.sha256 for variant in run.variants}
    assert all(digest.startswith("remote:") for digest in digests.values())
    scores = {one.variant: one for one in run.scores if one.metric == "accuracy"}
    assert {name: scores[name].sha256 for name in digests} == digests
    assert all(result.sha256 == digests[result.trial.variant] for result in run.trials)
    assert all(result.failures == 0 for result in run.trials)
    assert bool(run.trials) == (command == "sweep")
    assert read_manifest(out)["server"]["name"] == "mlserver"
    for variant, served in (("own-teacher-fp32", "own-teacher-fp32"), RENAMED_PAIR):
        checkpoint = variant.removeprefix("own-").removesuffix("-fp32")
        logits, labels = bare_logits(study, checkpoint, MODELS[served])
        answered = read_outcomes(out / "samples" / f"{variant}.parquet")
        np.testing.assert_array_equal(answered.logits, logits)
        assert scores[variant].value == np.mean(logits.argmax(axis=1) == labels)
    assert "as its server has it" in (out / "report.html").read_text() or not run.trials
    assert {variant.size_bytes for variant in run.variants} == {None}


@pytest.fixture(scope="module")
def own_triton(own_study, server_environment):
    """With the study's models in its repository, one of them loaded."""
    repository = own_study.parent / "model_repository"
    log_file = own_study.parent / "triton.log"
    with EmbeddedTriton(server_environment, repository, log_file=log_file) as server:
        with TritonClient(server.endpoint) as client:
            client.load("own-teacher-fp32")
        yield server


@pytest.mark.triton
def test_a_triton_with_model_control_is_swept_and_left_as_it_was(
    own_triton, own_study, tmp_path, capsys
):
    url, out = f"http://{own_triton.endpoint.http}", tmp_path / "run"
    metrics = ["--metrics-url", own_triton.endpoint.metrics]
    code = harness("sweep", own_study, "--url", url, *metrics, "--search", "grid", "--out", out)
    said = capsys.readouterr().err
    assert code in ENDED, said
    assert "reloaded for each serving configuration, and put back at the end" in said
    assert "does not offer" not in said
    run = read_run(out)
    assert {one.trial.serving.queue_delay_us for one in run.trials} == {0, 500}
    assert {one.trial.serving.max_batch_size for one in run.trials} == {8}
    measured = [one for one in run.trials if one.requests]
    assert all(one.server.requests and one.failures == 0 for one in measured)
    digests = {variant.name: variant.sha256 for variant in run.variants}
    assert all(one.sha256 == digests[one.trial.variant] for one in run.every_trial)
    rates = [one.trial.workload.rate_per_s for one in run.saturation]
    assert len(rates) >= 2, "the winner and the teacher, in open loops"
    assert all(rates)
    with TritonClient(own_triton.endpoint) as client:
        states = {one.name: one.state for one in client._client.get_model_repository_index().models}
        assert states["own-teacher-fp32"] == "READY"
        assert states.get("own-student-fp32") != "READY", "it was not loaded before"
        config = client._client.get_model_config("own-teacher-fp32").config
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    # The same run on the embedded server would be another run.
    assert harness("sweep", own_study, "--search", "grid", "--resume", "--out", out) == 2
    assert "was measured on http://" in capsys.readouterr().err


@pytest.mark.triton
def test_as_is_touches_nothing_and_says_what_is_not_there(own_triton, own_study, tmp_path, capsys):
    url = f"grpc://{own_triton.endpoint.grpc}"
    out = tmp_path / "run"
    assert harness("run", own_study, "--url", url, "--as-is", "--out", out) == 2
    said = capsys.readouterr().err
    assert "'own-student-fp32' (not loaded)" in said
    assert "models that are ready there: own-teacher-fp32" in said
    assert not out.exists()
    twice = ["--model-name", "own-student-fp32=own-teacher-fp32"]
    assert harness("evaluate", own_study, "--url", url, "--as-is", *twice, "--out", out) == 0
    run = read_run(out)
    one, other = (one.sha256 for one in run.variants)
    assert one == other
    assert {score.sha256 for score in run.scores} == {one}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model-name", "nobody=x"], "'nobody', which is not a variant of the study"),
        (["--model-name", "x"], "it is not VARIANT=NAME"),
        (["--metrics-url", "host:8002"], "is not an address of a page"),
        (["--cpus-server", "0"], "--cpus-server applies only to a server that the harness"),
        (["--server-ports", "1,2,3"], "--server-ports applies only to a server that the harness"),
    ],
)
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_options_that_cannot_be_are_said_before_anything_starts(
    study, command, options, said, capsys
):
    assert harness(command, study, "--url", "http://127.0.0.1:9", *options) == 2
    assert said in capsys.readouterr().err


def test_options_of_a_server_that_is_not_named(study, capsys):
    for options in (["--as-is"], ["--header", "a: b"], ["--metrics-url", "http://h/metrics"]):
        assert harness("run", study, *options) == 2
        assert "only used with --url" in capsys.readouterr().err


def test_a_refusal_names_the_headers_that_were_sent(study, tmp_path, capsys):
    with kserve_server(authorization="Bearer sesame") as port:
        url = f"http://127.0.0.1:{port}"
        wrong = ["--header", "Authorization: Bearer wrong", "--out", tmp_path / "run"]
        assert harness("sweep", study, "--url", url, *wrong) == 2
    said = capsys.readouterr().err
    assert "HTTP 401: who are you? (it was sent Authorization)" in said
    assert "wrong" not in said
    assert not (tmp_path / "run").exists()
