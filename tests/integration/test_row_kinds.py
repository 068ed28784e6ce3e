"""Several labels, and a number, a row: exported, served, scored as the bare library is, and run."""

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from scipy import special, stats

from harness.cli.main import run_command
from harness.errors import (
    EXIT_ENVIRONMENT,
    EXIT_OBJECTIVE_NOT_MET,
    EXIT_OK,
    EXIT_UNDECIDED,
)
from harness.runs.folder import read_run
from tests.held_up import unhurried
from tests.row_studies import (
    STUDENTS_ORDER,
    THRESHOLD,
    TOPICS,
    bare_logits,
    texts,
    write_multi_label_study,
    write_regression_study,
)

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment")]

MEASURED = {EXIT_OK, EXIT_OBJECTIVE_NOT_MET, EXIT_UNDECIDED, EXIT_ENVIRONMENT}
"""A busy machine makes a trial invalid, with a reason; what was scored must be right even so."""


def run_of(study):
    folder = study.parent / "run"
    repository = ["--repository", str(study.parent / "repository")]
    with unhurried():
        assert run_command(["run", str(study), "--out", str(folder), *repository]) in MEASURED
    return folder


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """The run folder of a multi-label study."""
    return run_of(write_multi_label_study(tmp_path_factory.mktemp("topics")))


@pytest.fixture(scope="module")
def grades(tmp_path_factory):
    """The run folder of a regression."""
    return run_of(write_regression_study(tmp_path_factory.mktemp("grades")))


def scores_of(folder):
    return {(one.variant, one.metric): one for one in read_run(folder).scores}


def outcomes_of(folder, variant):
    return pd.read_parquet(folder / "samples" / f"{variant}.parquet")


def topics_of(study):
    """The right labels, in the teacher's order, (rows, labels)."""
    rows = [json.loads(line) for line in (study / "topics.jsonl").read_text().splitlines()]
    return np.array([[name in row["labels"] for name in TOPICS] for row in rows])


def test_labels_are_the_bare_librarys_at_the_studys_threshold(topics):
    truth = topics_of(topics.parent)
    scores = scores_of(topics)
    order = {"teacher": (0, 1, 2, 3), "student": STUDENTS_ORDER}
    values = {}
    for role, outputs in order.items():
        probabilities = special.expit(bare_logits(topics.parent / role, texts()))
        assert np.abs(probabilities - THRESHOLD).min() > 1e-4  # none is a matter of rounding
        given = probabilities >= THRESHOLD
        stored = outcomes_of(topics, f"topics-{role}-fp32")
        np.testing.assert_array_equal(np.stack(stored.given), given)
        np.testing.assert_array_equal(np.stack(stored.labels), truth[:, outputs])
        values[role] = {
            "micro_f1": sklearn.metrics.f1_score(truth[:, outputs], given, average="micro"),
            "macro_f1": sklearn.metrics.f1_score(truth[:, outputs], given, average="macro"),
            "subset_accuracy": sklearn.metrics.accuracy_score(truth[:, outputs], given),
        }
        for metric, value in values[role].items():
            found = scores[f"topics-{role}-fp32", metric]
            assert found.value == pytest.approx(value)
            assert found.low < found.value < found.high
    for metric in values["teacher"]:
        kept = scores["topics-student-fp32", metric]
        share = values["student"][metric] / values["teacher"][metric]
        assert kept.relative_to_teacher == pytest.approx(share)
        assert kept.relative_low < share < kept.relative_high


def test_an_int8_student_is_gated_and_scored(topics):
    run = read_run(topics)
    assert {one.name for one in run.variants if not one.ensemble_of} == {
        "topics-teacher-fp32", "topics-student-fp32", "topics-student-int8",
    }  # fmt: skip
    assert not run.failed
    agreement = next(
        one
        for one in run.pairs
        if (one.variant, one.measure) == ("topics-student-int8", "label_agreement")
    )
    assert agreement.value > 0.5


def test_numbers_are_the_bare_librarys(grades):
    folder = grades.parent
    rows = [json.loads(line) for line in (folder / "grades.jsonl").read_text().splitlines()]
    truth = np.array([row["label"] for row in rows])
    scores = scores_of(grades)
    values = {}
    for role in ("teacher", "student"):
        numbers = bare_logits(folder / role, texts())[:, 0]
        stored = outcomes_of(grades, f"grades-{role}-fp32")
        np.testing.assert_allclose(stored.prediction, numbers, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(stored.label, truth)
        values[role] = {
            "pearson": stats.pearsonr(truth, numbers).statistic,
            "spearman": stats.spearmanr(truth, numbers).statistic,
            "mae": sklearn.metrics.mean_absolute_error(truth, numbers),
            "rmse": sklearn.metrics.root_mean_squared_error(truth, numbers),
        }
        for metric, value in values[role].items():
            found = scores[f"grades-{role}-fp32", metric]
            assert found.value == pytest.approx(value, rel=1e-3)
            assert found.low < found.value < found.high
    for metric in values["teacher"]:
        kept = scores["grades-student-fp32", metric]
        share = values["student"][metric] / values["teacher"][metric]
        assert kept.relative_to_teacher == pytest.approx(share, rel=1e-3)
        assert kept.relative_low < share < kept.relative_high
    change = next(
        one
        for one in read_run(grades).pairs
        if (one.variant, one.measure) == ("grades-student-fp32", "mae_change")
    )
    assert change.value == pytest.approx(
        values["student"]["mae"] - values["teacher"]["mae"], abs=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "titles"),
    [
        ("topics", ("Micro-F1", "Macro-F1", "Subset accuracy", "same label")),
        ("grades", ("Pearson", "Spearman", "MAE", "RMSE")),
    ],
)
def test_the_run_decides_by_the_metrics_and_its_report_names_them(request, kind, titles):
    folder = request.getfixturevalue(kind)
    run = read_run(folder)
    assert len(run.trials) >= 1
    verdict = json.loads((folder / "verdict.json").read_text())
    assert "of teacher" in verdict["slo"]
    losses = {one.variant: one for one in run.losses}
    chain = losses[f"{kind}-student-fp32"].chain
    assert chain is not None, losses[f"{kind}-student-fp32"].problem
    assert [link.step for link in chain.links] == [
        "teacher", "distillation", "export", "serving", "batching",
    ]  # fmt: skip
    page = (folder / "report.html").read_text()
    for title in titles:
        assert title.lower() in page.lower()


def test_a_load_on_each_kind_is_answered_without_failure(topics, capsys):
    arguments = ["--variant", "topics-student-fp32", "--protocol", "grpc", "--concurrency", "2"]
    arguments += ["--repository", str(topics.parent / "repository")]
    arguments += ["--duration", "1", "--warmup", "0.3", "--json"]
    capsys.readouterr()

    assert run_command(["load", str(topics.parent / "topics.yaml"), *arguments]) in MEASURED

    result = json.loads(capsys.readouterr().out)
    assert result["requests"] > 0, result["reason"]
    assert result["failures"] == 0


def test_texts_in_get_the_labels_of_the_model_alone_by_name(topics):
    scores = scores_of(topics)
    for role in ("teacher", "student"):
        alone = outcomes_of(topics, f"topics-{role}-fp32")
        whole = outcomes_of(topics, f"topics-{role}-fp32-ensemble")
        np.testing.assert_array_equal(np.stack(whole.given), np.stack(alone.given))
        for metric in ("micro_f1", "macro_f1", "subset_accuracy"):
            found = scores[f"topics-{role}-fp32-ensemble", metric]
            expected = scores[f"topics-{role}-fp32", metric]
            assert found.value == expected.value
            assert found.relative_to_teacher == pytest.approx(expected.relative_to_teacher)


def test_texts_in_get_the_number_of_the_model_alone(grades):
    for role in ("teacher", "student"):
        alone = outcomes_of(grades, f"grades-{role}-fp32")
        whole = outcomes_of(grades, f"grades-{role}-fp32-ensemble")
        np.testing.assert_allclose(whole.prediction, alone.prediction, rtol=1e-5)
    found = scores_of(grades)["grades-student-fp32-ensemble", "pearson"]
    assert found.value == pytest.approx(
        scores_of(grades)["grades-student-fp32", "pearson"].value, rel=1e-4
    )
