"""The gate on several labels, and on a number, a row: what passes and what fails is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.errors import ParityError
from harness.export.parity import check_parity
from harness.tasks.registry import family_of
from harness.types import Precision

ROWS = 64
MULTI, NUMBER = family_of("multi-label-classification"), family_of("regression")


class Answers:
    """An artefact that answers every probe with these logits."""

    def __init__(self, logits):
        self.logits = logits

    def run(self, inputs):
        return [self.logits]


def scores(labels, spread=2.0):
    drawn = spread * np.random.default_rng(3).normal(size=(ROWS, labels))
    return drawn.astype(np.float32)


def probe_of(family, values):
    ids = np.ones((len(values), 3), dtype=np.int64)
    tensor = torch.from_numpy(values)
    return family.probe({"input_ids": ids, "attention_mask": ids}, tensor, (tensor,))


def check(family, values, answered, precision):
    return check_parity(Answers(answered), family, [probe_of(family, values)], precision, "m")


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize(("family", "labels"), [(MULTI, 5), (MULTI, 1), (NUMBER, 1)])
def test_the_same_answers_pass(family, labels, precision):
    values = scores(labels)

    parity = check(family, values, values.copy(), precision)

    assert (parity.max_difference, parity.agreement) == (0.0, 1.0)


def test_each_label_is_a_choice_of_its_own_and_a_number_is_none():
    values = scores(5)
    parity = check(MULTI, values, values, Precision.FP32)
    number = check(NUMBER, scores(1), scores(1), Precision.FP32)

    assert parity.clear_predictions == (np.abs(values) > 2e-4).sum()
    assert number.clear_predictions == 0


@pytest.mark.parametrize("precision", list(Precision))
def test_labels_in_another_order_and_a_number_upside_down_are_refused(precision):
    values, numbers = scores(5), scores(1)

    with pytest.raises(ParityError, match="m disagrees"):
        check(MULTI, values, values[:, ::-1].copy(), precision)
    with pytest.raises(ParityError, match="m disagrees"):
        check(NUMBER, numbers, -numbers, precision)


def test_an_offset_of_all_labels_counts_unlike_with_a_softmax():
    values = scores(5)

    with pytest.raises(ParityError, match="m disagrees"):
        check(MULTI, values, values + 1.0, Precision.INT8)
    with pytest.raises(ParityError, match="m disagrees"):
        check(NUMBER, scores(1), scores(1) + 1.0, Precision.INT8)


def test_rounding_passes_and_more_does_not():
    values = scores(1)

    check(NUMBER, values, values + 1e-5, Precision.FP32)
    with pytest.raises(ParityError, match="largest difference"):
        check(NUMBER, values, values + 1e-3, Precision.FP32)
    noise = 0.1 * np.random.default_rng(1).normal(size=values.shape).astype(np.float32)
    assert check(NUMBER, values, values + noise, Precision.INT8).relative_rms < 0.1


def test_vectors_that_are_refused_are_told_by_their_cosines():
    family = family_of("sentence-embedding")
    values = np.eye(4, dtype=np.float32)
    turned = np.roll(values, 1, axis=1)
    turned[:3] = values[:3]  # of four, one is at a right angle
    with pytest.raises(ParityError, match=r"mean cosine of 0\.7500 .* the lowest 0\.0000, over 4"):
        check(family, values, turned, Precision.INT8)
