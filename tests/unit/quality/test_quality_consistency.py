"""The same answers at every batch size, or the difference shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from quality_samples import RuleEndpoint, classify, dataset, speak, variant

from harness.errors import ServerError
from harness.quality.losses import batch_consistency

LANGUAGE = variant("causal-lm")


def test_a_model_that_looks_at_each_row_alone_never_changes() -> None:
    found = batch_consistency(
        variant(), dataset(), RuleEndpoint(classify), batch_sizes=(1, 4, 8), samples=30
    )

    assert [item.batch_size for item in found] == [1, 4, 8]
    for item in found:
        assert item.samples == 30
        assert item.changed_predictions == 0
        assert item.max_abs_difference == 0


def test_only_the_first_rows_are_asked_each_at_every_size() -> None:
    endpoint = RuleEndpoint(classify)

    batch_consistency(variant(), dataset(), endpoint, batch_sizes=(4,), samples=10)

    asked = sorted(row for request in endpoint.requests for row in request)
    assert asked == sorted([*range(10), *range(10)])
    assert sum(len(request) == 1 for request in endpoint.requests) >= 10
    assert max(map(len, endpoint.requests)) <= 4


def test_a_model_whose_rows_touch_each_other_is_shown() -> None:
    """As int8 with scales over the batch: rows after the first are moved, and row 6 flips."""

    def touching(rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        logits = np.tile(np.array([1.0, 0.0, 0.0], np.float32), (len(rows), 1))
        if len(rows) > 1:
            logits[:, 0] -= 0.25
            logits[rows == 6, 1] = 2.0
        return {"logits": logits}

    found = batch_consistency(
        variant(), dataset(), RuleEndpoint(touching), batch_sizes=(1, 4), samples=40
    )

    assert found[0].changed_predictions == 0
    assert found[0].max_abs_difference == 0
    assert found[1].changed_predictions == 1
    assert found[1].max_abs_difference == pytest.approx(2.0)


def test_a_language_model_is_compared_without_its_padding() -> None:
    def noisy_padding(
        rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, Any]:
        outputs = speak(rows, inputs)
        padding = inputs["attention_mask"] == 0
        outputs["token_logprobs"] = np.where(padding, -len(rows), outputs["token_logprobs"])
        outputs["greedy_token_ids"] = np.where(padding, len(rows), outputs["greedy_token_ids"])
        return outputs

    split = dataset(language=True)

    (found,) = batch_consistency(
        LANGUAGE, split, RuleEndpoint(noisy_padding), batch_sizes=(8,), samples=40
    )

    assert found.changed_predictions == 0
    assert found.max_abs_difference == 0


def test_one_changed_token_changes_its_row() -> None:
    def changing(rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        outputs = speak(rows, inputs)
        if len(rows) > 1:
            outputs["greedy_token_ids"][rows == 3, 1] = 0
            outputs["token_logprobs"] = outputs["token_logprobs"] - np.float32(0.5)
        return outputs

    split = dataset(language=True)

    (found,) = batch_consistency(
        LANGUAGE, split, RuleEndpoint(changing), batch_sizes=(8,), samples=40
    )

    assert found.changed_predictions == 1
    assert found.max_abs_difference == pytest.approx(0.5)


def test_a_refused_batch_size_is_the_servers_word() -> None:
    endpoint = RuleEndpoint(classify, fails=lambda rows: len(rows) > 4)

    with pytest.raises(ServerError, match="refused"):
        batch_consistency(variant(), dataset(), endpoint, batch_sizes=(8,), samples=40)
