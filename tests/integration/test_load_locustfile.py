"""The locustfile by itself, as `locust -f locustfiles/triton.py` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import Behaviour, FakeServer, Fault, constant
from load_rig import checkout, environment, make_payloads

LOCUSTFILE = "locustfiles/triton.py"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.03))) as made:
        yield made


def locust(host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Locust without its page, for four seconds, with four users.

    Locust counts the time it takes to start as part of them, on a busy machine up to two.
    """
    command = [
        *(sys.executable, "-m", "locust", "-f", str(checkout() / LOCUSTFILE), "--host", host),
        *("--headless", "--users", "4", "--spawn-rate", "4", "--run-time", "4s"),
        *("--json", *arguments),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment(), check=False
    )


@pytest.mark.parametrize(("protocol", "request_type"), [("http", "HTTP"), ("grpc", "gRPC")])
def test_locusts_own_statistics_are_right(
    server: FakeServer, tmp_path: Path, protocol: str, request_type: str
) -> None:
    """The host's scheme alone chooses the user."""
    payloads = make_payloads(tmp_path)
    host = f"{protocol}://{getattr(server, protocol)}"
    done = locust(host, "--model", "m", "--payloads", str(payloads), "--client-batch-size", "3")
    assert done.returncode == 0, done.stderr
    (seen,) = json.loads(done.stdout)
    assert (seen["method"], seen["name"], seen["num_failures"]) == (request_type, "m", 0)
    # Locust ends by killing its users, up to four of them while they wait for an answer.
    assert 0 <= len(server.served) - seen["num_requests"] <= 4
    assert seen["min_response_time"] >= 30
    assert seen["total_content_length"] == seen["num_requests"] * 3 * 4 * 4
    assert {one.shape[0] for one in server.served} == {3}


def test_failures_stand_in_locusts_statistics_by_kind(server: FakeServer, tmp_path: Path) -> None:
    server.behaviour = Behaviour(constant(0.01), fault=Fault.EMPTY_OUTPUT)
    payloads = make_payloads(tmp_path)
    done = locust(f"http://{server.http}", "--model", "m", "--payloads", str(payloads))
    assert done.returncode == 1, done.stderr  # Locust's own word for failures
    (seen,) = json.loads(done.stdout)
    assert seen["num_failures"] == seen["num_requests"] > 10
    assert "empty_output: output logits" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model and --payloads say what"),
        (["--model", "m", "--payloads", "none.npz"], "none.npz: not a payload file"),
        (["TritonGrpcUser"], "TritonGrpcUser does not speak what --host http://"),
    ],
)
def test_a_mistake_is_named_and_ends_the_test(arguments: list[str], words: str) -> None:
    done = locust("http://127.0.0.1:1", *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
