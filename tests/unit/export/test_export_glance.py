"""What a checkpoint's own files say at a glance, before transformers is imported."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from harness.errors import CheckpointError
from harness.export.checkpoint import glance_at_checkpoint
from harness.study import Model, Task
from harness.study.file import parse_study

CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "id2label": {"1": "spam", "0": "ham"},
}


def safetensors(length: int = 8) -> bytes:
    """A file of one tensor of eight bytes, of which the last may be missing."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(length)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a whole checkpoint lies, as far as a glance goes."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    (tmp_path / "data.csv").write_text("text,label\na,ham\n")
    return tmp_path


def section(
    folder: Path, kind: str = "sequence-classification", **more: object
) -> tuple[Model, Task]:
    """The model and the task as a study's file names them."""
    data = {"source": "csv", "path": str(folder / "data.csv")}
    model = {"name": "m", "role": "teacher", "checkpoint": str(folder), **more}
    family = {"name": "f", "task": {"kind": kind, "data": data}, "models": [model]}
    study = parse_study({"name": "s", "objective": "p95 < 1 s", "families": [family]}, source="t")
    return study.families[0].models[0], study.families[0].task


def test_the_classes_stand_in_the_order_of_the_outputs(folder):
    preview = glance_at_checkpoint(*section(folder))
    assert preview is not None
    assert preview.label_names == ("ham", "spam")
    assert preview.folder == folder


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["BertForTokenClassification"]},
        {"id2label": None},
        {"id2label": {"first": "ham"}},
        {"id2label": ["ham", "spam"]},
        {"num_labels": 3},
        {"architectures": None},
    ],
)
def test_what_only_the_library_can_tell_is_left_to_it(folder, config):
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    assert glance_at_checkpoint(*section(folder)) is None


def test_code_of_the_checkpoint_s_own_is_left_to_the_library(folder):
    assert glance_at_checkpoint(*section(folder, trust_remote_code=True)) is None


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", b'{"model_type": "bert",', "its config.json is not JSON"),
        ("model.safetensors", safetensors(7), "model.safetensors is cut short: 76 of 77 bytes"),
        ("model.safetensors", b"PK\3\4 a zip archive, say", "does not begin as safetensors do"),
        ("model.safetensors", b"", "does not begin as safetensors do"),
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 438007864\n",
            "model.safetensors is a Git LFS pointer",
        ),
        ("tokenizer.json", None, "has no tokenizer"),
    ],
)  # fmt: skip
def test_a_file_that_is_missing_or_not_whole_is_refused(folder, name, content, told):
    asked = section(folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=told) as caught:
        glance_at_checkpoint(*asked)
    assert caught.value.next_step or name == "config.json"
