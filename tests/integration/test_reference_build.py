"""Real training processes on the real text, with budgets cut to a few steps."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from harness.errors import HarnessError
from harness.reference import build
from harness.reference import processes as fleet
from harness.reference.build import build_reference
from harness.reference.recipes import RECIPES
from harness.types import Progress

# The first test waits for everything to be made; the time is a hang's, not a bound of ours.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PATIENCE_S = 600
"""For what ends by itself: longer than a busy machine takes, shorter than the training would."""
SHORT = {name: dataclasses.replace(recipe, steps=3) for name, recipe in RECIPES.items()}
BUILD = """
import dataclasses, sys
from pathlib import Path
from harness.reference import build
build.RECIPES = {
    name: dataclasses.replace(recipe, steps=int(sys.argv[2]))
    for name, recipe in build.RECIPES.items()
}
build.build_reference(
    sys.argv[3:], seed=1, cache_dir=Path(sys.argv[1]), progress=lambda p: print(p.note, flush=True)
)
"""


class Ear(list[Progress]):
    """Keeps what the progress said."""

    def __call__(self, progress: Progress) -> None:
        self.append(progress)


@pytest.fixture(autouse=True)
def short_recipes(monkeypatch):
    monkeypatch.setattr(build, "RECIPES", SHORT)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, build.ReferenceBundle, Ear]:
    """Everything, trained for three steps; tests copy the cache before they harm it."""
    cache, ear = tmp_path_factory.mktemp("cache"), Ear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "RECIPES", SHORT)
        bundle = build_reference(list(SHORT), seed=1, cache_dir=cache, progress=ear)
    return cache, bundle, ear


@pytest.fixture
def cache(made, tmp_path) -> Path:
    """A copy of the filled cache."""
    shutil.copytree(made[0], tmp_path / "cache")
    return tmp_path / "cache"


def store(cache: Path) -> Path:
    return next(path for path in (cache / "reference").iterdir() if path.is_dir())


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("topics")])
def test_a_classifier_is_a_whole_safe_checkpoint(made, name):
    folder = made[1].checkpoints[name]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert sorted(model.config.id2label.values()) == sorted(
        {row["label"] for row in rows(made[1].data["topics"])}
    )
    ids = AutoTokenizer.from_pretrained(folder)("def forward", return_tensors="pt")
    assert model(**ids).logits.shape == (1, 10)
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("prose")])
def test_a_language_model_is_a_whole_checkpoint(made, name):
    folder = made[1].checkpoints[name]
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("The gradient of", return_tensors="pt")
    length = ids["input_ids"].shape[1]
    assert model(**ids).logits.shape == (1, length, model.config.vocab_size)


@pytest.mark.parametrize("name", list(RECIPES))
def test_each_training_is_on_record(made, name):
    record = json.loads((made[1].checkpoints[name] / "training.json").read_text())
    assert record["steps"] == 3
    assert record["seed"] == 1
    assert record["seconds"] > 0
    assert record["teacher"] == RECIPES[name].teacher
    assert len(record["losses"]) == 3
    assert record["validation"]
    assert len(record["corpus_sha256"]) == 64


def test_the_test_splits_and_the_baseline_are_handed_over(made):
    topics = rows(made[1].data["topics"])
    baseline = json.loads(made[1].baseline_predictions.read_text())
    assert len(topics) == len(baseline) >= 1200
    hits = sum(row["label"] == label for row, label in zip(topics, baseline, strict=True))
    assert 0.6 < hits / len(topics) < 0.95
    assert all(len(row["text"]) >= 120 for row in rows(made[1].data["prose"]))


def test_the_progress_rises_to_its_total(made):
    done = [progress.done for progress in made[2]]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(made[2][-1].total, rel=0.01)
    assert {progress.total for progress in made[2]} == {made[2][0].total}


def test_what_is_made_is_not_made_again(made):
    before = {path: path.stat().st_mtime_ns for path in made[0].rglob("*") if path.is_file()}
    ear = Ear()
    bundle = build_reference(list(SHORT), seed=1, cache_dir=made[0], progress=ear)
    assert ear == []
    assert bundle == made[1]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_is_damaged_is_made_again_to_the_same_bytes(cache):
    """Also: what needs nothing new is left alone, and a killed run's half is swept."""
    harmed = [
        store(cache) / "topics-tiny" / "model.safetensors",
        store(cache) / "prose-student" / "model.safetensors",
        store(cache) / "prose-data" / "test.jsonl",
    ]
    expected = [path.read_bytes() for path in harmed]
    for path, content in zip(harmed, expected, strict=True):
        path.write_bytes(content[:-1])
    half = store(cache) / ".prose-control-abc"
    half.mkdir()
    ear = Ear()
    build_reference(list(SHORT), seed=1, cache_dir=cache, progress=ear)
    assert [path.read_bytes() for path in harmed] == expected
    at_work = {name for progress in ear for name in progress.note.split(", ")}
    assert at_work == {"topics-tiny", "prose-data", "prose-student"}
    assert not half.exists()


def test_an_error_of_a_training_process_comes_back_as_itself(cache):
    """Answers of another training split, sealed as if they were right."""
    data = store(cache) / "topics-data"
    train = data / "train.jsonl"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:-1]))
    seal = json.loads((data / "complete.json").read_text())
    seal["files"]["train.jsonl"] = hashlib.sha256(train.read_bytes()).hexdigest()
    (data / "complete.json").write_text(json.dumps(seal))
    shutil.rmtree(store(cache) / "topics-tiny")
    with pytest.raises(HarnessError, match="the training split has 9999") as caught:
        build_reference(["topics-tiny"], seed=1, cache_dir=cache, progress=Ear())
    assert type(caught.value).__name__ == "DataError"
    assert "delete the folder" in caught.value.next_step


def test_a_training_process_that_dies_is_said_with_its_last_words(cache, monkeypatch):
    shutil.rmtree(store(cache) / "topics-tiny")
    monkeypatch.setattr(fleet, "WORKER", "harness.reference.no_such_module")
    with pytest.raises(HarnessError, match="No module named") as caught:
        build_reference(["topics-tiny"], seed=1, cache_dir=cache, progress=Ear())
    assert "training-topics-tiny.log" in caught.value.next_step


def start(cache: Path, steps: int, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(cache), str(steps), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "harness.reference.worker" in child.cmdline()]


def wait_for_note(process: subprocess.Popen[str], note: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if note in line:
            return
    pytest.fail(f"the build ended before it came to {note}")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_an_interruption_keeps_finished_models_and_leaves_no_process(cache, stop):
    """The tiny model's training is interrupted; its finished data and teacher stay."""
    digest = build._digest(1)
    endless = start(cache, 1_000_000, "prose-control")
    wait_for_note(endless, "prose-control")
    training = workers(endless)
    assert training
    os.kill(endless.pid, stop)
    assert endless.wait(PATIENCE_S) != 0
    _, alive = psutil.wait_procs(training, timeout=PATIENCE_S)
    assert alive == []
    fresh = next(path for path in (cache / "reference").iterdir() if is_store(path, digest))
    assert (fresh / "prose-data" / "complete.json").is_file()
    assert not (fresh / "prose-control").exists()


def is_store(path: Path, other_than: str) -> bool:
    return path.is_dir() and path.name != other_than


def test_two_builds_at_once_take_turns(tmp_path):
    first = start(tmp_path, 2, "prose-control")
    wait_for_note(first, "prose-data")
    second = start(tmp_path, 2, "prose-control")
    assert first.wait(PATIENCE_S) == 0
    assert second.wait(PATIENCE_S) == 0
    assert second.stdout is not None
    notes = set(second.stdout.read().split("\n")) - {""}
    assert notes <= {"another harness is making them"}, "the second trained what the first had made"
