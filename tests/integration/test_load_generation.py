"""`harness load --generate` from the command to its records, on a server of known instants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from token_server import FakeTokenServer, Fault, Finish, Piece, Refusal, StreamScript, Usage, evenly

from harness.cli.main import run_command
from harness.runs.folder import read_run

SLO = "ttft p95 < 60 s, itl mean < 60 s, goodput > 0.1/s, error_rate < 50%"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as server:
        yield server


@pytest.mark.parametrize(
    ("api", "scheme"),
    [
        ("chat", "http"),
        pytest.param("completions", "http", marks=pytest.mark.slow),
        pytest.param("triton", "http", marks=pytest.mark.slow),
        ("triton", "grpc"),
    ],
)
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


GOOD = StreamScript(evenly(3, first_s=0.002, gap_s=0.002))
FAULTS = {
    "ok": GOOD,
    "http_400": GOOD.but(refusal=Refusal(400, "the prompt is longer than the context")),
    "http_429": GOOD.but(refusal=Refusal(429, retry_after_s=1)),
    "http_503": GOOD.but(refusal=Refusal(503, retry_after_s=1)),
    "not_streamed": GOOD.but(ignores_stream=True),
    "stream_error": GOOD.but(fault=Fault.ERROR, fault_after=1),
    "connection": GOOD.but(fault=Fault.RESET, fault_after=1),
    "unfinished": GOOD.but(fault=Fault.ENDED, fault_after=2),
    "stalled": GOOD.but(fault=Fault.STALLED, fault_after=1),
    "empty_answer": GOOD.but(pieces=()),
}
ODDITIES = {
    "no_done": GOOD.but(done=False),
    "no_finish_reason": GOOD.but(finish=Finish.NEVER),
    "no_usage": GOOD.but(usage=Usage.NEVER),
    "usage_differs": GOOD.but(told_tokens=1),
    "max_tokens_ignored": GOOD.but(pieces=evenly(9, first_s=0, gap_s=0), ignores_max_tokens=True),
    "invalid_utf8": GOOD.but(pieces=[Piece(0, "caf\udcc3"), Piece(0, "\udca9 ")]),
}
"""What counts as a success, and is told: the text's one character is cut between two events."""


def test_every_fault_is_counted_under_its_own_kind_and_no_request_is_lost(
    server: FakeTokenServer, tmp_path: Path
) -> None:
    scripts = {**FAULTS, **ODDITIES}
    server.begin(*scripts.values())
    out = tmp_path / "run"
    run_command([
        "load", "--url", f"http://{server.http}", "--model", "m", "--generate", "chat",
        "--concurrency", "1", "--duration", "12", "--warmup", "0.2", "--records",
        "--out", str(out), "--output-tokens", "6", "--stall-timeout", "2",
    ])  # fmt: skip
    rows = {one["id"]: one for one in pq.read_table(out / "records").to_pylist()}
    played = server.played[1:]  # the first prompt is asked before the load
    assert {one.identity for one in played} == rows.keys()
    for one in played:
        kind = list(scripts)[one.ordinal % len(scripts)]
        row = rows[one.identity]
        assert row["status"] == (kind if kind in FAULTS else "ok"), kind
    assert len(played) >= len(scripts), "each of them was met"
    (result,) = read_run(out).trials[-1:]
    assert result.streams is not None
    told = result.streams.counts.irregular
    assert set(told) >= ODDITIES.keys()
