"""lm-eval's tasks that a language model cannot answer as they ask are refused before the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import StudyError
from harness.flow.inputs import StudyInputs
from harness.flow.lm_plan import plan_evaluation
from harness.quality.lm_eval.tasks import TaskRequest, load_tasks
from harness.study.file import parse_study
from tests.lm_tasks import generation, write_task, write_tasks
from tests.tiny_models import make_language_model

POSITIONS = 64
CONTEXT = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), documents=4)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_language_model(tmp_path / "lm", architecture="llama", max_positions=POSITIONS)


def family(kind: str, checkpoint: str, rows: Path) -> dict[str, Any]:
    data = {"source": "jsonl", "path": str(rows)}
    if checkpoint.startswith("reference:"):
        name = "prose" if kind == "causal-lm" else "continuations"
        data = {"source": "reference", "name": name}
    task = {"kind": kind, "data": data, "max_length": CONTEXT}
    if kind == "generation":
        task["max_new_tokens"] = 8
    model = {"name": "m", "role": "teacher", "checkpoint": checkpoint}
    return {"name": kind, "task": task, "models": [model]}


def problems(kind: str, checkpoint: str, folder: Path, out: Path, asked: dict[str, Any]) -> str:
    """What is said against a generation with these settings."""
    write_task(out, generation(folder, generation_kwargs={"until": ["."], **asked}))
    tasks = load_tasks(TaskRequest(("local_gen",), (out,)))
    asking = family(kind, checkpoint, folder / "questions.jsonl")
    study = parse_study(
        {"name": "s", "objective": "p95 < 50 ms", "families": [asking]}, source="study"
    )
    try:
        plan_evaluation(study, tasks, StudyInputs(), use_cache=False)
    except StudyError as error:
        return "\n".join(error.problems)
    return ""


@pytest.mark.parametrize("of_reference", [False, True])
def test_a_generation_that_leaves_no_room_for_its_prompt_is_refused(
    folder: Path, tmp_path: Path, checkpoint: Path, of_reference: bool
) -> None:
    """What writes has the study's context; what only scores has the model's own."""
    model = "reference:prose-teacher" if of_reference else str(checkpoint)

    def said(kind: str, tokens: int | None) -> str:
        asked = {} if tokens is None else {"max_gen_toks": tokens}
        return problems(kind, model, folder, tmp_path, asked)

    by_default = said("generation", None)
    assert "family generation, model m: task local_gen generates up to 256 tokens" in by_default
    assert f"the model takes {CONTEXT - 1} with the prompt: lower max_gen_toks" in by_default
    assert f"or raise max_length in the study's task, which is {CONTEXT}" in by_default
    assert said("generation", CONTEXT - 1)
    assert not said("generation", CONTEXT - 2)

    assert f"takes {POSITIONS} with the prompt" in said("causal-lm", POSITIONS)
    assert "max_length" not in said("causal-lm", POSITIONS)
    assert not said("causal-lm", POSITIONS - 1)


def test_a_task_may_not_override_what_a_served_model_writes_by(
    folder: Path, tmp_path: Path, checkpoint: Path
) -> None:
    """It writes by its checkpoint's rules; a model that only scores by none of them."""
    settings = json.loads((checkpoint / "generation_config.json").read_text())
    settings["repetition_penalty"] = 1.05
    (checkpoint / "generation_config.json").write_text(json.dumps(settings))

    def said(kind: str, **asked: Any) -> str:
        return problems(kind, str(checkpoint), folder, tmp_path, {"max_gen_toks": 8, **asked})

    assert "the task sets repetition_penalty to 1, " in said("generation", repetition_penalty=1)
    assert not said("generation")
    assert "sets repetition_penalty to 1.05" in said("causal-lm")
    assert not said("causal-lm", repetition_penalty=1)
