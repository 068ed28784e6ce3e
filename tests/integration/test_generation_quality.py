"""harness evaluate on models that write: every number through Triton's streams is the library's."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from tiny_models import LINES, make_language_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.cli.main import run_command
from harness.errors import EXIT_OK, EXIT_UNDECIDED
from harness.load.requests.generation import read_requests
from harness.quality.collection import read_outcomes
from harness.quality.lm_eval.evaluation import read_samples
from harness.quality.lm_eval.tasks import lm_eval_quiet
from harness.runs.folder import read_run, samples_file
from harness.tasks.generation.outcomes import WrittenOutcomes
from tests.held_up import PATIENCE_S
from tests.lm_tasks import write_tasks
from tests.local_study import write_study
from tests.ports import free_port

NEW_TOKENS = 8
POSITIONS = 64
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
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


def test_chats_of_lm_evals_tasks_through_streams_are_its_own_in_process(
    folder: Path, tmp_path: Path
) -> None:
    """With the checkpoint's chat template, an example as turns of its own, and the task's stops."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    chats = tmp_path / "chats"
    for name in ("teacher", "student"):
        shutil.copytree(folder / name, chats / name)
        tokenizer = AutoTokenizer.from_pretrained(chats / name)
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(chats / name)
    shutil.copy(folder / "rows.jsonl", chats)
    study = chats / "writing.yaml"
    study.write_text((folder / "writing.yaml").read_text().replace(str(folder), str(chats)))
    asked = {"num_fewshot": 1, "apply_chat_template": True, "fewshot_as_multiturn": True}
    code = run_command([
        "evaluate", str(study), "--out", str(chats / "run"),
        "--repository", str(chats / "repository"), "--include-path", str(folder / "tasks"),
        "--tasks", "local_gen", "--num-fewshot", "1", "--apply-chat-template",
        "--fewshot-as-multiturn",
    ])  # fmt: skip
    assert code == EXIT_OK
    with lm_eval_quiet():
        stock = simple_evaluate(
            model="hf",
            model_args={
                "pretrained": str(chats / "teacher"),
                "dtype": "float32",
                "max_length": POSITIONS - 1,
            },
            tasks=["local_gen"],
            device="cpu",
            batch_size=1,
            task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
            bootstrap_iters=0,
            **asked,
        )
    file = chats / "run" / "lm_eval" / "teacher-fp32" / "samples_local_gen.jsonl"
    ours = {one["doc_id"]: one for one in read_samples(file)}
    assert stock is not None
    theirs = {one["doc_id"]: one for one in stock["samples"]["local_gen"]}
    assert ours.keys() == theirs.keys()
    for number, mine in ours.items():
        _assert_alike(mine["filtered_resps"], theirs[number]["filtered_resps"])
        said = str(theirs[number]["arguments"])
        assert said.count("[user]") == 2, "an example and the question"
        assert "[user]" in str(mine["arguments"])


def _assert_alike(mine: Any, theirs: Any) -> None:
    if isinstance(mine, list | tuple):
        for one, other in zip(mine, theirs, strict=True):
            _assert_alike(one, other)
    elif isinstance(mine, float):
        assert mine == pytest.approx(theirs, abs=1e-3)
    else:
        assert str(mine) == str(theirs)


def test_serve_openai_answers_until_it_is_interrupted_and_leaves_nothing(folder: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "harness", "serve", str(folder / "writing.yaml"), "--json",
               "--repository", str(folder / "repository"), "--openai", str(port)]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stdout is not None
    # The JSON document ends in its own line: everything is loaded by then.
    document = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    base = f"http://127.0.0.1:{port}/v1"
    assert document["openai"] == base
    with urllib.request.urlopen(f"{base}/models") as answer:
        listed = {one["id"] for one in json.load(answer)["data"]}
    assert listed == {"teacher-fp32", "student-fp32"}
    body = {"model": "teacher-fp32", "prompt": ROWS[0]["prompt"], "max_tokens": 4, "temperature": 0}
    asked = urllib.request.Request(
        f"{base}/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] == 4
    started = psutil.Process(process.pid).children(recursive=True)
    assert started, "Triton runs below it"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert not psutil.wait_procs(started, timeout=PATIENCE_S)[1], "a process is left"
    with socket.create_server(("127.0.0.1", port)):
        pass  # the port is free again


@pytest.mark.parametrize("chat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_harness_run_drives_the_prompts_as_streams(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, *, chat: bool
) -> None:
    """Plain, and in a chat template: the tokens that were scored are those that are sent."""
    out = tmp_path_factory.mktemp("driven") / "run"
    document = yaml.safe_load((folder / "writing.yaml").read_text())
    document["objective"] = f"ttft p50 < 60 s, {document['objective']}"
    document["families"][0]["task"]["chat_template"] = chat
    study = folder / f"driven-{chat}.yaml"
    study.write_text(yaml.safe_dump(document))
    for name in ("teacher", "student"):
        template = folder / name / "chat_template.jinja"
        template.write_text(TEMPLATE) if chat else template.unlink(missing_ok=True)
    asked = ["run", str(study), "--out", str(out), "--repository", str(folder / "repository")]
    # What a busy machine makes of the trials is undecided: what they are of, is not.
    assert run_command([*asked, "--no-saturation"]) in {EXIT_OK, EXIT_UNDECIDED}
    run = read_run(out)
    assert {trial.trial.variant for trial in run.trials} >= {"student-fp32"}
    for trial in run.trials:
        assert trial.trial.workload.generation is not None
        if not trial.latencies:
            continue  # a machine that stood still: no request fell due in the window
        counts = {span: summary.count for span, summary in trial.latencies.items()}
        # Every answer has NEW_TOKENS tokens, or fewer where it ended by itself.
        assert 0 < counts["ttft"] <= counts["itl"] <= (NEW_TOKENS - 1) * counts["ttft"]
        # The server tells how long each request waited for a slot.
        for one in run.records[trial.trial.trial_id]:
            assert one.queue_ms is not None
            assert one.first_ms is not None
            assert 0 <= one.queue_ms < one.first_ms - one.sent_ms
    assert (out / "verdict.json").is_file()
    if chat:
        tokenizer = AutoTokenizer.from_pretrained(folder / "teacher")
        wanted = {
            tuple(
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": row["prompt"]}],
                    add_generation_prompt=True,
                    return_dict=False,
                )
            )
            for row in ROWS
        }
        for pool in (out / "payloads").glob("*.jsonl"):
            assert {one.input_ids for one in read_requests(pool)} == wanted


def test_the_checkpoints_are_written_for_vllm_too(folder):
    for name in ("teacher", "student"):
        written = folder / "repository-vllm" / name / "1" / "model.json"
        arguments = json.loads(written.read_text())
        assert arguments["model"] == str(folder / name)
        assert arguments["max_model_len"] == POSITIONS
