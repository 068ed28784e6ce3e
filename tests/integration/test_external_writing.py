"""A study of models that write, on servers of streams that are up: scored, driven, decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from generating_models import make_generator
from rouge_score.rouge_scorer import RougeScorer
from token_server import FakeTokenServer, Played, Refusal, StreamScript, evenly
from transformers import AutoTokenizer

from harness.cli.main import run_command
from harness.errors import EXIT_OBJECTIVE_NOT_MET, EXIT_OK, EXIT_USAGE
from harness.runs.folder import StoredRun, read_run
from harness.types import StreamApi
from tests.held_up import unhurried
from tests.local_study import write_study

WORDS = ["one", "two", "three", "four", "five", "six"]
ROWS = [
    {"prompt": " ".join([*WORDS[:length], f"end{row}"]), "reference": f"four five end{row}"}
    for row, length in enumerate([2, 3, 4, 5] * 3)
]
"""Prompts of 3, 4, 5 and 6 words: half of them of an even number."""
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"
)
AGREEMENT = "agreement >= 90%"
LATENCIES = "ttft p95 < 60 s, itl p99 < 20 s, goodput >= 0.01/s"
OWNED = ("--model-name", "student-fp32=owner/m")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizers of two models whose weights are elsewhere, and prompts."""
    folder = tmp_path_factory.mktemp("external-writing")
    for name in ("teacher", "student"):
        made = make_generator(folder / name)
        (made / "model.safetensors").unlink()
        tokenizer = AutoTokenizer.from_pretrained(made)
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(made)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return folder


def study(folder: Path, objective: str, *, chat: bool = False, duration_s: float = 0.5) -> Path:
    models = [
        {"name": name, "role": name, "checkpoint": str(folder / name)}
        for name in ("teacher", "student")
    ]
    task = {
        "kind": "generation",
        "data": {"source": "jsonl", "path": "rows.jsonl"},
        "max_length": 96,
        "max_new_tokens": 8,
        "stop": ["STOP"],
        "chat_template": chat,
    }
    families = [{"name": "lines", "task": task, "models": models}]
    file = write_study(
        folder, "external", families, protocols=["http"], batches=[1], objective=objective
    )
    document = yaml.safe_load(file.read_text())
    document["traffic"]["duration_s"] = duration_s
    file.write_text(yaml.safe_dump(document))
    return file


def run(server: FakeTokenServer, file: Path, out: Path, *more: str, scheme: str = "http") -> int:
    address = server.grpc if scheme == "grpc" else server.http
    names = ("--model-name", "teacher-fp32=m", *(more or ("--model-name", "student-fp32=m")))
    with unhurried():
        return run_command([
            "sweep", str(file), "--url", f"{scheme}://{address}", "--out", str(out), *names
        ])  # fmt: skip


def scores_of(stored: StoredRun, variant: str) -> dict[str, float]:
    return {one.metric: one.value for one in stored.scores if one.variant == variant}


def echoed(row: int, *, owned: bool) -> str:
    """What the server answers, as its script says."""
    words = ROWS[row]["prompt"].split()
    if owned and len(words) % 2 == 0:
        words[-1] = "else"
    return "".join(f"{word} " for word in words)


@pytest.mark.parametrize("api", [StreamApi.CHAT, StreamApi.COMPLETIONS])
def test_a_student_that_writes_otherwise_is_told_and_never_driven(
    server: FakeTokenServer, folder: Path, tmp_path: Path, api: StreamApi
) -> None:
    """Six of twelve texts are the teacher's, each paired with the same prompt's."""
    server.begin(StreamScript(evenly(8, first_s=0.0, gap_s=0.0), echoes=True))
    file = study(folder, f"{LATENCIES}, {AGREEMENT}", chat=api is StreamApi.CHAT)
    out = tmp_path / "run"
    code = run(server, file, out, *OWNED, "--generate", str(api))
    assert code == EXIT_OBJECTIVE_NOT_MET
    stored = read_run(out)
    assert scores_of(stored, "student-fp32")["agreement"] == pytest.approx(0.5)
    assert scores_of(stored, "teacher-fp32")["agreement"] == 1.0
    assert not [one for one in stored.trials if one.trial.variant == "student-fp32"]
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    for variant, owned in (("teacher-fp32", False), ("student-fp32", True)):
        expected = np.mean([
            scorer.score(one["reference"], echoed(row, owned=owned))["rougeL"].fmeasure
            for row, one in enumerate(ROWS)
        ])  # fmt: skip
        assert scores_of(stored, variant)["rouge_l"] == pytest.approx(expected)
    (verdict,) = stored.verdicts
    assert "student-fp32" in {one.variant for one in verdict.rejected}
    _check_asked(server.played, chat=api is StreamApi.CHAT)
    served = stored.manifest["server"]
    assert served["interfaces"] == [str(api)]
    assert served["models"] == {"teacher-fp32": "m", "student-fp32": "owner/m"}


def _check_asked(played: list[Played], *, chat: bool) -> None:
    """Greedily, in so many words, and as the task has its prompts: never as another text."""
    assert {one.asked["temperature"] for one in played} == {0}
    assert {tuple(one.asked["stop"]) for one in played} == {("STOP",)}
    assert {one.asked["model"] for one in played} == {"m", "owner/m"}
    prompts = {row["prompt"] for row in ROWS}
    if chat:
        messages = [one.asked["messages"] for one in played]
        assert all(list(map(set, one)) == [{"role", "content"}] for one in messages)
        assert {one[0]["content"] for one in messages} == prompts
    else:
        assert {one.asked["prompt"] for one in played} == prompts


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_anybody_s_triton_is_scored_by_text_and_driven_by_the_same_prompts(
    server: FakeTokenServer, folder: Path, tmp_path: Path, scheme: str
) -> None:
    """The server's own interface is found out, and what it cannot load is not loaded."""
    server.begin(StreamScript(evenly(8, first_s=0.01, gap_s=0.01), echoes=True))
    out = tmp_path / "run"
    code = run(server, study(folder, LATENCIES), out, scheme=scheme)
    stored = read_run(out)
    assert code != EXIT_USAGE
    assert scores_of(stored, "student-fp32")["agreement"] == 1.0
    trials = [one for one in stored.trials if one.trial.variant == "student-fp32"]
    assert trials
    assert all(one.failures == 0 for one in trials)
    generation = trials[0].trial.workload.generation
    assert generation is not None
    assert generation.api is StreamApi.TRITON
    told = [one.asked["sampling_parameters"] for one in server.played]
    asked = [json.loads(one) if isinstance(one, str) else one for one in told]
    assert {one["temperature"] for one in asked} == {0}
    assert {one.prompt for one in server.played} == {row["prompt"] for row in ROWS}


@pytest.mark.slow
def test_a_chat_is_driven_with_its_messages(
    server: FakeTokenServer, folder: Path, tmp_path: Path
) -> None:
    server.begin(StreamScript(evenly(8, first_s=0.01, gap_s=0.01), echoes=True))
    out = tmp_path / "run"
    file = study(folder, LATENCIES, chat=True, duration_s=3.0)  # some begin and end in it
    run(server, file, out, "--model-name", "student-fp32=m", "--generate", "chat")
    stored = read_run(out)
    trials = [one for one in stored.trials if one.trial.variant == "student-fp32"]
    assert trials
    assert trials[0].failures == 0
    assert trials[0].streams is not None
    assert trials[0].streams.counts.output_tokens > 0
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("objective", "more", "said"),
    [
        ("perplexity <= 1.1x teacher", (), "not how probable a reference is"),
        (AGREEMENT, ("--generate", "chat"), "--generate chat contradicts its task"),
        (AGREEMENT, ("--model-name", "student-fp32=nobody"), "no model 'nobody'"),
    ],
)
def test_what_cannot_be_scored_there_is_refused_before_anything_is_asked(
    server: FakeTokenServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    objective: str, more: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    server.begin(StreamScript(echoes=True))
    names = () if "nobody" in "".join(more) else ("--model-name", "student-fp32=m")
    file = study(folder, f"{LATENCIES}, {objective}")
    code = run(server, file, tmp_path / "run", *names, *more)
    assert code == EXIT_USAGE
    assert said in " ".join(capsys.readouterr().err.split())
    assert not server.played
    assert not (tmp_path / "run").exists()


def test_a_triton_that_takes_texts_alone_takes_no_conversations(
    server: FakeTokenServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study(folder, AGREEMENT, chat=True)
    assert run(server, file, tmp_path / "run") == EXIT_USAGE
    assert "takes texts alone, no input_ids" in " ".join(capsys.readouterr().err.split())


def test_a_server_that_refuses_the_first_prompt_is_told_before_any_load(
    server: FakeTokenServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.begin(StreamScript(refusal=Refusal(400, "longer than the context")))
    file = study(folder, AGREEMENT)
    code = run(server, file, tmp_path / "run", "--model-name", "student-fp32=m",
               "--generate", "completions")  # fmt: skip
    assert code == EXIT_USAGE
    told = " ".join(capsys.readouterr().err.split())
    assert "does not answer the first prompt" in told
    assert "longer than the context" in told


def test_evaluate_scores_without_any_load_and_refuses_tasks_of_tokens(
    server: FakeTokenServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.begin(StreamScript(evenly(8, first_s=0.0, gap_s=0.0), echoes=True))
    command = ["evaluate", str(study(folder, AGREEMENT)), "--url", f"http://{server.http}",
               "--model-name", "teacher-fp32=m", *OWNED, "--generate", "completions"]  # fmt: skip
    assert run_command([*command, "--out", str(tmp_path / "run")]) == EXIT_OK
    stored = read_run(tmp_path / "run")
    assert scores_of(stored, "student-fp32")["agreement"] == pytest.approx(0.5)
    assert not stored.trials
