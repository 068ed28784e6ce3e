"""One variant of a study alone: what `harness load` and `harness profile` look at.

That it is exported as in the whole study: tests/integration/test_export_local_study.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.flow.input_checks import check_inputs
from harness.flow.inputs import StudyInputs
from harness.flow.opening import open_alone, payloads_for
from harness.flow.options import ignore_progress
from harness.study import Study, variant_names
from harness.study.file import load_study, parse_study
from harness.types import ModelFormat, Precision
from tests.local_study import LABELS, write_local_study, write_pair_study
from tests.tiny_models import make_classifier

pytest.importorskip("transformers")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two families; in the first labels are indexes, and a student has its classes turned."""
    document = json.loads(load_study(write_local_study(tmp_path)).model_dump_json())
    make_classifier(tmp_path / "turned", LABELS[::-1], seed=4)
    rows = "".join(f"a sentence about {n},{n % 3}\n" for n in range(12))
    (tmp_path / "test.csv").write_text(f"sentence,kind\n{rows}")
    models = document["families"][0]["models"]
    models[1]["precisions"] = ["fp32", "int8"]
    models.append({"name": "turned", "role": "student", "checkpoint": str(tmp_path / "turned")})
    (tmp_path / "pairs").mkdir()
    pairs = load_study(write_pair_study(tmp_path / "pairs")).model_dump_json()
    document["families"] += json.loads(pairs)["families"]
    return parse_study(document, source="test")


def test_a_study_of_one_variant_has_one_model_and_one_artefact(study):
    alone = study.alone("own-student-int8")
    assert variant_names(alone) == ["own-student-int8"]
    (family,) = alone.families
    assert (family.name, family.ensemble) == ("sentences", False)
    assert family.models[0].artefacts == [(Precision.INT8, ModelFormat.ONNX)]


def test_an_ensemble_is_one_only_where_it_is_asked_for(study):
    assert study.families[1].ensemble
    name = variant_names(study)[-1]
    bare, whole = study.alone(name), study.alone(f"{name}-ensemble")
    assert variant_names(bare) == variant_names(whole) == [name]
    assert [bare.families[0].ensemble, whole.families[0].ensemble] == [False, True]


def test_a_variant_that_is_none_is_named_with_those_that_are(study):
    with pytest.raises(StudyError, match="no variant 'own-student-int4'") as caught:
        study.alone("own-student-int4")
    assert "own-student-int8" in str(caught.value.next_step)


def test_what_else_the_study_names_may_be_missing(study, tmp_path):
    shutil.rmtree(tmp_path / "turned")
    shutil.rmtree(tmp_path / "pairs")
    inputs = StudyInputs()
    check_inputs(study, inputs, only="own-student-fp32")
    assert payloads_for(study, "own-student-fp32", ignore_progress, inputs)
    with pytest.raises(StudyError) as caught:
        check_inputs(study)
    assert {"sentences", "pairs"} <= {
        word.strip(",") for line in caught.value.problems for word in line.split()
    }


def test_its_own_checkpoint_may_not(study, tmp_path):
    (tmp_path / "student" / "config.json").unlink()
    with pytest.raises(StudyError, match="model own-student"):
        check_inputs(study, only="own-student-fp32")


def test_labels_are_read_by_the_teacher_s_classes(study):
    """An index counts in the teacher's order: the first class is the student's last."""
    inputs = StudyInputs()
    check_inputs(study, inputs, only="turned-fp32")
    (opened,) = open_alone(study, "turned-fp32", ignore_progress, inputs).models
    assert list(opened.samples.labels) == [2, 1, 0] * 4
