"""`harness load --generate`: what its options refuse, and one trial from end to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from token_server import FakeTokenServer, Refusal, StreamScript, evenly

from harness.cli.main import run_command
from harness.runs.folder import read_run

SLO = "ttft p95 < 60 s, itl mean < 60 s, goodput > 0.1/s, error_rate < 50%"


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
        (
            ["--sampling", '{"temprature": 1}'],
            "--sampling: sampling_parameters has no 'temprature'",
        ),
        (["--sampling", "{"], "is not JSON"),
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


def test_options_of_streams_need_generate(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["load", "--url", "http://h:1", "--model", "m", "--leave", "5%"]) == 2
    assert "--leave applies only to models that generate" in capsys.readouterr().err
    assert run_command(["load", "--generate", "chat"]) == 2
    assert "--generate needs --url and --model" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("api", "scheme"), [("chat", "http"), ("completions", "http"), ("triton", "http"),
                        ("triton", "grpc")]
)  # fmt: skip
def test_a_trial_from_the_command_to_its_records(
    server: FakeTokenServer, tmp_path: Path, api: str, scheme: str
) -> None:
    server.begin(StreamScript(evenly(6, first_s=0.02, gap_s=0.01)))
    address = server.grpc if scheme == "grpc" else server.http
    out = tmp_path / "run"
    code = load(
        server, "--concurrency", "2", "--duration", "3", "--warmup", "0.3", "--slo", SLO,
        "--records", "--out", str(out), "--leave", "50%", "--output-tokens", "6", api=api, url=f"{scheme}://{address}",
    )  # fmt: skip
    (result,) = read_run(out).trials[-1:]
    assert code in {0, 4, 5}, "whatever the machine did meanwhile, nothing missed its bound"
    assert result.trial.workload.generation is not None
    assert result.failures == 0
    rows = pq.read_table(out / "records").to_pylist()
    answered = [one for one in rows if one["status"] == "ok"]
    assert {one["output_tokens"] for one in answered} == {6}
    assert all(len(one["itl_ns"]) == 5 for one in answered)
    assert any(one["status"] == "left" for one in rows)
    assert {one["status"] for one in rows} == {"ok", "left"}
    assert result.streams is not None
    assert result.streams.counts.left > 0
    by_id = {played.identity: played for played in server.played}
    for row in answered:
        sent = by_id[row["id"]].token_ns
        came = row["scheduled_ns"] + row["ttft_ns"][0]
        assert came >= sent[0]
        for gap in row["itl_ns"]:
            came += gap
        assert came >= sent[-1]
        assert came == row["completed_ns"]
    prompts = (out / "payloads" / "prompts.jsonl").read_text().splitlines()
    assert json.loads(prompts[0])["max_tokens"] == 6
