"""The reference models as they ship: the decision they set up must not hang on luck.

Trains everything once (minutes, in the user's cache, where the demo finds it too); chosen on the
validation split, judged here on the test split, in PyTorch, before any server is involved.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from harness.reference.build import ReferenceBundle, build_reference
from harness.reference.classifier import encode_rows, logits_of
from harness.reference.corpus import Split
from harness.reference.language_model import perplexity_of, windows
from harness.reference.recipes import RECIPES

DEMO_SEED = 20
"""As in studies/reference.yaml."""


# The first test waits for the training, where nobody has trained yet on this machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def bundle() -> ReferenceBundle:
    return build_reference(list(RECIPES), seed=DEMO_SEED, progress=lambda progress: None)


@pytest.fixture(scope="module")
def correct(bundle) -> Mapping[str, NDArray[np.bool_]]:
    """By classifier: which rows of the test split it gets right."""
    data = bundle.data["topics"].parent
    rows = encode_rows(data, Split.TEST)
    hits = {}
    for name in ("topics-teacher", "topics-student", "topics-tiny"):
        model = AutoModelForSequenceClassification.from_pretrained(bundle.checkpoints[name])
        hits[name] = (logits_of(model, rows).argmax(dim=1) == rows.labels).numpy()
    names = [json.loads(line)["label"] for line in bundle.data["topics"].open()]
    baseline = json.loads(bundle.baseline_predictions.read_text())
    hits["baseline"] = np.array(names) == np.array(baseline)
    return hits


@pytest.fixture(scope="module")
def perplexities(bundle) -> Mapping[str, float]:
    data = bundle.data["prose"].parent
    ids = windows(data, Split.TEST)
    names = ("prose-teacher", "prose-student", "prose-control")
    return {name: perplexity_of(load(bundle.checkpoints[name]), ids) for name in names}


def load(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder)


def retained(student: NDArray[np.bool_], teacher: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % bootstrap bounds of the student's share of the teacher's accuracy, paired by row."""
    draws = np.random.default_rng(0).integers(0, len(teacher), (4000, len(teacher)))
    shares = student[draws].mean(axis=1) / teacher[draws].mean(axis=1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def test_the_task_is_neither_trivial_nor_saturated(correct):
    assert 0.6 < correct["topics-teacher"].mean() < 0.95
    assert correct["baseline"].mean() < 0.95


def test_the_student_keeps_over_nine_tenths_with_room(correct):
    low, _ = retained(correct["topics-student"], correct["topics-teacher"])
    assert low > 0.92


def test_the_tiny_one_does_not_with_room(correct):
    _, high = retained(correct["topics-tiny"], correct["topics-teacher"])
    assert high < 0.88


def test_the_language_student_is_worse_than_its_teacher_but_within_twice(perplexities):
    share = perplexities["prose-student"] / perplexities["prose-teacher"]
    assert 1.05 < share < 1.8


def test_the_language_models_have_learnt_more_than_word_counts(perplexities):
    assert max(perplexities.values()) < 150


def test_the_control_is_the_student_without_its_teacher_at_the_same_cost(perplexities):
    student, control = RECIPES["prose-student"], RECIPES["prose-control"]
    assert (student.layers, student.hidden, student.heads, student.batch) == (
        control.layers,
        control.hidden,
        control.heads,
        control.batch,
    )
    assert control.teacher is None
    assert control.steps > 1.5 * student.steps
    assert math.isfinite(perplexities["prose-control"])
