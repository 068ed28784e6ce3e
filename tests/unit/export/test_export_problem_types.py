"""One architecture, three kinds of task: what a configuration says decides which it may be."""

from __future__ import annotations

import json

import pytest
import yaml

from harness.cli.main import run_command
from harness.errors import EXIT_USAGE, CheckpointError
from harness.export.checkpoint import inspect_checkpoint
from harness.study.file import load_study
from tests.tiny_models import make_classifier

THREE = ("joy", "love", "anger")
MULTI, ONE, NUMBER = (
    "multi_label_classification", "single_label_classification", "regression",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Makes a checkpoint of this many outputs whose configuration says a problem type."""
    made = {}

    def make(labels, problem_type):
        key = labels, problem_type
        if key not in made:
            folder = tmp_path_factory.mktemp("checkpoint")
            made[key] = make_classifier(folder, labels, problem_type=problem_type)
        return made[key]

    return make


def study_of(folder, checkpoint, kind, **task):
    value = 1.5 if kind == "regression" else "joy"
    (folder / "d.jsonl").write_text(json.dumps({"text": "a", "label": value, "labels": ["joy"]}))
    document = {
        "name": "study",
        "objective": "p95 < 50 ms",
        "families": [
            {
                "name": "texts",
                "task": {
                    "kind": kind,
                    "data": {"source": "jsonl", "path": "d.jsonl"},
                    "max_length": 32,
                    **task,
                },
                "models": [{"name": "m", "role": "teacher", "checkpoint": str(checkpoint)}],
            }
        ],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("labels", "says", "kind"),
    [
        (THREE, MULTI, "multi-label-classification"),
        (THREE, None, "multi-label-classification"),
        (("joy",), MULTI, "multi-label-classification"),
        (("grade",), NUMBER, "regression"),
        (("grade",), None, "regression"),
        (THREE, None, "sequence-classification"),
        (THREE, ONE, "sequence-classification"),
    ],
)
def test_a_configuration_that_does_not_contradict_is_taken(
    tmp_path, checkpoint, labels, says, kind
):
    study = load_study(study_of(tmp_path, checkpoint(labels, says), kind))
    family = study.families[0]

    preview = inspect_checkpoint(family.models[0], None, task=family.task)

    assert preview.family.auto_class == "AutoModelForSequenceClassification"


@pytest.mark.parametrize(
    ("labels", "says", "kind", "said"),
    [
        (THREE, ONE, "multi-label-classification", "several labels"),
        (THREE, NUMBER, "multi-label-classification", "several labels"),
        (("grade",), None, "multi-label-classification", "regression"),
        (THREE, None, "regression", "3 outputs"),
        (THREE, NUMBER, "regression", "3 outputs"),
        (("joy",), MULTI, "regression", "multi_label_classification"),
        (THREE, MULTI, "sequence-classification", "several labels"),
        (("grade",), NUMBER, "sequence-classification", "regression"),
    ],
)
def test_a_configuration_that_contradicts_the_task_is_refused(
    tmp_path, checkpoint, labels, says, kind, said
):
    study = load_study(study_of(tmp_path, checkpoint(labels, says), kind))
    family = study.families[0]

    with pytest.raises(CheckpointError, match=said):
        inspect_checkpoint(family.models[0], None, task=family.task)


@pytest.mark.parametrize("command", ["run", "evaluate", "export"])
def test_every_command_refuses_it_before_anything_starts(tmp_path, checkpoint, command, capsys):
    study = study_of(tmp_path, checkpoint(THREE, ONE), "multi-label-classification")

    assert run_command([command, str(study)]) == EXIT_USAGE

    assert "problem_type single_label_classification" in " ".join(capsys.readouterr().err.split())
