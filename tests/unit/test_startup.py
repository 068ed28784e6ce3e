"""What each command imports before it works: modules in a fresh process, never seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.commands import MODULES, imported, summary
from tests.stored_folder import write_topics

ROOT = Path(__file__).parents[2]
TRAINING = {
    "datasets", "lm_eval", "onnx", "onnxruntime", "sklearn", "tokenizers", "torch", "torchmetrics",
    "transformers",
}  # fmt: skip
SERVED = {"gevent", "grpc", "locust", "prometheus_client", "tritonclient"}
COUNTED = {"pandas", "scipy.optimize", "scipy.special", "scipy.stats"}
ARRAYS = {"numpy", "pyarrow", "scipy"}
HEAVY = TRAINING | SERVED | COUNTED | ARRAYS
STUDY = """
name: tickets
objectve: p95 < 50 ms
families: []
"""
CLASSIFIER = {
    "architectures": ["BertForSequenceClassification"],
    "id2label": {"0": "refund", "1": "delivery"},
}
OF_ONES_OWN = """
name: tickets
objective: p95 < 50 ms
families:
  - name: tickets
    task:
      kind: sequence-classification
      data: {{source: csv, path: rows.csv}}
      text: {text}
      label: {label}
    models:
      - {{name: teacher, role: teacher, checkpoint: ./teacher}}
      - {{name: student, role: student, checkpoint: ./student}}
"""

# Prints, for each command line, its exit code and what of HEAVY is loaded by then.
CALLS = """
import json, sys
from harness.cli.main import run_command
for command, heavy in [(one, sys.argv[2].split()) for one in json.loads(sys.argv[1])]:
    code = run_command(command)
    print("\\n" + json.dumps([code, sorted(set(heavy) & set(sys.modules))]))
"""


def loaded_by(*commands: list[str], cwd: Path) -> list[tuple[int, set[str]]]:
    """Exit code of each command, one after the other in one fresh process, and what is loaded."""
    answer = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps(commands), " ".join(HEAVY)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    lines = [line for line in answer.stdout.splitlines() if line.startswith("[")]
    return [(code, set(heavy)) for code, heavy in map(json.loads, lines)]


@pytest.fixture
def folder(tmp_path):
    """Where the commands are called: a run, and a study with a misspelt key."""
    write_topics(tmp_path / "run")
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def test_help_and_wrong_usage_load_nothing_heavy(folder):
    asked = [["--help"], *([name, "--help"] for name in MODULES)]
    wrong = [
        ["rnu", "study.yaml"],
        ["run", "nowhere.yaml"],
        ["run", "study.yaml", "--nope"],
        ["run", "study.yaml", "--workers", "0"],
        ["report", "nowhere"],
        ["plan", "run", "--demand", "plenty"],
        ["cost", "run", "--demand", "plenty"],
        ["batch", "run", "--documents", "many", "--deadline", "6h"],
        ["route", "run", "--keep", "all"],
        ["autoscale", "run", "--trace", "diurnal", "--demand", "1/s", "--scrape", "often"],
        ["serve", "study.yaml", "--ports", "1,2"],
        ["serve", "study.yaml", "--cpus-server", "none"],
        ["load", "--rate", "3"],
    ]
    found = loaded_by(*asked, *wrong, cwd=folder)
    assert found == [(0, set())] * len(asked) + [(2, set())] * len(wrong)


@pytest.mark.parametrize(
    "command",
    ["run", "sweep", "export", "serve", "evaluate", "card", "profile --variant x",
     "load --variant x --rate 3"],
)  # fmt: skip
def test_a_wrong_study_loads_what_reads_it(folder, command):
    """Its sections are those of the task families, which count with numpy."""
    name, *options = command.split()
    ((code, heavy),) = loaded_by([name, "study.yaml", *options], cwd=folder)
    assert code == 2
    assert heavy <= ARRAYS


@pytest.mark.parametrize("command", ["run", "sweep", "export", "serve", "evaluate", "card"])
def test_data_that_does_not_fit_is_told_without_the_libraries_that_read_models(tmp_path, command):
    """A wrong column, and labels of which the teacher has none; each model is told once."""
    for name in ("teacher", "student"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CLASSIFIER))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes([2, *[0] * 7]) + b"{}")
    (tmp_path / "rows.csv").write_text("message,topic\nhello,refund\nwhere is it,delivery\n")
    asked = []
    for name, text, label in (("column", "mesage", "topic"), ("label", "message", "message")):
        (tmp_path / f"{name}.yaml").write_text(OF_ONES_OWN.format(text=text, label=label))
        asked.append([command, f"{name}.yaml"])
    found = loaded_by(*asked, cwd=tmp_path)
    assert [code for code, _ in found] == [2, 2]
    assert not set.union(*(heavy for _, heavy in found)) & TRAINING


def test_a_stored_run_is_read_without_what_trains_or_serves(folder):
    """Answered (0), or refused (2) once the run is read."""
    write_topics(folder / "later")
    expected = {
        "report run": 0,
        "plan run --demand 20/s --variant unknown": 2,
        "cost run --instance g5.xlarge --measured-on g5.xlarge": 2,
        "decide run": 0,
        "compare run later": 0,
        "autoscale run --trace diurnal --demand 20/s": 2,
        "batch run --documents 1M --deadline 6h": 0,
    }
    found = loaded_by(*(one.split() for one in expected), cwd=folder)
    assert [code for code, _ in found] == list(expected.values())
    *answered, job = [heavy & (TRAINING | SERVED) for _, heavy in found]
    assert answered == [set()] * len(answered)
    assert not job & TRAINING  # --measure is of the same command, and serves


@pytest.mark.parametrize("module", ["worker_process", "switchboard", "page"])
def test_a_load_generator_starts_without_studies_and_statistics(module):
    """It is started for every run: bytes and arrays are all it sends."""
    answer = subprocess.run(
        [sys.executable, "-c", f"import harness_locust.{module}, sys; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    unused = TRAINING | COUNTED | {"pyarrow", "scipy", "harness.tasks", "harness.study.document"}
    assert set(answer.stdout.split()) & unused == set()


def test_an_objective_is_read_without_the_sections_of_studies():
    code = (
        "import sys; from harness.study.objective import parse_objective;"
        "parse_objective('p95 < 50 ms, accuracy >= 90% of teacher');"
        "print('harness.study.document' in sys.modules);"
        "from harness.study import Study; print(Study.__module__)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["False", "harness.study.document"]


def test_a_command_s_summary_is_its_docstring_s_first_line():
    for name in MODULES:
        assert imported(name).help.split("\n\n")[0] == summary(name) != ""
