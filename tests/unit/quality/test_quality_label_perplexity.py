"""The perplexity of a classifier's label: torch's cross entropy, in logarithms, paired."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from harness.quality.scores import score
from harness.tasks.classification.outcomes import NO_PREDICTION, ClassOutcomes
from harness.types import QualityScore
from tests.unit.quality.quality_samples import variant
from tests.unit.quality.test_quality_scores import by_metric, labelled_split

NAMES = ("a", "b", "c", "d")
ROWS = 400
RNG = np.random.default_rng(3)
LABELS = RNG.integers(4, size=ROWS)


def logits_of(seed: int, sure: float) -> np.ndarray:
    """Logits that favour the label by so much, with noise."""
    noise = np.random.default_rng(seed).normal(size=(ROWS, 4))
    return (noise + sure * np.eye(4)[LABELS]).astype(np.float32)


def outcomes_of(
    logits: np.ndarray, name: str = "student", names: tuple[str, ...] = NAMES, labels=LABELS
) -> ClassOutcomes:
    missing = np.isnan(logits).any(axis=1)
    predictions = np.where(missing, NO_PREDICTION, np.where(missing[:, None], 0, logits).argmax(1))
    return ClassOutcomes(
        variant=name,
        sha256=name,
        unanswered=missing,
        predictions=predictions,
        correct=predictions == labels,
        logits=logits,
        label_names=names,
    )


def scored(student: ClassOutcomes, teacher: ClassOutcomes | None, **split) -> QualityScore | None:
    data = labelled_split(split.get("labels", LABELS), split.get("names", NAMES))
    found = score(student, data, variant=variant(), teacher=teacher, seed=1)
    return by_metric(found).get("label_perplexity")


def by_torch(logits: np.ndarray, rows=slice(None)) -> float:
    """exp of torch's own cross entropy."""
    loss = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits[rows]).double(), torch.from_numpy(LABELS[rows])
    )
    return math.exp(loss.item())


def test_it_is_the_exponential_of_torchs_cross_entropy_with_interval_and_relation():
    own, theirs = logits_of(1, 2.0), logits_of(2, 3.0)
    found = scored(outcomes_of(own), outcomes_of(theirs, "teacher"))
    assert found.value == pytest.approx(by_torch(own), rel=1e-6)
    assert found.low < found.value < found.high
    assert found.relative_to_teacher == pytest.approx(by_torch(own) / by_torch(theirs), rel=1e-6)
    assert found.relative_low < found.relative_to_teacher < found.relative_high
    assert found.relative_low > 1  # the teacher is surer of the right class, and it shows
    assert found.p_value is None
    assert found.samples == ROWS


def test_a_model_that_numbers_the_classes_otherwise_is_held_to_their_names():
    turned = [2, 0, 3, 1]
    own, theirs = logits_of(1, 2.0), logits_of(2, 3.0)
    place = np.argsort(turned)
    student = outcomes_of(
        own[:, turned], names=tuple(NAMES[one] for one in turned), labels=place[LABELS]
    )
    found = scored(
        student,
        outcomes_of(theirs, "teacher"),
        labels=place[LABELS],
        names=tuple(NAMES[one] for one in turned),
    )
    assert found.value == pytest.approx(by_torch(own), rel=1e-6)
    assert found.relative_to_teacher == pytest.approx(by_torch(own) / by_torch(theirs), rel=1e-6)


def test_a_probability_that_is_zero_in_floating_point_has_a_logarithm():
    logits = np.zeros((ROWS, 4), np.float32)
    logits[0, LABELS[0]] = -2000.0  # exp(-2000) is 0 in float64
    found = scored(outcomes_of(logits), None)
    nats = ((ROWS - 1) * math.log(4) + 2000.0 + math.log(3)) / ROWS
    assert found.value == pytest.approx(math.exp(nats), rel=1e-9)


def test_a_class_that_is_ruled_out_makes_the_perplexity_the_largest_there_is():
    logits = logits_of(1, 2.0)
    logits[0, LABELS[0]] = -np.inf
    found = scored(outcomes_of(logits), None)
    assert found.value == pytest.approx(math.exp(700.0))


def test_unanswered_rows_are_left_out_and_many_of_them_leave_nothing_to_tell():
    logits = logits_of(1, 2.0)
    few, many = logits.copy(), logits.copy()
    few[:4], many[:5] = np.nan, np.nan
    theirs = outcomes_of(logits_of(2, 3.0), "teacher")
    found = scored(outcomes_of(few), theirs)
    assert found.value == pytest.approx(by_torch(logits, slice(4, None)), rel=1e-6)
    assert found.relative_to_teacher is None  # the teacher answered other rows
    same = outcomes_of(np.where(np.isnan(few), np.nan, theirs.logits), "teacher")
    expected = by_torch(logits, slice(4, None)) / by_torch(theirs.logits, slice(4, None))
    assert scored(outcomes_of(few), same).relative_to_teacher == pytest.approx(expected, rel=1e-6)
    assert scored(outcomes_of(many), theirs) is None


def test_what_answers_with_labels_alone_has_none():
    own = outcomes_of(logits_of(1, 2.0))
    bare = {one.name: getattr(own, one.name) for one in dataclasses.fields(own)}
    from harness.tasks.classification.outcomes import LabelOutcomes

    bare = {key: value for key, value in bare.items() if key not in {"logits", "label_names"}}
    assert scored(LabelOutcomes(**bare), None) is None
