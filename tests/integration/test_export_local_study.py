"""studies/local-checkpoint.yaml as a user would use it: beside folders and their own CSV."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_models import LINES, make_classifier

from harness.errors import DataError, StudyError
from harness.export.checkpoint import inspect_checkpoint, open_checkpoint
from harness.export.variants import ExportJob, export_variants
from harness.flow.options import ignore_progress
from harness.flow.preparation import prepare, prepare_alone
from harness.study.file import load_study, parse_study
from harness.tasks.loading import encode, load_samples
from tests.local_study import write_local_study

STUDIES = Path(__file__).parents[2] / "studies"
TOPICS = ("billing", "delivery", "other")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project folder: studies/, checkpoints/, data/."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "studies").mkdir()
    shutil.copy(STUDIES / "local-checkpoint.yaml", folder / "studies")
    make_classifier(folder / "checkpoints" / "teacher", TOPICS)
    # The student has its classes in another order, as separately trained models do.
    make_classifier(folder / "checkpoints" / "student", TOPICS[::-1], seed=1)
    (folder / "data").mkdir()
    with (folder / "data" / "test.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["message", "topic"])
        writer.writerows((line * times, TOPICS[times % 3]) for times in (1, 2, 3) for line in LINES)
    return folder


@pytest.fixture(scope="module")
def study(home):
    return load_study(home / "studies" / "local-checkpoint.yaml")


def test_the_study_exports_from_its_folders_to_a_repository(study, home, tmp_path):
    (family,) = study.families
    names = []
    for model in family.models:
        checkpoint = open_checkpoint(model, folder=None)
        samples = load_samples(family.task, seed=study.seed, label_names=checkpoint.label_names)
        encoded = encode(family.task, samples, checkpoint.folder)
        named = [samples.label_names[label] for label in encoded.labels]
        assert named == [TOPICS[times % 3] for times in (1, 2, 3) for _ in LINES]
        assert {group.length for group in encoded.groups} <= {16, 32, 64}
        assert np.concatenate([group.rows for group in encoded.groups]).size == encoded.size
        variants = export_variants(
            ExportJob(
                model,
                checkpoint,
                family.task,
                family=family.name,
                repository=tmp_path,
                samples=samples,
                encoded=encoded,
            ),
            lambda step: None,
        )
        names += [variant.name for variant in variants]
    assert names == ["tickets-teacher-fp32", "tickets-student-fp32", "tickets-student-int8"]
    assert all((tmp_path / name / "1" / "model.onnx").is_file() for name in names)


def test_its_data_with_labels_of_another_set_is_refused_before_anything_starts(study, home):
    (family,) = study.families
    labels = inspect_checkpoint(family.teacher, None, task=family.task).label_names
    assert labels == TOPICS
    with pytest.raises(DataError, match=r"the checkpoint's are \[refund, spam\]"):
        load_samples(family.task, seed=0, label_names=("refund", "spam"))


def test_a_checkout_without_the_folders_is_told_all_that_is_missing():
    with pytest.raises(StudyError) as caught:
        load_study(STUDIES / "local-checkpoint.yaml")
    assert len(caught.value.problems) == 3


def test_the_hub_studies_of_sentences_and_questions_are_sound_studies():
    (sentences,) = load_study(STUDIES / "sst2-distilbert.yaml").families
    assert sentences.task.text_pair is None
    assert sentences.ensemble
    (questions,) = load_study(STUDIES / "squad-distilbert.yaml").families
    assert questions.task.buckets == (128, 192, 256, 384)
    assert questions.task.answers == "answers"


def test_the_hub_study_is_a_sound_study():
    (family,) = load_study(STUDIES / "mnli-tinybert.yaml").families
    assert family.task.labels == ["entailment", "neutral", "contradiction"]
    assert family.task.text_pair == "hypothesis"


def test_one_variant_is_exported_as_in_the_whole_study_and_nothing_beside_it(tmp_path):
    document = json.loads(load_study(write_local_study(tmp_path)).model_dump_json())
    document["families"][0]["models"][1]["precisions"] = ["fp32", "int8"]
    study = parse_study(document, source="test")
    (whole,) = prepare(study, repository=tmp_path / "whole", progress=ignore_progress)
    name = "own-student-int8"
    alone = prepare_alone(study, name, repository=tmp_path / "alone", progress=ignore_progress)
    assert [one.name for one in alone.variants] == [name]
    assert [one.name for one in (tmp_path / "alone").iterdir() if one.is_dir()] == [name]
    same = next(one for one in whole.variants if one.name == name)
    assert alone.variants[0].sha256 == same.sha256
    assert alone.datasets[name].digest == whole.datasets[name].digest
    again = prepare_alone(study, name, repository=tmp_path / "whole", progress=ignore_progress)
    assert again.variants[0].sha256 == same.sha256
