"""What a study says of slices and training data, checked before anything starts."""

import pytest
import yaml

from harness.errors import StudyError
from harness.flow.input_checks import check_inputs
from harness.study.file import load_study, parse_study
from harness.tasks.loading import load_samples, load_training_samples
from tests.local_study import write_local_study


@pytest.fixture(scope="module")
def study_path(tmp_path_factory):
    return write_local_study(tmp_path_factory.mktemp("study"))


def changed(path, **task):
    document = yaml.safe_load(path.read_text())
    document["families"][0]["task"] |= task
    other = path.with_name("changed.yaml")
    other.write_text(yaml.safe_dump(document))
    return load_study(other)


def test_a_slice_column_that_does_not_exist_is_one_clear_line(study_path):
    with pytest.raises(StudyError, match=r"no column 'country'.*'slices'") as raised:
        check_inputs(changed(study_path, slices=["kind", "country"]))
    assert raised.value.exit_code == 2
    assert len(raised.value.problems) == 1


def test_training_data_must_have_the_columns_that_are_sliced_by(study_path):
    study_path.with_name("train.csv").write_text("sentence,kind\nsome text,code\n")
    data = {"source": "csv", "path": "train.csv"}
    good = changed(study_path, slices=["kind"], training_data=data)
    check_inputs(good)
    task = good.families[0].task
    names = ("code", "prose", "other")
    assert load_training_samples(task, label_names=names).columns == {"kind": ("code",)}
    assert len(load_samples(task, seed=0, label_names=names).columns["kind"]) == 60
    study_path.with_name("train.csv").write_text("sentence,label\nsome text,code\n")
    with pytest.raises(StudyError, match=r"(?s)training_data: .*no column 'kind'"):
        check_inputs(good)


def test_the_embedded_data_says_which_columns_it_has():
    document = {
        "name": "own",
        "families": [
            {
                "name": "topics",
                "task": {
                    "kind": "sequence-classification",
                    "data": {"source": "reference", "name": "topics"},
                    "slices": ["country"],
                },
                "models": [
                    {"name": "t", "role": "teacher", "checkpoint": "reference:topics-teacher"}
                ],
            }
        ],
    }
    with pytest.raises(StudyError, match=r"no column 'country'.*topics has text, label"):
        check_inputs(parse_study(document, source="test"))
