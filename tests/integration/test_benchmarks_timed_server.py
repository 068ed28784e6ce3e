"""The benchmarks' server of known latencies: its truth is what clients see, its theory holds."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from latency_cases import CASES, CONSTANT_S, STALL_BASE_S, Stall, draw_latency
from timed_process import timed_server

NO_STALL = Stall(1.0, 10.0)
REQUESTS = 30
STALLS_S, LEAVES_S = 4.0, 1.0
"""A client leaves when it has surely asked, and long before it is answered."""
NEVER_AGAIN_S = 1e12


def ask(protocol: str, address: str) -> list[int]:
    """Latencies in nanoseconds as tritonclient sees them, one after another."""
    module = tritonclient.http if protocol == "http" else tritonclient.grpc
    client = module.InferenceServerClient(address)
    tokens = np.ones((1, 32), np.int64)
    tensor = module.InferInput("input_ids", tokens.shape, "INT64")
    tensor.set_data_from_numpy(tokens)
    spans = []
    for _ in range(REQUESTS):
        start = time.monotonic_ns()
        answer = client.infer("any", [tensor])
        spans.append(time.monotonic_ns() - start)
        assert answer.as_numpy("logits").tolist() == [list(range(10))]
    client.close()
    return spans


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_log_holds_what_every_request_took(protocol: str, tmp_path: Path):
    with timed_server("constant", tmp_path, NO_STALL) as server:
        seen = ask(protocol, server.http if protocol == "http" else server.grpc)
    log = np.load(server.log)
    took = log[:, 1] - log[:, 0]
    assert len(took) == REQUESTS
    assert took.min() >= CONSTANT_S * 1e9
    # Whoever waits for the answer waits at least as long as the server took over it.
    assert all(np.array(seen) >= took)
    assert server.truth_ms(1.0, log[0, 0], log[-1, 0] + 1) == pytest.approx(took.max() / 1e6)
    assert server.truth_ms(0.5, log[3, 0], log[4, 0]) == pytest.approx(took[3] / 1e6)


def test_a_client_that_leaves_early_leaves_no_record(tmp_path: Path):
    stall = Stall(time.monotonic() + STALLS_S, NEVER_AGAIN_S)
    with timed_server("stall", tmp_path, stall) as server:
        module = tritonclient.grpc
        with module.InferenceServerClient(server.grpc) as client:
            tensor = module.InferInput("input_ids", [1, 1], "INT64")
            tensor.set_data_from_numpy(np.ones((1, 1), np.int64))
            answered = ask_until_late(client, tensor)
            client.infer("any", [tensor])
    assert len(np.load(server.log)) == answered + 1


def ask_until_late(client: tritonclient.grpc.InferenceServerClient, tensor: Any) -> int:
    """Leave one request early; how many were answered before.

    A client that stood still finds its answer there, though its time is over.
    """
    for answered in range(REQUESTS):
        try:
            client.infer("any", [tensor], client_timeout=LEAVES_S)
        except tritonclient.grpc.InferenceServerException as error:
            if "Deadline" not in str(error):
                raise
            return answered
    pytest.fail("each was answered in time")


@pytest.mark.parametrize("stall", [Stall(1.0, 10.0), Stall(0.2, 2.0), Stall(3.0, 4.0)])
@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 0.99])
def test_theory_of_the_stall_is_what_even_arrivals_meet(stall: Stall, quantile: float):
    draw = draw_latency("stall", stall)
    due_ns = np.linspace(0, 5 * stall.period_s, 50_000, endpoint=False) * 1e9
    responses = [draw(int(at)) for at in due_ns]
    assert np.quantile(responses, quantile) == pytest.approx(stall.response_s(quantile), abs=1e-3)


def test_theory_by_hand():
    stall = Stall(1.0, 10.0)
    expected = [STALL_BASE_S, STALL_BASE_S + 0.5, STALL_BASE_S + 0.9]
    assert [stall.response_s(q) for q in (0.5, 0.95, 0.99)] == pytest.approx(expected)


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_draws_the_same_latencies(case: str):
    first, second = (draw_latency(case, NO_STALL, seed=7) for _ in range(2))
    assert [first(at) for at in range(100)] == [second(at) for at in range(100)]
