"""Scores through a real Triton are those of the model itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import endpoint_models
import numpy as np
import pytest
from endpoint_models import CLASSES, EMBEDDING, LOG_PROBABILITY, VOCABULARY
from numpy.typing import NDArray

from harness.errors import ServerError
from harness.quality.collection import collect_outcomes, read_outcomes, write_outcomes
from harness.quality.losses import batch_consistency
from harness.quality.scores import score
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.tasks.causal_lm.rows import WindowDataset
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.encoding import EncodedDataset, EncodedGroup, fields_of
from harness.types import ModelVariant, Progress

pytestmark = pytest.mark.triton

ROWS = 120
LENGTHS = (6, 12)


@dataclass(frozen=True)
class Served:
    client: TritonClient
    classifier: ModelVariant
    scaled: ModelVariant
    speaker: ModelVariant


@pytest.fixture(scope="module")
def served(
    server_environment: ServerEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("quality")
    repository = folder / "repository"
    variants = (
        endpoint_models.classifier(repository),
        endpoint_models.batch_scaled(repository),
        endpoint_models.language_model(repository),
    )
    with (
        EmbeddedTriton(server_environment, repository, log_file=folder / "log") as server,
        TritonClient(server.endpoint) as client,
    ):
        for variant in variants:
            client.load(variant.name)
        yield Served(client, *variants)


def quiet(step: Progress) -> None:
    """Nobody looks at the progress here."""


def split(*, language: bool = False) -> EncodedDataset:
    """Two lengths, right-padded; labels are what the model says of every row but each fourth."""
    rng = np.random.default_rng(1)
    length_of = rng.integers(len(LENGTHS), size=ROWS)
    groups = []
    labels = np.zeros(ROWS, dtype=np.int64)
    for number, length in enumerate(LENGTHS):
        rows = np.flatnonzero(length_of == number)
        real = rng.integers(2, length + 1, size=len(rows))
        mask = (np.arange(length) < real[:, None]).astype(np.int64)
        ids = rng.integers(VOCABULARY, size=mask.shape) * mask
        groups.append(EncodedGroup(inputs={"input_ids": ids, "attention_mask": mask}, rows=rows))
        labels[rows] = _logits(ids, mask).argmax(axis=1)
    labels[::4] = (labels[::4] + 1) % len(CLASSES)
    encoded = EncodedDataset(
        groups=tuple(groups), size=ROWS, truncated=0, padding_share=0.0, digest="", pad_token_id=0
    )
    if language:
        return WindowDataset(
            **fields_of(encoded),
            byte_counts=rng.integers(10, 60, size=ROWS),
            word_counts=np.zeros(ROWS, dtype=np.int64),
            windows=tuple((row, 0, 1) for row in range(ROWS)),
        )
    return LabelledDataset(
        **fields_of(encoded), labels=labels, label_names=CLASSES, class_names=CLASSES
    )


def _logits(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    return (EMBEDDING[ids] * mask[:, :, None]).sum(axis=1)


def test_accuracy_is_the_models_own(served: Served) -> None:
    data = split()

    outcomes = collect_outcomes(
        served.classifier, data, served.client, batch_size=8, progress=quiet
    )
    scores = score(outcomes, data, variant=served.classifier, teacher=outcomes, seed=1)

    assert not outcomes.unanswered.any()
    assert outcomes.correct is not None
    assert np.array_equal(outcomes.correct, np.arange(ROWS) % 4 != 0)
    assert {item.metric for item in scores} == {"accuracy", "macro_f1", "label_perplexity"}
    assert scores[0].value == 0.75
    assert scores[0].sha256 == "digest of classifier"
    assert scores[0].relative_to_teacher == 1


def test_perplexity_is_the_models_own(served: Served, tmp_path: Path) -> None:
    data = split(language=True)

    outcomes = collect_outcomes(served.speaker, data, served.client, batch_size=8, progress=quiet)
    write_outcomes(tmp_path / "speaker.parquet", outcomes, data)
    scores = score(
        read_outcomes(tmp_path / "speaker.parquet"),
        data,
        variant=served.speaker,
        teacher=None,
        seed=1,
    )

    nats, tokens = 0.0, 0
    for group in data.groups:
        scored = group.inputs["attention_mask"].astype(bool)
        scored[:, 0] = False
        nats -= float(LOG_PROBABILITY[group.inputs["input_ids"]][scored].sum(dtype=np.float64))
        tokens += int(scored.sum())
    assert data.byte_counts is not None
    found = {item.metric: item.value for item in scores}
    assert found["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-12)
    bits = nats / math.log(2) / int(data.byte_counts.sum())
    assert found["bits_per_byte"] == pytest.approx(bits, rel=1e-12)


@pytest.mark.parametrize("name", ["classifier", "scaled", "speaker"])
def test_scores_repeat_to_the_last_digit(served: Served, name: str) -> None:
    """With the model's own largest batch, even for one whose rows touch each other."""
    variant: ModelVariant = getattr(served, name)
    data = split(language=name == "speaker")

    first, second = (
        score(
            collect_outcomes(variant, data, served.client, batch_size=8, progress=quiet),
            data,
            variant=variant,
            teacher=None,
            seed=20,
        )
        for _ in range(2)
    )

    assert first == second


def test_batch_sizes_change_nothing_or_are_shown(served: Served) -> None:
    data = split()

    alike, scaled = (
        batch_consistency(variant, data, served.client, batch_sizes=(1, 4, 8), samples=60)
        for variant in (served.classifier, served.scaled)
    )

    assert all(item.changed_predictions == 0 for item in (*alike, *scaled))
    assert all(item.max_abs_difference < 1e-5 for item in alike)
    assert scaled[0].max_abs_difference == 0
    assert scaled[1].max_abs_difference > 0.01
    assert scaled[2].max_abs_difference > 0.01


def test_tokens_are_the_same_at_every_batch_size(served: Served) -> None:
    found = batch_consistency(
        served.speaker, split(language=True), served.client, batch_sizes=(4, 8), samples=60
    )

    assert [(item.changed_predictions, item.max_abs_difference) for item in found] == [(0, 0)] * 2


def test_rows_the_model_cannot_answer_are_counted(served: Served) -> None:
    """A token id that the embedding lacks fails its request; its rows count as wrong."""
    data = split()
    data.groups[0].inputs["input_ids"][0, 0] = 10**6
    notes: list[Progress] = []

    outcomes = collect_outcomes(
        served.classifier, data, served.client, batch_size=1, progress=notes.append
    )

    assert np.flatnonzero(outcomes.unanswered).tolist() == [data.groups[0].rows[0]]
    assert "1 of 120 rows unanswered" in notes[-1].note


def test_a_model_that_is_not_loaded_is_tritons_word(served: Served) -> None:
    with pytest.raises(ServerError, match=r"answered none of 120 rows.*absent"):
        collect_outcomes(
            replace(served.classifier, name="absent"),
            split(),
            served.client,
            batch_size=8,
            progress=quiet,
        )
