"""Rows of our tables from lm-eval's samples."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lm_eval.api import metrics

from harness.quality.lm_eval.evaluation import read_samples, write_results
from harness.quality.lm_eval.scores import task_scores
from harness.types import ModelFormat, ModelVariant, Precision, Role

TASK = SimpleNamespace(
    task_name="t",
    aggregation=lambda: {
        "acc": metrics.mean,
        "f1": metrics.f1_score,
        "word_perplexity": metrics.weighted_perplexity,
    },
)


def variant(role: Role) -> ModelVariant:
    return ModelVariant(
        "lm-fp32", "texts", role, "causal-lm", ModelFormat.ONNX, Precision.FP32,
        "lm", "digest", Path(), (), (), 1, 1,
    )  # fmt: skip


def samples(metric: str, values, name: str = "none") -> list[dict]:
    return [
        {"doc_id": number, "filter": name, "metrics": [] if value is None else [metric],
         metric: value}
        for number, value in enumerate(values)
    ]  # fmt: skip


def scores(own, teacher, role: Role = Role.STUDENT):
    return task_scores(
        TASK, own, variant=variant(role), teacher_samples=teacher, outcomes_file="f", seed=1
    )


def test_a_share_is_paired_with_the_teachers() -> None:
    own, teacher = [1.0] * 60 + [0.0] * 40, [1.0] * 80 + [0.0] * 20

    (score,) = scores(samples("acc", own), samples("acc", teacher))

    assert score.metric == "t/acc"
    assert score.value == 0.6
    assert score.low < 0.6 < score.high
    assert score.relative_to_teacher == pytest.approx(0.75)
    assert score.p_value is not None
    assert score.p_value < 1e-4


def test_the_teacher_is_its_own_measure() -> None:
    own = samples("acc", [1.0, 0.0, 1.0])

    (score,) = scores(own, own, Role.TEACHER)

    assert (score.relative_to_teacher, score.p_value) == (1, None)


def test_a_perplexity_is_lm_evals_own_with_an_interval_around() -> None:
    rng = np.random.default_rng(0)
    own = [[-float(words) * 5 * rng.uniform(0.8, 1.2), words] for words in range(5, 65)]

    (score,) = scores(samples("word_perplexity", own, "strip"), [])

    assert score.metric == "t/word_perplexity,strip"
    assert score.value == pytest.approx(metrics.weighted_perplexity(own))
    assert score.low < score.value < score.high
    assert score.relative_to_teacher is None


@pytest.mark.parametrize(("missing", "told"), [(1, True), (3, False)])
def test_few_unanswered_texts_are_left_out_and_many_leave_no_score(
    missing: int, told: bool
) -> None:
    own = [None] * missing + [[-10.0, 5]] * (200 - missing)

    found = scores(samples("word_perplexity", own), samples("word_perplexity", own))

    assert [score.samples for score in found] == ([200 - missing] if told else [])


def test_twenty_right_documents_are_not_known_to_be_all() -> None:
    right = [1.0] * 20

    (score,) = scores(samples("acc", right), samples("acc", right))

    assert (score.low, score.high) == (pytest.approx(0.8316, abs=1e-4), 1.0)
    assert score.relative_low == pytest.approx(0.832, abs=0.005)
    assert score.relative_high == pytest.approx(1.2025, abs=0.01)
    assert (score.standard_error, score.relative_standard_error) == (0.0, 0.0)


def test_what_is_no_function_of_sums_has_a_width_without_an_error_too() -> None:
    """Binary F1 of (truth, answer): all right on twenty documents."""
    own = [(number % 2, number % 2) for number in range(20)]

    (score,) = scores(samples("f1", own), samples("f1", own))

    assert score.value == score.high == 1
    assert 0.7 < score.low < 0.95
    assert score.relative_low < 0.95
    assert score.relative_high > 1.05


def test_a_single_text_has_a_perplexity_and_no_interval() -> None:
    (score,) = scores(samples("word_perplexity", [[-20.0, 5]]), [])

    assert score.value == pytest.approx(np.exp(4))
    assert (score.low, score.high, score.units) == (None, None, 1)


def test_samples_are_read_back_whatever_characters_their_texts_hold(tmp_path):
    """U+2028, U+2029 and U+0085 end a line to Unicode, and none of JSON lines."""
    rows = [
        {"doc_id": 0, "doc": {"text": "a\u2028b\u2029c\x85d\x0be\r\nf"}, "acc": 1.0},
        {"doc_id": 1, "doc": {"text": "NaN"}, "acc": 0.0},
    ]
    files = write_results(tmp_path, "t", {"samples": {"t": rows, "none": []}})
    assert read_samples(files["t"]) == rows
    assert read_samples(files["none"]) == []
