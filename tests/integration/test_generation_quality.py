"""harness evaluate on models that write: every number through Triton's streams is the library's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import LINES, make_language_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.cli.main import run_command
from harness.quality.collection import read_outcomes
from harness.runs.folder import read_run, samples_file
from harness.tasks.generation.outcomes import WrittenOutcomes
from tests.local_study import write_study

NEW_TOKENS = 8
ROWS = [
    {"prompt": line[:cut], "reference": line[cut : cut + 15], "cut": str(cut)}
    for line in LINES
    for cut in (5, 9, 14)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student of nearly its weights, and a run in which they wrote."""
    folder = tmp_path_factory.mktemp("writing")
    teacher = make_language_model(folder / "teacher", architecture="llama", seed=1)
    model = AutoModelForCausalLM.from_pretrained(teacher)
    torch.manual_seed(7)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.004)
    model.save_pretrained(folder / "student")
    AutoTokenizer.from_pretrained(teacher).save_pretrained(folder / "student")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    task = {
        "kind": "generation",
        "data": {"source": "jsonl", "path": "rows.jsonl"},
        "max_length": 48,
        "max_new_tokens": NEW_TOKENS,
        "slices": ["cut"],
    }
    models = [
        {"name": name, "role": name, "checkpoint": str(folder / name)}
        for name in ("teacher", "student")
    ]
    study = write_study(
        folder,
        "writing",
        [{"name": "lines", "task": task, "models": models}],
        protocols=["grpc"],
        batches=[1],
        objective="prefix_agreement >= 10%",
    )
    out, repository = str(folder / "run"), str(folder / "repository")
    assert run_command(["evaluate", str(study), "--out", out, "--repository", repository]) == 0
    return folder


def _outcomes(folder: Path, variant: str) -> WrittenOutcomes:
    found = read_outcomes(samples_file(folder / "run", variant))
    assert isinstance(found, WrittenOutcomes)
    return found


def _bare(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(
        folder
    )


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_what_the_server_wrote_is_what_generate_writes(folder: Path, name: str) -> None:
    model, tokenizer = _bare(folder / name)
    found = _outcomes(folder, f"{name}-fp32")
    for row, tokens in zip(ROWS, found.tokens, strict=True):
        asked = tokenizer(row["prompt"], return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            whole = model.generate(
                **asked, do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0
            )
        assert tokens.tolist() == whole[0, asked["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_the_perplexity_of_references_is_the_librarys(folder: Path, name: str) -> None:
    model, tokenizer = _bare(folder / name)
    nats, count = 0.0, 0
    for row in ROWS:
        prompt = tokenizer(row["prompt"])["input_ids"]
        whole = tokenizer(row["prompt"] + row["reference"])["input_ids"]
        if whole[: len(prompt)] != prompt:
            own = tokenizer(row["reference"], add_special_tokens=False)["input_ids"]
            whole = [*prompt, *own]
        ids = torch.tensor([whole])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        with torch.inference_mode():
            loss = float(model(ids, labels=labels).loss)
        nats += loss * (len(whole) - len(prompt))
        count += len(whole) - len(prompt)
    scores = {(one.variant, one.metric): one for one in read_run(folder / "run").scores}
    found = scores[f"{name}-fp32", "perplexity"]
    assert found.value == pytest.approx(np.exp(nats / count), rel=1e-4)


def test_the_run_tells_agreement_slices_and_that_batching_changes_no_text(folder: Path) -> None:
    run = read_run(folder / "run")
    scores = {(one.variant, one.metric): one for one in run.scores}
    own, theirs = _outcomes(folder, "student-fp32"), _outcomes(folder, "teacher-fp32")
    same = [a.tolist() == b.tolist() for a, b in zip(own.tokens, theirs.tokens, strict=True)]
    assert 0 < np.mean(same) < 1  # else the next line would tell little
    assert scores["student-fp32", "agreement"].value == pytest.approx(np.mean(same))
    assert scores["teacher-fp32", "agreement"].value == 1.0
    (losses,) = [one for one in run.losses if one.variant == "student-fp32"]
    assert losses.metric == "rouge_l"
    assert {one.name for one in losses.slices} >= {"5", "9", "14"}
    changed = [one.changed_predictions for one in run.consistency if "fp32" in one.variant]
    assert changed
    assert not any(changed)
    assert (folder / "run" / "report.html").is_file()
