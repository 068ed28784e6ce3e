"""Several labels, and a number, a row, of models that an external server has."""

import json

import numpy as np
import pytest
import sklearn.metrics
import yaml
from mlserver_rig import mlserver
from scipy import special, stats

from harness.cli.main import run_command
from harness.errors import EXIT_OK
from harness.runs.folder import read_run
from tests.row_studies import (
    THRESHOLD,
    TOPICS,
    texts,
    write_multi_label_study,
    write_regression_study,
)

WEIGHTS = {
    "topics-teacher-fp32": (0.02, -0.01, 0.03, -0.05),
    "topics-student-fp32": (0.01, 0.02, -0.02, -0.05),
    "grades-teacher-fp32": (0.1,),
    "grades-student-fp32": (-0.3,),
}
"""What the server's models multiply the sum of a row's token ids by, modulo 97."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Both families in one study, of models in single precision."""
    folder = tmp_path_factory.mktemp("study")
    documents = []
    for name, write in (("topics", write_multi_label_study), ("grades", write_regression_study)):
        (folder / name).mkdir()
        document = yaml.safe_load(write(folder / name).read_text())
        (family,) = document["families"]
        family["ensemble"] = False
        family["task"]["data"]["path"] = f"{name}/{family['task']['data']['path']}"
        for model in family["models"]:
            model["checkpoint"] = f"./{name}/{model['checkpoint'][2:]}"
            model["precisions"] = ["fp32"]
        documents.append(document)
    first, second = documents
    path = folder / "study.yaml"
    families = [*first["families"], *second["families"]]
    path.write_text(yaml.safe_dump({**first, "objective": "p95 < 500 ms", "families": families}))
    return path


@pytest.mark.timeout(900)  # the environment is made on first use
def test_models_of_any_server_are_scored_by_what_they_answer(study, tmp_path):
    import transformers

    out = tmp_path / "run"
    with mlserver(tmp_path, WEIGHTS) as urls:
        command = ["evaluate", str(study), "--url", urls["http"], "--out", str(out)]
        assert run_command(command) == EXIT_OK

    def logits_of(name):
        """What the server answers to the tokens of the model's own tokenizer."""
        family, role, _ = name.split("-")
        tokenizer = transformers.AutoTokenizer.from_pretrained(study.parent / family / role)
        encoded = tokenizer(texts(), truncation=True, max_length=24)["input_ids"]
        totals = np.array([sum(ids) % 97 for ids in encoded], np.float64)
        return totals[:, None] * np.array(WEIGHTS[name], np.float32)

    scores = {(one.variant, one.metric): one.value for one in read_run(out).scores}
    rows = [json.loads(r) for r in (study.parent / "topics/topics.jsonl").read_text().splitlines()]
    truth = np.array([[name in row["labels"] for name in TOPICS] for row in rows])
    given = special.expit(logits_of("topics-teacher-fp32")) >= THRESHOLD
    rows = [json.loads(r) for r in (study.parent / "grades/grades.jsonl").read_text().splitlines()]
    grades = np.array([row["label"] for row in rows])
    numbers = logits_of("grades-student-fp32")[:, 0]
    assert scores["topics-teacher-fp32", "micro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(truth, given, average="micro")
    )
    assert scores["grades-student-fp32", "pearson"] == pytest.approx(
        stats.pearsonr(grades, numbers).statistic, abs=1e-5
    )
    assert scores["grades-student-fp32", "mae"] == pytest.approx(
        np.abs(grades - numbers).mean(), rel=1e-5
    )
