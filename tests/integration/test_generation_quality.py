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
from harness.errors import EXIT_OK, EXIT_UNDECIDED
from harness.quality.collection import read_outcomes
from harness.quality.lm_eval.evaluation import read_samples
from harness.quality.lm_eval.tasks import lm_eval_quiet
from harness.runs.folder import read_run, samples_file
from harness.tasks.generation.outcomes import WrittenOutcomes
from tests.lm_tasks import write_tasks
from tests.local_study import write_study

NEW_TOKENS = 8
POSITIONS = 64
TASKS = ("local_gen", "local_mc", "local_ppl")
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
        "max_length": POSITIONS,
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
    tasks = str(write_tasks(folder / "tasks", documents=8))
    asked = [str(study), "--out", out, "--repository", repository, "--include-path", tasks]
    assert run_command(["evaluate", *asked, "--tasks", ",".join(TASKS)]) == 0
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


@pytest.fixture(scope="module")
def stock(folder: Path) -> dict[str, Any]:
    """lm-eval's own word on the teacher's checkpoint: `--model hf`, in this process."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    with lm_eval_quiet():
        results = simple_evaluate(
            model="hf",
            # A row is a prompt to the served model: the token that is only predicted must fit.
            model_args={
                "pretrained": str(folder / "teacher"),
                "dtype": "float32",
                "max_length": POSITIONS - 1,
            },
            tasks=list(TASKS),
            device="cpu",
            batch_size=1,
            task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
            bootstrap_iters=0,
        )
    assert results is not None
    return dict(results)


@pytest.mark.parametrize("task", TASKS)
def test_lm_evals_tasks_through_streams_are_its_own_in_process(
    folder: Path, stock: dict[str, Any], task: str
) -> None:
    file = folder / "run" / "lm_eval" / "teacher-fp32" / f"samples_{task}.jsonl"
    ours = {one["doc_id"]: one for one in read_samples(file)}
    theirs = {one["doc_id"]: one for one in stock["samples"][task]}
    assert ours.keys() == theirs.keys()
    assert ours
    for number, mine in ours.items():
        _assert_alike(mine["filtered_resps"], theirs[number]["filtered_resps"])


def _assert_alike(mine: Any, theirs: Any) -> None:
    if isinstance(mine, list | tuple):
        for one, other in zip(mine, theirs, strict=True):
            _assert_alike(one, other)
    elif isinstance(mine, float):
        assert mine == pytest.approx(theirs, abs=1e-3)
    else:
        assert str(mine) == str(theirs)


def test_harness_run_drives_the_prompts_as_streams(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("driven") / "run"
    document = (folder / "writing.yaml").read_text()
    study = folder / "driven.yaml"
    objective = "objective: prefix_agreement >= 10%"
    assert objective in document
    study.write_text(document.replace(objective, f"objective: ttft p50 < 60 s, {objective[11:]}"))
    asked = ["run", str(study), "--out", str(out), "--repository", str(folder / "repository")]
    # What a busy machine makes of the trials is undecided: what they are of, is not.
    assert run_command([*asked, "--no-saturation"]) in {EXIT_OK, EXIT_UNDECIDED}
    run = read_run(out)
    assert {trial.trial.variant for trial in run.trials} >= {"student-fp32"}
    for trial in run.trials:
        assert trial.trial.workload.generation is not None
        counts = {span: summary.count for span, summary in trial.latencies.items()}
        # Every answer has NEW_TOKENS tokens, or fewer where it ended by itself.
        assert 0 < counts["ttft"] <= counts["itl"] <= (NEW_TOKENS - 1) * counts["ttft"]
    assert (out / "verdict.json").is_file()


def test_the_checkpoints_are_written_for_vllm_too(folder):
    for name in ("teacher", "student"):
        written = folder / "repository-vllm" / name / "1" / "model.json"
        arguments = json.loads(written.read_text())
        assert arguments["model"] == str(folder / name)
        assert arguments["max_model_len"] == POSITIONS
