"""Pairs of the user's own, scored alone and as a whole ensemble: text in, label out."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.cli.main import run_command
from harness.errors import (
    EXIT_ENVIRONMENT,
    EXIT_OBJECTIVE_NOT_MET,
    EXIT_OK,
    EXIT_UNDECIDED,
    ServerError,
)
from harness.load.requests.payloads import read_payloads
from harness.runs.folder import read_run
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.telemetry.readings import DirectReadings
from harness.telemetry.triton import read_counters
from tests.local_study import write_pair_study

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment", "undisturbed")]

MEASURED = {EXIT_OK, EXIT_OBJECTIVE_NOT_MET, EXIT_UNDECIDED, EXIT_ENVIRONMENT}
"""By the study's objective, which these tests are not about."""
"""A busy machine makes a trial invalid, with a reason; what was counted must be right even so."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_pair_study(tmp_path_factory.mktemp("pairs"), "pairs.csv")


@pytest.fixture(scope="module")
def scored(study, tmp_path_factory):
    """A run folder with every variant's and ensemble's scores."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    repository = ["--repository", str(study.parent / "repository")]
    assert run_command(["evaluate", str(study), "--out", str(folder), *repository]) == EXIT_OK
    return folder


@pytest.fixture(scope="module")
def client(study, scored, server_environment, tmp_path_factory):
    """The student's ensemble in a server that was started on the repository alone."""
    log = tmp_path_factory.mktemp("log") / "triton.log"
    with (
        EmbeddedTriton(server_environment, study.parent / "repository", log_file=log) as server,
        TritonClient(server.endpoint) as connected,
    ):
        connected.load("pair-student-fp32-ensemble")
        yield connected


def outcomes_of(scored, variant):
    return pd.read_parquet(scored / "samples" / f"{variant}.parquet")


def rows_of(study):
    return pd.read_csv(study.parent / "pairs.csv")


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_pair_is_classified_as_the_checkpoint_itself_does(study, scored, role):
    import torch
    import transformers

    folder = study.parent / f"pair-{role}"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = rows_of(study)
    encoded = tokenizer(
        rows["first"].tolist(),
        rows["second"].tolist(),
        truncation=True,
        max_length=48,
        padding=True,
        return_token_type_ids=True,  # which the model takes, though this tokenizer announces none
        return_tensors="pt",
    )
    with torch.inference_mode():
        best = model(**encoded).logits.argmax(-1).tolist()
    said = [model.config.id2label[index] for index in best]

    outcomes = outcomes_of(scored, f"pair-{role}-fp32")

    assert outcomes.prediction.tolist() == best
    assert outcomes.correct.tolist() == [a == b for a, b in zip(said, rows["verdict"], strict=True)]


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_an_ensemble_answers_as_its_model_alone(scored, role):
    alone = outcomes_of(scored, f"pair-{role}-fp32")
    ensemble = outcomes_of(scored, f"pair-{role}-fp32-ensemble")

    assert not ensemble.unanswered.any()
    assert ensemble.prediction.tolist() == alone.prediction.tolist()
    scores = {(s.variant, s.metric): s.value for s in read_run(scored).scores}
    for metric in ("accuracy", "macro_f1"):
        assert scores[f"pair-{role}-fp32-ensemble", metric] == scores[f"pair-{role}-fp32", metric]


def test_the_servers_tokenizer_makes_the_tensors_that_the_harness_makes(study, client, scored):
    """Read off disk by a client that knows the repository's config.pbtxt alone."""
    rows = rows_of(study)
    texts = {
        "TEXT": np.array([one.encode() for one in rows["first"]])[:4, None],
        "TEXT_PAIR": np.array([one.encode() for one in rows["second"]])[:4, None],
    }
    tensors = client.infer("pair-student-fp32-tokenize", texts)
    answer = client.infer("pair-student-fp32-ensemble", texts)
    logits = client.infer("pair-student-fp32", tensors)["logits"]

    assert tensors["input_ids"].shape[1] in {32, 48}
    names = ("contradicts", "unrelated", "follows")
    assert [label.decode() for label in answer["LABEL"][:, 0]] == [
        names[best] for best in logits.argmax(1)
    ]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert answer["SCORE"][:, 0] == pytest.approx(shares.max(1), rel=1e-4)
    assert outcomes_of(scored, "pair-student-fp32").prediction[:4].tolist() == list(
        logits.argmax(1)
    )


def test_a_bad_text_fails_alone_and_numbers_that_are_none_get_no_label(client):
    bad = {"TEXT": np.array([[b"\xff\xfe"]]), "TEXT_PAIR": np.array([[b"fine"]])}
    with pytest.raises(ServerError, match="tokenize: 'utf-8' codec can't decode"):
        client.infer("pair-student-fp32-ensemble", bad)
    good = {"TEXT": np.array([[b"fine"]]), "TEXT_PAIR": np.array([["naïve".encode()]])}
    assert client.infer("pair-student-fp32-ensemble", good)["LABEL"].shape == (1, 1)
    broken = {"logits": np.array([[0.0, np.nan, 1.0]], dtype=np.float32)}
    with pytest.raises(ServerError, match="the model's scores are not numbers"):
        client.infer("pair-student-fp32-label", broken)


@pytest.fixture
def counts_read(monkeypatch):
    """Of each reading of an ensemble: how many requests its parts had by then, one part read after
    the other, and the first of them once more after the others."""
    found = []
    read = DirectReadings._read

    def watched(readings):
        reading = read(readings)
        if parts := list(reading.parts.values()):
            parts.append(readings._statistics(next(iter(reading.parts))))
            found.append([read_counters(one).requests for one in parts])
        return reading

    monkeypatch.setattr(DirectReadings, "_read", watched)
    return found


@pytest.mark.parametrize("protocol", ["http", pytest.param("grpc", marks=pytest.mark.slow)])
def test_an_ensemble_is_load_tested_with_texts_and_its_parts_are_told_apart(
    study, scored, protocol, counts_read, capsys, tmp_path
):
    arguments = ["--variant", "pair-student-fp32-ensemble", "--protocol", protocol]
    arguments += ["--concurrency", "2", "--client-batch-size", "3"]
    arguments += ["--repository", str(study.parent / "repository")]
    short = ["--duration", "2", "--warmup", "0.4", "--json"]
    folder = tmp_path / "load"
    assert run_command(["load", str(study), *arguments, *short, "--out", str(folder)]) in MEASURED
    result = json.loads(capsys.readouterr().out)
    assert result["requests"] > 0, result["reason"]
    assert result["failures"] == 0
    parts = {part["model"]: part for part in result["server"]["parts"]}
    assert list(parts) == [
        "pair-student-fp32-tokenize",
        "pair-student-fp32",
        "pair-student-fp32-label",
    ]
    # Counters are read one after the other, while requests are answered and two are on their way.
    *opened, opened_last = counts_read[-2]
    *closed, closed_last = counts_read[-1]
    counts = [part["requests"] for part in parts.values()]
    assert counts == [after - before for before, after in zip(opened, closed, strict=True)]
    fewest, most = closed[0] - opened_last, closed_last - opened[0]
    assert fewest - 4 <= min(counts) <= max(counts) <= most + 4
    assert result["server"]["queue_ms"] == pytest.approx(sum(p["queue_ms"] for p in parts.values()))
    assert all(part["compute_ms"] > 0 for part in parts.values())
    for texts in folder.glob("payloads/*-texts.npz"):
        assert {group["TEXT"].dtype.kind for group in read_payloads(texts)} == {"O"}
