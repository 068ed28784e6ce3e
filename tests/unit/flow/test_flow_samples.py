"""A study's data is read once and encoded once for each tokenizer, however many models it has."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.flow import inputs as kept
from harness.flow.input_checks import check_inputs
from harness.flow.inputs import StudyInputs, tokenizer_fingerprint
from harness.flow.opening import open_families
from harness.flow.options import ignore_progress
from harness.study import Study
from harness.study.file import load_study, parse_study
from harness.tasks.loading import encode
from tests.local_study import LABELS, write_local_study
from tests.tiny_models import make_classifier

pytest.importorskip("transformers")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Five models: two as the teacher numbers its classes, one otherwise, one tokenizer apart."""
    document = json.loads(load_study(write_local_study(tmp_path)).model_dump_json())
    make_classifier(tmp_path / "turned", LABELS[::-1], seed=3)
    make_classifier(tmp_path / "other", LABELS, architecture="distilbert", seed=4)
    make_classifier(tmp_path / "twin", LABELS, seed=5)
    for name in ("own-student", "turned", "other", "twin"):
        shutil.copy(tmp_path / "teacher" / "tokenizer.json", tmp_path / name.removeprefix("own-"))
    document["families"][0]["models"] += [
        {"name": name, "role": "student", "checkpoint": str(tmp_path / name)}
        for name in ("turned", "other", "twin")
    ]
    return parse_study(document, source="test")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the data was read and encoded."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., object]:
        real = getattr(kept, name)

        def call(*args, **settings):
            counted[name] += 1
            return real(*args, **settings)

        return call

    for name in ("read_table", "encode"):
        monkeypatch.setattr(kept, name, counting(name))
    return counted


def test_five_models_are_checked_and_opened_with_one_reading_of_the_data(study, calls):
    inputs = StudyInputs()
    check_inputs(study, inputs)
    assert calls == {"read_table": 1, "encode": 3}  # BERT's, its turned labels, DistilBERT's
    (family,) = open_families(study, study.families, ignore_progress, inputs=inputs)
    assert calls == {"read_table": 1, "encode": 3}
    assert [len(one.samples.texts) for one in family.models] == [60] * 5
    by_name = {one.model.name: one for one in family.models}
    assert by_name["twin"].dataset is by_name["own-teacher"].dataset
    assert list(by_name["turned"].dataset.labels) == [
        2 - label for label in by_name["own-teacher"].dataset.labels
    ]


def test_what_is_kept_is_what_each_model_would_have_encoded_alone(study):
    inputs = StudyInputs()
    check_inputs(study, inputs)
    (family,) = open_families(study, study.families, ignore_progress, inputs=inputs)
    for one in family.models:
        alone = encode(family.family.task, one.samples, one.checkpoint.folder)
        assert one.dataset.digest == alone.digest
        assert list(one.dataset.labels) == list(alone.labels)
        assert one.dataset.label_names == alone.label_names


def test_the_rows_that_were_checked_are_those_that_are_used(study, tmp_path):
    inputs = StudyInputs()
    check_inputs(study, inputs)
    (tmp_path / "test.csv").write_text("sentence,kind\nanother,code\n")
    (family,) = open_families(study, study.families, ignore_progress, inputs=inputs)
    assert len(family.models[0].samples.texts) == 60


def test_the_whole_file_is_not_kept_once_the_models_have_their_samples(study):
    inputs = StudyInputs()
    check_inputs(study, inputs)
    assert inputs._table is None


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer_config.json", {"model_max_length": 63}),
        ("tokenizer.json", {"truncation": None, "added": 1}),
        ("config.json", {"type_vocab_size": 1}),
        ("config.json", {"vocab_size": 7}),
        ("config.json", {"model_type": "distilbert"}),
    ],
)
def test_a_tokenizer_that_may_differ_has_another_fingerprint(tmp_path, file, change):
    folder = make_classifier(tmp_path / "model", LABELS)
    before = tokenizer_fingerprint(folder)
    document = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(document | change))
    assert tokenizer_fingerprint(folder) != before


def test_a_model_of_another_size_has_the_same_fingerprint(tmp_path):
    folder = make_classifier(tmp_path / "model", LABELS)
    before = tokenizer_fingerprint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    (folder / "model.safetensors").write_bytes(b"others")
    assert tokenizer_fingerprint(folder) == before
