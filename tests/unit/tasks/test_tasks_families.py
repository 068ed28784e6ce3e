"""What a new kind of task takes: a family and its registration, and the whole harness asks it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import word_piece_tokenizer
from transformers import BertConfig

from harness.errors import DataError
from harness.export.checkpoint_files import config_problems, family_for
from harness.quality.collection import collect_outcomes, read_outcomes, write_outcomes
from harness.quality.losses import Slicing, batch_consistency, loss_chain, slice_losses
from harness.quality.scores import score
from harness.tasks import registry
from harness.tasks.loading import encode, load_samples
from harness.tasks.losses import Step
from harness.tasks.registry import FAMILIES, family_of, family_of_checkpoint
from harness.tasks.section import JsonLinesData
from harness.types import Role, TensorSpec
from tests.samples import sample_variant
from tests.toy_family import CountDataset, CountFamily, CountSection

ROWS = 40
WRONG = np.arange(ROWS) % 4 == 0


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> CountFamily:
    family = CountFamily()
    monkeypatch.setattr(registry, "FAMILIES", [*FAMILIES, family])
    return family


@pytest.fixture
def task(toy: CountFamily, tmp_path: Path) -> CountSection:
    """Texts of one to five words, and as many tokens with [CLS] and [SEP]."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": " ".join(["fox"] * (1 + row % 5)), "count": 3 + row % 5, "half": str(row // 20)}
        for row in range(ROWS)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    data = JsonLinesData(source="jsonl", path=path)
    return CountSection(kind="toy-count", data=data, slices=["half"])


@pytest.fixture
def dataset(task: CountSection, tmp_path: Path) -> CountDataset:
    word_piece_tokenizer().save_pretrained(tmp_path / "tokenizer")
    encoded = encode(task, load_samples(task, seed=0, label_names=None), tmp_path / "tokenizer")
    assert isinstance(encoded, CountDataset)
    return encoded


class Counter:
    """Counts the real tokens; wrong by one where it is told to be."""

    def __init__(self, split: CountDataset, wrong: NDArray[np.bool_]) -> None:
        order = np.concatenate([group.rows for group in split.groups])
        self._off, self._asked = wrong[order], 0

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        rows = np.arange(self._asked, self._asked + len(inputs["input_ids"])) % len(self._off)
        self._asked += len(rows)
        off = self._off[rows]
        return {"count": (inputs["attention_mask"].sum(axis=1) + off)[:, None].astype(np.float32)}


def toy_variant(name: str, role: Role) -> Any:
    tokens = tuple(TensorSpec(one, "INT64", (-1,)) for one in ("input_ids", "attention_mask"))
    return dataclasses.replace(
        sample_variant(name, role),
        task="toy-count",
        inputs=tokens,
        outputs=family_of("toy-count").outputs(1),
    )


def collected(split: CountDataset, name: str, role: Role, wrong: NDArray[np.bool_]) -> Any:
    """One request at a time, so that the counter knows which row it is asked."""
    return collect_outcomes(
        toy_variant(name, role),
        split,
        Counter(split, wrong),
        batch_size=1,
        in_flight=1,
        progress=lambda step: None,
    )


def test_its_rows_are_read_and_encoded_and_its_columns_looked_for(
    task: CountSection, dataset: CountDataset
) -> None:
    assert dataset.counts.tolist() == [3 + row % 5 for row in range(ROWS)]
    for group in dataset.groups:
        real = group.inputs["attention_mask"].sum(axis=1)
        assert real.tolist() == dataset.counts[group.rows].tolist()
    missing = task.model_copy(update={"count": "length"})
    with pytest.raises(DataError, match=r"no column 'length' \(the task's 'count'\)"):
        load_samples(missing, seed=0, label_names=None)


def test_its_answers_are_collected_kept_scored_and_compared(
    dataset: CountDataset, tmp_path: Path
) -> None:
    none = np.zeros(ROWS, dtype=np.bool_)
    teacher = collected(dataset, "teacher-fp32", Role.TEACHER, none)
    student = collected(dataset, "student-fp32", Role.STUDENT, WRONG)
    assert student.correct.tolist() == (~WRONG).tolist()

    write_outcomes(tmp_path / "student.parquet", student, dataset, teacher=teacher)
    again = read_outcomes(tmp_path / "student.parquet")
    assert again.said.tolist() == student.said.tolist()

    (accuracy,) = score(
        again,
        dataset,
        variant=toy_variant("student-fp32", Role.STUDENT),
        teacher=teacher,
        seed=1,
    )
    assert (accuracy.metric, accuracy.value, accuracy.relative_to_teacher) == (
        "accuracy",
        0.75,
        0.75,
    )
    assert accuracy.p_value == pytest.approx(2 * 0.5**10)  # ten flips, all one way
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.low < 0.75 < accuracy.high


def test_its_losses_are_split_by_step_and_by_slice(dataset: CountDataset) -> None:
    teacher = collected(dataset, "teacher-fp32", Role.TEACHER, np.zeros(ROWS, dtype=np.bool_))
    student = collected(dataset, "student-fp32", Role.STUDENT, WRONG)
    chain = loss_chain([Step("teacher", teacher), Step("distillation", student)], seed=0)
    assert chain is not None
    assert [link.changed for link in chain.links] == [0, 10]
    assert chain.total.value == 0.25
    halves = Slicing("half", ("0", "1"), (np.arange(ROWS) // 20).astype(np.int64), None)
    found = slice_losses(student, teacher, [halves], seed=0)
    assert {one.name: one.loss.value for one in found} == {"0": 0.25, "1": 0.25}


def test_its_answers_are_compared_at_every_batch_size(dataset: CountDataset) -> None:
    none = np.zeros(ROWS, dtype=np.bool_)
    variant = toy_variant("teacher-fp32", Role.TEACHER)
    found = batch_consistency(
        variant, dataset, Counter(dataset, none), batch_sizes=(1, 4), samples=20
    )
    assert [(one.changed_predictions, one.max_abs_difference) for one in found] == [(0, 0)] * 2


def test_data_of_another_kind_is_refused_by_what_it_lacks(dataset: CountDataset) -> None:
    plain = dataclasses.replace(toy_variant("m", Role.TEACHER), task="sequence-classification")
    with pytest.raises(DataError, match="the test split has no labels"):
        collect_outcomes(
            plain,
            dataset,
            Counter(dataset, WRONG),
            batch_size=4,
            progress=lambda step: None,
        )


def test_its_checkpoints_are_known_by_their_architecture(
    toy: CountFamily, task: CountSection
) -> None:
    config = BertConfig(num_labels=3)
    config.architectures = ["BertForCounting"]
    assert family_of_checkpoint(config) is toy
    assert family_for(config, task) is toy
    assert not list(config_problems(config, toy))


def test_a_study_can_ask_for_it_once_it_is_registered(tmp_path: Path) -> None:
    """A study's sections are those of the registry, in the schema too."""
    code = """
from harness.tasks import registry
from tests.toy_family import CountFamily
registry.FAMILIES.append(CountFamily())
from harness.study import study_schema
from harness.study.file import parse_study
from tests.samples import sample_study
document = sample_study(objective="p95 < 50 ms")
document["families"][0]["task"]["kind"] = "toy-count"
study = parse_study(document, source="toy")
print(type(study.families[0].task).__name__, "CountSection" in study_schema()["$defs"])
"""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=Path(__file__).parents[3],
    )
    assert answer.stdout.split() == ["CountSection", "True"]


def test_every_family_says_all_that_the_harness_asks() -> None:
    kinds = [family.kind for family in FAMILIES]
    assert len(set(kinds)) == len(kinds)
    for family in FAMILIES:
        assert family.section.model_fields["kind"].annotation.__args__ == (family.kind,)
        assert family.lacking
        assert family.described
        names = [one.name for one in family.outputs(3)]
        assert len(set(names)) == len(names) > 0
