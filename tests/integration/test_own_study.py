"""A newcomer's path: checkpoints and a CSV file become a study, which runs; lm-eval's tasks too."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from harness.cli.main import run_command
from tests.lm_tasks import NLI, write_class_tasks
from tests.local_study import HARMLESS
from tests.tiny_models import LINES, make_classifier

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers of premises and hypotheses, the second with its classes turned; a CSV."""
    folder = tmp_path_factory.mktemp("own")
    make_classifier(folder / "big", NLI, seed=1, max_positions=128)
    make_classifier(folder / "small", NLI[::-1], seed=2)
    with (folder / "test.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "premise", "hypothesis", "gold"])
        for number in range(60):
            second = f"{LINES[(number * 5 + 1) % 6]} {number}"
            writer.writerow([number, LINES[number % 6], second, NLI[number % 3]])
    write_class_tasks(folder / "tasks", documents=30)
    return folder


@pytest.fixture(scope="module")
def study(own: Path) -> Path:
    """As `harness init` writes it, with shorter trials and one open loop a model."""
    path = own / "study.yaml"
    command = ["init", str(own / "small"), str(own / "big"), "--data", str(own / "test.csv")]
    assert run_command([*command, "--out", str(path), "--slo", HARMLESS]) == 0
    text = path.read_text()
    assert "# the largest" in text
    shorter = {
        "duration_s: 5 ": "duration_s: 0.5 ",
        "[1, 64]": "[2]",
        "[0.3, 0.5, 0.7, 0.85]": "[0.5]",
    }
    for written, less in shorter.items():
        assert written in text
        text = text.replace(written, less)
    path.write_text(text)
    return path


def test_a_study_that_init_wrote_runs_to_a_verdict(own, study, undisturbed, tmp_path):
    run = tmp_path / "run"
    command = ["run", str(study), "--repository", str(own / "models"), "--out", str(run)]
    code = run_command(command)
    (verdict,) = json.loads((run / "verdict.json").read_text())["families"]
    assert (code, verdict["decision"]) == (0, "pass")
    assert verdict["family"] == own.name
    assert (run / "report.html").is_file()


def test_lm_evals_accuracy_through_the_endpoint_is_the_bare_librarys(own, study, capsys, tmp_path):
    capsys.readouterr()
    command = ["evaluate", str(study), "--repository", str(own / "models"), "--json"]
    command += ["--out", str(tmp_path / "scores"), "--include-path", str(own / "tasks")]
    assert run_command([*command, "--tasks", "mnli"]) == 0

    scores = json.loads(capsys.readouterr().out)["quality"]
    found = {(one["variant"], one["metric"]): one for one in scores}
    rows = [json.loads(line) for line in (own / "tasks" / "pairs.jsonl").read_text().splitlines()]
    for name in ("big", "small"):
        right, loss = bare(own / name, rows)
        accuracy = found[f"{name}-fp32", "mnli/acc"]
        assert accuracy["value"] == pytest.approx(np.mean(right), abs=1e-12)
        assert accuracy["samples"] == 30
        assert accuracy["low"] < accuracy["value"] < accuracy["high"]
        perplexity = found[f"{name}-fp32", "mnli/label_perplexity"]
        assert perplexity["value"] == pytest.approx(np.exp(np.mean(loss)), rel=1e-4)
    assert found["small-fp32", "mnli/acc"]["relative_to_teacher"] is not None
    assert found["small-fp32", "mnli/label_perplexity"]["relative_low"] is not None


def test_a_task_that_no_class_fits_is_refused_before_anything_starts(own, study, capsys, tmp_path):
    command = ["evaluate", str(study), "--repository", str(own / "models"), "--out"]
    command += [str(tmp_path / "none"), "--include-path", str(own / "tasks"), "--tasks"]
    assert run_command([*command, "local_topics"]) == 2
    assert "labels do not match the classes of" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()


def bare(folder: Path, rows: list[dict]) -> tuple[list[bool], list[float]]:
    """transformers' own answer to each pair alone: whether it is right, and its loss in nats."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    right, losses = [], []
    for row in rows:
        inputs = tokenizer(
            row["premise"],
            row["hypothesis"],
            truncation=True,
            max_length=64,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        with torch.no_grad():
            logits = model(**inputs).logits.double()
        gold = torch.tensor([model.config.label2id[NLI[row["label"]]]])
        right.append(bool(logits.argmax() == gold))
        losses.append(torch.nn.functional.cross_entropy(logits, gold).item())
    return right, losses
