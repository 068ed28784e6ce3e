"""Extractive question answering from a study file: exported, served, scored, load-tested."""

import json
import string

import numpy as np
import pandas as pd
import pytest

from harness.cli.main import run_command
from harness.errors import (
    EXIT_ENVIRONMENT,
    EXIT_OBJECTIVE_NOT_MET,
    EXIT_OK,
    EXIT_UNDECIDED,
)
from harness.runs.folder import read_run
from tests.local_study import question_rows, write_question_study

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment", "undisturbed")]

MEASURED = {EXIT_OK, EXIT_OBJECTIVE_NOT_MET, EXIT_UNDECIDED, EXIT_ENVIRONMENT}
"""By the study's objective, which these tests are not about."""
"""A busy machine makes a trial invalid, with a reason; what was counted must be right even so."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_question_study(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="module")
def scored(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored") / "run"
    repository = ["--repository", str(study.parent / "repository")]
    assert run_command(["evaluate", str(study), "--out", str(folder), *repository]) == EXIT_OK
    return folder


def answer_of(model, tokenizer, row):
    """A question's answer by the checkpoint itself, trying every span of every window."""
    import torch

    encoded = tokenizer(
        row["question"],
        row["context"],
        truncation="only_second",
        max_length=32,
        stride=6,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding="max_length",
        return_tensors="pt",
    )
    offsets = encoded["offset_mapping"].numpy()
    names = [name for name in tokenizer.model_input_names if name in encoded]
    with torch.inference_mode():
        answer = model(**{name: encoded[name] for name in names})
    start, end = answer.start_logits, answer.end_logits
    found = [
        (float(start[window, first] + end[window, last]), window, first, last)
        for window in range(len(offsets))
        for first in range(32)
        for last in range(first, min(first + 8, 32))
        if encoded.sequence_ids(window)[first] == encoded.sequence_ids(window)[last] == 1
    ]  # fmt: skip
    _, window, first, last = max(found)
    return row["context"][offsets[window, first, 0] : offsets[window, last, 1]], len(offsets)


def squad_form(text):
    """What SQuAD compares: "The quick, brown" and "quick brown" are the same answer.

    What an untrained model answers depends on the machine that drew its weights.
    """
    bare = "".join(mark for mark in text.lower() if mark not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def test_answers_through_the_endpoint_are_the_checkpoints_own(study, scored):
    import transformers

    folder = study.parent / "qa-teacher"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    rows = question_rows()
    expected = [answer_of(model, tokenizer, row) for row in rows]

    outcomes = pd.read_parquet(scored / "samples" / "qa-teacher-fp32.parquet")

    assert outcomes.answer.tolist() == [text for text, _ in expected]
    manifest = json.loads((scored / "manifest.json").read_text())["data"]["questions"]
    assert manifest["samples"] == len(rows)
    assert manifest["windows"] == sum(windows for _, windows in expected)
    assert manifest["windowed"] == sum(windows > 1 for _, windows in expected) > 0
    scores = {(s.variant, s.metric): s for s in read_run(scored).scores}
    exact = [
        squad_form(row["answers"]["text"][0]) == squad_form(text)
        for row, (text, _) in zip(rows, expected, strict=True)
    ]
    assert scores["qa-teacher-fp32", "exact_match"].value == pytest.approx(np.mean(exact))
    assert scores["qa-student-fp32", "exact_match"].relative_to_teacher is not None or not any(
        exact
    )
    assert 0 <= scores["qa-student-fp32", "f1"].low <= scores["qa-student-fp32", "f1"].high <= 1


def test_both_sets_of_logits_are_held_against_the_checkpoint(scored):
    for variant in read_run(scored).variants:
        assert [spec.name for spec in variant.outputs] == ["start_logits", "end_logits"]
        assert set(variant.parity) == {"start_logits"}


def test_a_question_answerer_is_load_tested(study, scored, capsys):
    arguments = ["--variant", "qa-student-fp32", "--protocol", "grpc", "--concurrency", "2"]
    arguments += ["--repository", str(study.parent / "repository")]
    arguments += ["--duration", "2", "--warmup", "0.4", "--json"]

    assert run_command(["load", str(study), *arguments]) in MEASURED

    result = json.loads(capsys.readouterr().out)
    assert result["requests"] > 0, result["reason"]
    assert result["failures"] == 0
