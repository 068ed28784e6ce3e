"""harness run on encoder-decoders: what Triton's streams bring is what the library gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_decoders import POSITIONS, SUMMARISER, make_encoder_decoder
from tiny_models import LINES
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from harness.cli.main import run_command
from harness.errors import EXIT_OK, EXIT_USAGE
from harness.quality.collection import read_outcomes
from harness.runs.folder import read_run, samples_file
from harness.tasks.generation.outcomes import WrittenOutcomes
from harness.types import Decision
from tests.held_up import unhurried
from tests.local_study import write_study

pytestmark = pytest.mark.slow
"""The road of test_generation_quality, with an encoder before it: minutes of exports."""
NEW_TOKENS = 14
ROWS = [
    {"prompt": line[cut:], "reference": line[:15], "document": str(place)}
    for place, line in enumerate(LINES)
    for cut in (0, 5, 9)
]
OBJECTIVE = "ttft p50 < 60 s, prefix_agreement >= 1%"


def _study(folder: Path, **task: Any) -> Path:
    section = {
        "kind": "generation",
        "data": {"source": "jsonl", "path": "rows.jsonl"},
        "document": "document",
        "max_length": POSITIONS,
        "max_new_tokens": NEW_TOKENS,
        **task,
    }
    models = [
        {"name": name, "role": name, "checkpoint": str(folder / name)}
        for name in ("teacher", "student")
    ]
    return write_study(
        folder,
        "summaries",
        [{"name": "lines", "task": section, "models": models}],
        protocols=["grpc"],
        batches=[1],
        objective=OBJECTIVE,
    )


def _pair(folder: Path, **asked: Any) -> None:
    """A teacher, and a student of nearly its weights."""
    teacher = make_encoder_decoder(folder / "teacher", "bart", **asked)
    model = AutoModelForSeq2SeqLM.from_pretrained(teacher)
    torch.manual_seed(7)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.004)
    model.save_pretrained(folder / "student")
    AutoTokenizer.from_pretrained(teacher).save_pretrained(folder / "student")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two summarisers whose configuration asks for four beams, compared greedily."""
    folder = tmp_path_factory.mktemp("summaries")
    _pair(folder, **SUMMARISER, num_beams=4)
    study = _study(folder, num_beams=1)
    asked = [str(study), "--out", str(folder / "run"), "--repository", str(folder / "repository")]
    with unhurried():
        assert run_command(["run", *asked, "--no-saturation"]) == EXIT_OK
    return folder


def _bare(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_what_the_server_wrote_is_what_generate_writes(folder: Path, name: str) -> None:
    model, tokenizer = _bare(folder / name)
    found = read_outcomes(samples_file(folder / "run", f"{name}-fp32"))
    assert isinstance(found, WrittenOutcomes)
    for row, text, tokens in zip(ROWS, found.texts, found.tokens, strict=True):
        asked = tokenizer(row["prompt"], return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            whole = model.generate(**asked, do_sample=False, num_beams=1, max_new_tokens=NEW_TOKENS)
        assert tokens.tolist() == whole[0, 1:].tolist()
        assert text == tokenizer.decode(whole[0, 1:], skip_special_tokens=True)


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_the_perplexity_of_references_is_the_librarys(folder: Path, name: str) -> None:
    model, tokenizer = _bare(folder / name)
    nats, count = 0.0, 0
    for row in ROWS:
        ids = torch.tensor([tokenizer(row["prompt"])["input_ids"]])
        labels = torch.tensor([tokenizer(text_target=row["reference"])["input_ids"]])
        with torch.inference_mode():
            nats += float(model(input_ids=ids, labels=labels).loss) * labels.shape[1]
        count += labels.shape[1]
    scores = {(one.variant, one.metric): one for one in read_run(folder / "run").scores}
    found = scores[f"{name}-fp32", "perplexity"]
    assert found.value == pytest.approx(np.exp(nats / count), rel=1e-4)


def test_the_run_compares_the_two_and_batching_changes_no_text(folder: Path) -> None:
    run = read_run(folder / "run")
    scores = {(one.variant, one.metric): one for one in run.scores}
    assert scores["teacher-fp32", "agreement"].value == 1.0
    assert 0 < scores["student-fp32", "prefix_agreement"].value < 1
    assert {"rouge_l", "chrf"} <= {metric for _, metric in scores}
    changed = [one.changed_predictions for one in run.consistency]
    assert changed
    assert not any(changed)
    assert {trial.trial.variant for trial in run.trials} >= {"student-fp32"}
    # On a machine that stands still a window may see no answer through; not in every trial.
    told = [(one.trial.trial_id, one.valid, one.invalid_reason) for one in run.trials]
    assert any("ttft" in trial.latencies for trial in run.trials), told


def test_the_load_of_the_verdict_changes_no_text(folder: Path) -> None:
    run = read_run(folder / "run")
    assert run.decision is Decision.PASS
    (loaded,) = run.loaded
    assert (loaded.problem, loaded.samples, loaded.changed) == ("", len(ROWS), 0)
    assert loaded.requests_per_s > 0
    assert loaded.trial_id == run.verdicts[0].recommended
    under, alone = (
        {one.metric: one.value for one in side} for side in (loaded.scores, loaded.alone)
    )
    stored = {one.metric: one.value for one in run.scores if one.variant == loaded.variant}
    assert under == alone == {name: pytest.approx(stored[name], rel=1e-5) for name in alone}


def test_beams_that_nobody_gave_up_are_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pair(tmp_path, num_beams=4)
    asked = [str(_study(tmp_path)), "--out", str(tmp_path / "run")]
    assert run_command(["run", *asked]) == EXIT_USAGE
    told = " ".join(capsys.readouterr().err.split())
    assert "searches with 4 beams" in told
    assert "num_beams: 1" in told
    assert not (tmp_path / "run").exists()
