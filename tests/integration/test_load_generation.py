"""`harness load --generate` from the command to its records, on a server of known instants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from token_server import FakeTokenServer, StreamScript, evenly

from harness.cli.main import run_command
from harness.runs.folder import read_run

SLO = "ttft p95 < 60 s, itl mean < 60 s, goodput > 0.1/s, error_rate < 50%"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as server:
        yield server


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
    code = run_command([
        "load", "--url", f"{scheme}://{address}", "--model", "m", "--generate", api,
        "--concurrency", "2", "--duration", "5", "--warmup", "0.3", "--slo", SLO,
        "--records", "--out", str(out), "--leave", "50%", "--output-tokens", "6",
    ])  # fmt: skip
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


def test_a_model_s_name_may_hold_slashes(server: FakeTokenServer, tmp_path: Path) -> None:
    """As the hub's names do, and the paths by which `transformers serve` knows its models."""
    server.begin(StreamScript(evenly(3, first_s=0.01, gap_s=0.01)))
    out = tmp_path / "run"
    code = run_command([
        "load", "--url", f"http://{server.http}", "--model", "owner/m", "--generate", "chat",
        "--duration", "1", "--warmup", "0.2", "--out", str(out),
    ])  # fmt: skip
    (result,) = read_run(out).trials[-1:]
    assert code in {0, 5}, "whatever the machine did meanwhile, it was measured"
    assert result.failures == 0
    assert result.trial.variant == "owner-m"
    assert {played.asked["model"] for played in server.played} == {"owner/m"}


def test_conversations_go_on_behind_the_server_s_own_answers(
    server: FakeTokenServer, tmp_path: Path
) -> None:
    server.begin(StreamScript(evenly(2, first_s=0.01, gap_s=0.01)))
    out = tmp_path / "run"
    code = run_command([
        "load", "--url", f"http://{server.http}", "--model", "m", "--generate", "chat",
        "--concurrency", "2", "--duration", "3", "--warmup", "0.2", "--out", str(out),
        "--turns", "3", "--think-time", "40", "--prompt-tokens", "4", "--turn-tokens", "2",
    ])  # fmt: skip
    (result,) = read_run(out).trials[-1:]
    assert code in {0, 5}, "whatever the machine did meanwhile, it was measured"
    assert result.failures == 0
    assert "slow to send" not in (result.invalid_reason or "")
    talks = [played.asked["messages"] for played in server.played[1:]]  # the first is a trial ask
    assert {len(one) for one in talks} == {1, 3, 5}
    longest = next(one for one in talks if len(one) == 5)
    assert [one["role"] for one in longest] == ["user", "assistant"] * 2 + ["user"]
    assert [one["content"] for one in longest if one["role"] == "assistant"] == ["w0 w1 "] * 2
    assert [len(one["content"].split()) for one in longest if one["role"] == "user"] == [4, 2, 2]
