"""`harness load --generate`: what its options refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from token_server import FakeTokenServer, Refusal, StreamScript

from harness.cli.generation_options import GenerationOptions
from harness.cli.main import run_command
from harness.types import StreamApi


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as server:
        yield server


def load(server: FakeTokenServer, *more: str, api: str = "chat", url: str = "") -> int:
    address = url or f"http://{server.http}"
    return run_command(["load", "--url", address, "--model", "m", "--generate", api, *more])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt-tokens", "x"], "'x' is no distribution of lengths"),
        (["--prompt-tokens", "3", "--length-trace", "pyproject.toml"], "contradict each other"),
        (["--length-trace", "pyproject.toml"], "no trace of lengths"),
        (["--prompts", "pyproject.toml"], "line 1: is no JSON object"),
        (["--prompts", "README.md", "--shared-prefix", "4"], "--shared-prefix is of made-up"),
        (["--leave", "120%"], "--leave 120%: a share is"),
        (["--think-time", "200"], "--think-time is of conversations"),
        (["--turns", "x"], "'x' is no distribution of lengths"),
        (["--turns", "2", "--prompts", "README.md"], "--turns is of made-up conversations"),
        (
            ["--sampling", '{"temprature": 1}'],
            "--sampling: sampling_parameters has no 'temprature'",
        ),
        (["--sampling", "{"], "is not JSON"),
        (["--sampling", "[1]"], "must be a JSON object"),
        (
            ["--sampling", '{"min_tokens": 65}'],
            "--sampling: min_tokens is 65, and a request is for 64 tokens at most",
        ),
        (["--sampling", '{"max_tokens": 16}'], "each request has its own next: say --output"),
        (["--sampling", '{"prompt_logprobs": true}'], "OpenAI's interface has no prompt_logprobs"),
        (["--batch-mix", "1:1"], "--batch-mix does not apply to --generate"),
        (["--client-batch-size", "4"], "a request is one prompt"),
        (["--payloads", "README.md"], "--payloads holds tensors"),
        (["--slo", "goodput > 1/s"], "goodput counts the requests that meet all clauses"),
        (["--tokenizer", "README.md"], "README.md: no tokenizer"),
        (["--transport", "grpcio"], "grpcio reads no streams"),
    ],
)
def test_what_makes_no_sense_is_refused(
    server: FakeTokenServer, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert load(server, *options) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_answers_may_have_a_least_length_above_the_default_s() -> None:
    """`min_tokens` is held against what the requests ask for, not against 16."""
    sampling = '{"min_tokens": 64, "ignore_eos": true}'
    options = GenerationOptions(StreamApi.CHAT, output_tokens="uniform:64..128", sampling=sampling)
    options.check()
    assert options.requests(1)


@pytest.mark.parametrize("api", ["completions", "triton"])
def test_messages_alone_are_sent_to_no_interface_of_texts(
    server: FakeTokenServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, api: str
) -> None:
    """They would have been empty prompts."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n{"prompt": "hi"}\n')
    assert load(server, "--prompts", str(rows), api=api) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"messages alone, and --generate {api} sends texts" in told


def test_options_of_streams_need_generate(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["load", "--url", "http://h:1", "--model", "m", "--leave", "5%"]) == 2
    assert "--leave applies only to models that generate" in capsys.readouterr().err
    assert run_command(["load", "--generate", "chat"]) == 2
    assert "--generate needs --url and --model" in capsys.readouterr().err


def test_an_objective_on_tokens_needs_generate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each of its trials would be undecided."""
    payloads = tmp_path / "rows.npz"
    payloads.write_bytes(b"")
    command = ["load", "--url", "http://h:1", "--model", "m", "--payloads", str(payloads)]
    assert run_command([*command, "--slo", "ttft p95 < 90 ms"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "the objective asks for ttft_p95, which only models that write have" in told


def test_an_objective_on_tokens_is_held_against_the_family_of_a_study_s_variant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = ["load", "studies/reference.yaml", "--slo", "ttft p95 < 90 ms"]
    assert run_command([*study, "--variant", "topics-student-fp32"]) == 2
    assert "family topics: the objective asks for ttft_p95" in capsys.readouterr().err
    writer = [*study, "--variant", "writer-student-fp32"]
    assert run_command([*writer, "--client-batch-size", "4", "--records"]) == 2
    assert "--records needs --out" in capsys.readouterr().err


def test_openai_s_interface_is_not_spoken_over_grpc(
    server: FakeTokenServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(server, url=f"grpc://{server.grpc}") == 2
    assert "is spoken over HTTP" in capsys.readouterr().err


def test_a_model_that_is_not_there_and_a_first_prompt_that_fails_are_told_before_the_load(
    server: FakeTokenServer, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["load", "--url", f"http://{server.http}", "--model", "n", "--generate", "chat"]
    assert run_command(command) == 2
    assert "no model 'n'" in capsys.readouterr().err
    server.begin(StreamScript(refusal=Refusal(400, "the prompt is longer than the context")))
    assert load(server) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "does not answer the first prompt: http_400" in told
    assert "longer than the context" in told
