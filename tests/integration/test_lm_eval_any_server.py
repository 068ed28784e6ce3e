"""lm-eval on external servers: a model is given its own answers, whatever its name."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harness.cli.main import run_command
from harness.errors import EXIT_ENVIRONMENT, EXIT_USAGE
from harness.quality.lm_eval.tasks import lm_eval_quiet
from harness.runs.folder import read_run
from tests.bare_language_model import Bare, LanguageServer, language_server
from tests.lm_tasks import multiple_choice, write_task
from tests.tiny_models import LINES, make_language_model

TASK = "local_mc"
SEEDS = {"first": 0, "second": 1, "third": 2}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of one shape and one tokenizer, and of other weights."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: make_language_model(folder / name, max_positions=64, seed=seed)
        for name, seed in SEEDS.items()
    }


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One task with choices of one length: two models agree on them by chance alone."""
    folder = tmp_path_factory.mktemp("tasks")
    rng = np.random.default_rng(0)
    questions = [
        {
            "question": LINES[number % 6],
            "choices": [f" {letter}" for letter in rng.choice(list("acdeghlmnprst"), 4, False)],
            "answer": number % 4,
        }
        for number in range(60)
    ]
    lines = "".join(json.dumps(one) + "\n" for one in questions)
    (folder / "questions.jsonl").write_text(lines)
    write_task(folder, multiple_choice(folder))
    return folder


@pytest.fixture(scope="module")
def right(checkpoints: dict[str, Path], tasks: Path) -> dict[str, float]:
    """lm-eval's own word on each checkpoint: `--model hf`."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = {}
    for name, folder in checkpoints.items():
        with lm_eval_quiet():
            results: Any = simple_evaluate(
                model="hf",
                model_args={"pretrained": str(folder), "dtype": "float32"},
                tasks=[TASK],
                device="cpu",
                task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
                bootstrap_iters=0,
            )
        found[name] = results["results"][TASK]["acc,none"]
    assert len(set(found.values())) == len(found)
    return found


@pytest.fixture(scope="module")
def study(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that is called alike on every server."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in LINES))
    document = {
        "name": "same",
        "seed": 1,
        "objective": "p95 < 1000 ms",
        "families": [
            {
                "name": "texts",
                "task": {
                    "kind": "causal-lm",
                    "data": {"source": "jsonl", "path": "texts.jsonl"},
                    "text": "text",
                    "max_length": 24,
                },
                "models": [
                    {"name": "lm", "role": "teacher", "checkpoint": str(checkpoints["first"])}
                ],
            }
        ],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    return folder / "study.yaml"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(checkpoints: dict[str, Path]) -> Iterator[LanguageServer]:
    with language_server(checkpoints["first"]) as found:
        yield found


def evaluate(study: Path, tasks: Path, server: LanguageServer, out: Path, *more: str) -> int:
    asked = ["--tasks", str(tasks / f"{TASK}.yaml"), "--out", str(out), *more]
    return run_command(["evaluate", str(study), "--url", server.url, *asked])


def accuracy(out: Path) -> float:
    rows = list(csv.DictReader((out / "quality.csv").open()))
    return float(next(row["value"] for row in rows if row["metric"] == f"{TASK}/acc"))


@pytest.mark.slow
def test_two_models_of_one_name_on_two_servers(
    study, tasks, server, checkpoints, right, tmp_path, capsys
) -> None:
    assert evaluate(study, tasks, server, tmp_path / "first") == 0
    with language_server(checkpoints["second"]) as other:
        assert evaluate(study, tasks, other, tmp_path / "second") == 0

    assert accuracy(tmp_path / "first") == right["first"]
    assert accuracy(tmp_path / "second") == right["second"]
    assert "known from an earlier run" not in capsys.readouterr().out


def test_a_model_retrained_under_its_name_and_one_that_is_not(
    study, tasks, server, checkpoints, right, tmp_path, capsys
) -> None:
    assert evaluate(study, tasks, server, tmp_path / "before") == 0
    asked = server.rows
    assert evaluate(study, tasks, server, tmp_path / "again") == 0
    said = capsys.readouterr()
    fewer = asked - (server.rows - asked)

    server.model = Bare(checkpoints["third"])
    assert evaluate(study, tasks, server, tmp_path / "retrained") == 0

    assert accuracy(tmp_path / "again") == accuracy(tmp_path / "before") == right["first"]
    assert accuracy(tmp_path / "retrained") == right["third"]
    # What came from the cache is said: while it runs, at its end, and in what is stored.
    (entry,) = read_run(tmp_path / "again").tasks
    assert (entry.from_cache, entry.asked) == (fewer, 0)
    assert fewer > 0
    words = f"{entry.from_cache} of {entry.from_cache} answers"
    assert f"{words} known from an earlier run" in said.err
    assert f"{words} were known from an earlier run" in " ".join(said.out.split())
    assert f"{words} were known from an earlier run" in (tmp_path / "again/report.md").read_text()
    stored = json.loads(
        (tmp_path / f"again/lm_eval/lm-fp32/results_{TASK}.json").read_text(encoding="utf-8")
    )
    assert stored["config"]["from_cache"] == entry.from_cache
    assert read_run(tmp_path / "retrained").tasks[0].from_cache == 0


@pytest.mark.slow
def test_a_resumed_run_scores_a_model_anew_that_was_exchanged_meanwhile(
    study, tasks, server, checkpoints, right, tmp_path
) -> None:
    out = tmp_path / "run"
    assert evaluate(study, tasks, server, out) == 0
    before = {one.metric: one.value for one in read_run(out).scores}
    asked = server.rows
    assert evaluate(study, tasks, server, out, "--resume") == 0
    assert server.rows - asked < 40, "only the rows that tell which model it is were asked again"

    server.model = Bare(checkpoints["second"])
    assert evaluate(study, tasks, server, out, "--resume") == 0

    after = {one.metric: one.value for one in read_run(out).scores}
    assert after[f"{TASK}/acc"] == right["second"]
    assert after["perplexity"] != before["perplexity"]


@pytest.mark.slow
def test_a_model_exchanged_while_it_answers_ends_the_run_and_leaves_nothing_behind(
    study, tasks, server, checkpoints, right, tmp_path, capsys
) -> None:
    assert evaluate(study, tasks, server, tmp_path / "whole", "--no-cache") == 0
    first, second = Bare(checkpoints["first"]), Bare(checkpoints["second"])
    server.exchange_after = (server.rows + server.rows // 2, second)

    assert evaluate(study, tasks, server, tmp_path / "run") == EXIT_ENVIRONMENT
    assert "it answers the same rows otherwise than at the start" in capsys.readouterr().err
    assert not read_run(tmp_path / "run").tasks

    server.exchange_after, server.model = None, first
    assert evaluate(study, tasks, server, tmp_path / "run", "--resume") == 0
    assert accuracy(tmp_path / "run") == right["first"]


def test_rows_that_changed_are_not_gone_on_with(study, tasks, server, tmp_path, capsys) -> None:
    own = tmp_path / "study"
    own.mkdir()
    for file in study.parent.iterdir():
        (own / file.name).write_bytes(file.read_bytes())
    assert evaluate(own / "study.yaml", tasks, server, tmp_path / "run") == 0
    with (own / "texts.jsonl").open("a") as data:
        data.write(json.dumps({"text": "one more line of text"}) + "\n")

    assert evaluate(own / "study.yaml", tasks, server, tmp_path / "run", "--resume") == EXIT_USAGE
    assert "was measured on other data: the rows of family texts" in capsys.readouterr().err
