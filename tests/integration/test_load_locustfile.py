"""The locustfile by itself, in one process, as `locust -f locustfiles/locustfile.py` runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import Behaviour, FakeServer, Fault, constant
from load_rig import make_payloads
from locust_command import locust, read, response_of

from harness import hdr

FOUR_USERS = ("--users", "4", "--spawn-rate", "4", "--run-time", "3s")
CLOSED = "http://127.0.0.1:1"
"""Nobody listens there."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.03))) as made:
        yield made


@pytest.fixture
def model(tmp_path: Path) -> tuple[str, ...]:
    return "--model", "m", "--payloads", str(make_payloads(tmp_path))


def host_of(server: FakeServer, protocol: str) -> tuple[str, str]:
    return "--host", f"{protocol}://{getattr(server, protocol)}"


@pytest.mark.parametrize(
    ("protocol", "request_type", "transport"),
    [("http", "HTTP", "native"), ("grpc", "gRPC", "native"), ("grpc", "gRPC", "grpcio")],
)
def test_every_request_is_in_locusts_statistics_and_in_the_histograms(
    server: FakeServer,
    model: tuple[str, ...],
    tmp_path: Path,
    protocol: str,
    request_type: str,
    transport: str,
) -> None:
    """Those in flight at the end are waited for; the host's scheme alone chooses the user."""
    file = tmp_path / "histograms.json"
    done = locust(
        *(*host_of(server, protocol), *model, *FOUR_USERS, "--client-batch-size", "3"),
        *("--transport", transport, "--histograms", str(file), "--json"),
    )
    assert done.returncode == 0, done.stderr
    (seen,) = json.loads(done.stdout)
    assert (seen["method"], seen["name"], seen["num_failures"]) == (request_type, "m", 0)
    assert seen["num_requests"] == len(server.served) > 40
    assert seen["min_response_time"] >= 30
    assert seen["total_content_length"] == seen["num_requests"] * 3 * 4 * 4
    assert {one.shape[0] for one in server.served} == {3}
    document = read(file)
    assert hdr.total(response_of(document)) == len(server.served)
    assert sum(phase["inferences"] for phase in document["phases"]) == 3 * len(server.served)
    assert [phase["name"] for phase in document["phases"]][:2] == ["ramp-up", "measured"]
    assert "HDR latency" in done.stderr  # standard output is the JSON's


def test_failures_stand_in_all_tables_by_kind(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    server.behaviour = Behaviour(constant(0.01), fault=Fault.EMPTY_OUTPUT)
    file = tmp_path / "histograms.json"
    done = locust(*host_of(server, "http"), *model, *FOUR_USERS, "--histograms", str(file))
    assert done.returncode == 1, done.stderr  # Locust's own word for failures
    assert "empty_output: output logits" in done.stderr
    assert "failed: empty_output" in done.stdout
    document = read(file)
    failures = sum(phase["failures"].get("empty_output", 0) for phase in document["phases"])
    assert failures == hdr.total(response_of(document, "failed")) > 10
    assert hdr.total(response_of(document)) == 0
    assert document["first_failure"].startswith("empty_output: output logits")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_open_loop_sends_what_falls_due_within_the_run_time(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path, protocol: str
) -> None:
    """100 a second at equal gaps for 3 s are 300, whatever the number of users says."""
    file = tmp_path / "histograms.json"
    done = locust(
        *(*host_of(server, protocol), *model, "--rate", "100", "--arrivals", "constant"),
        *("--run-time", "3s", "--users", "7", "--histograms", str(file)),
    )
    assert done.returncode == 0, done.stderr
    document = read(file)
    assert hdr.total(response_of(document)) == len(server.served) == 300
    assert sum(phase["dropped"] for phase in document["phases"]) == 0


def test_what_falls_due_with_too_many_in_flight_is_dropped_and_counted(
    server: FakeServer, model: tuple[str, ...]
) -> None:
    server.behaviour = Behaviour(constant(0.2))
    done = locust(
        *(*host_of(server, "http"), *model, "--rate", "100", "--arrivals", "constant"),
        *("--run-time", "3s", "--max-in-flight", "2"),
    )
    assert "dropped: fell due with too many requests in flight, never sent" in done.stderr
    (row,) = [line for line in done.stdout.splitlines() if "dropped: never sent" in line]
    assert int(row.split()[3].replace(",", "")) > 150


def test_a_sweep_gives_each_step_its_own_result(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "histograms.json"
    done = locust(
        *(*host_of(server, "http"), *model, "--sweep", "1,4", "--step-time", "3"),
        *("--histograms", str(file)),
    )
    assert done.returncode == 0, done.stderr
    document = read(file)
    steps = {phase["name"]: phase for phase in document["phases"] if "in flight" in phase["name"]}
    assert list(steps) == ["1 in flight", "4 in flight"]
    assert all(30 <= step["ok"]["response"]["p50_ms"] < 60 for step in steps.values())
    ratio = steps["4 in flight"]["requests_per_s"] / steps["1 in flight"]["requests_per_s"]
    assert 2.5 < ratio < 5.5
    assert "4 in flight" in done.stdout
    assert hdr.total(response_of(document)) == len(server.served)


def test_a_shape_moves_the_users(server: FakeServer, model: tuple[str, ...]) -> None:
    done = locust(
        *(*host_of(server, "http"), *model, "--users", "2", "--run-time", "4s"),
        *("--users-shape", "step:1..3/2s"),
    )
    assert done.returncode == 0, done.stderr
    assert "updating to 2 users" in done.stderr
    assert "updating to 6 users" in done.stderr


EXIT_OF = {"pass": 0, "fail": 3, "undecided": 4, "invalid": 5}


@pytest.mark.parametrize(
    ("objective", "verdict", "words"),
    [
        ("p95 < 60 s", "pass", "is under 60,000 ms"),
        ("p50 < 10 ms", "fail", "10 ms"),  # the server takes 30 ms
        ("error_rate < 0.0001%", "undecided", "would tell"),
        ("p95 < 60 s, accuracy >= 90%", "pass", "Not judged here: accuracy >= 90%"),
    ],
)
def test_the_verdict_is_said_in_words_and_is_the_exit_code(
    server: FakeServer, model: tuple[str, ...], objective: str, verdict: str, words: str
) -> None:
    """A machine that stalls may spoil the measurement: then that is said, and is the exit code."""
    done = locust(*host_of(server, "http"), *model, *FOUR_USERS, "--objective", objective)
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("Verdict on ")]
    told = said.split(": ", 1)[1].split(":")[0]
    assert told in {verdict, "invalid"}, said
    assert done.returncode == EXIT_OF[told], done.stdout
    if told != "invalid":
        assert words in done.stdout


def test_failures_that_the_objective_allows_are_no_failed_test(
    server: FakeServer, model: tuple[str, ...]
) -> None:
    """Locust's own exit code is 1 after any failure; the objective's says how many there may be."""
    server.behaviour = Behaviour(constant(0.02), fault=Fault.EMPTY_OUTPUT, fault_every=20)
    done = locust(
        *(*host_of(server, "http"), *model, *FOUR_USERS),
        *("--objective", "p50 < 60 s, error_rate < 45%"),
    )
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("Verdict on ")]
    assert done.returncode == EXIT_OF[said.split(": ", 1)[1].split(":")[0]]
    assert done.returncode in {0, 5}, done.stdout


def test_of_a_sweep_every_step_has_its_verdict(server: FakeServer, model: tuple[str, ...]) -> None:
    done = locust(
        *(*host_of(server, "http"), *model, "--sweep", "1,2", "--step-time", "3"),
        *("--objective", "p50 < 10 ms"),
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("Verdict of ")]
    assert [line.split(" on ")[0] for line in said] == [
        "Verdict of 1 in flight",
        "Verdict of 2 in flight",
    ]
    told = {line.split(": ", 1)[1].split(":")[0] for line in said}
    # A step that may yet pass leaves it open; a window of a second is short for a bound.
    expected = next(EXIT_OF[one] for one in ("undecided", "invalid", "fail") if one in told)
    assert done.returncode == expected, done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model and --payloads say what"),
        (["--model", "m", "--payloads", "none.npz"], "none.npz: not a payload file"),
        (["--rate", "0", "--model", "m", "--payloads", "x"], "a rate of 0 requests/s"),
        (
            ["--shape", "up", "--rate", "9", "--model", "m", "--payloads", "x"],
            "'up' is not a shape of a load",
        ),
        (["TritonGrpcUser", "--model", "m", "--payloads", "x"], "that is TritonHttpUser"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments: list[str], words: str) -> None:
    done = locust("--host", CLOSED, *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert words in line


@pytest.mark.parametrize(
    ("protocol", "arguments", "words"),
    [
        ("http", ["--model", "nope"], "has no model 'nope'; models that are ready there: m"),
        ("grpc", ["--model", "nope"], "has no model 'nope'; models that are ready there: m"),
        ("http", ["--client-batch-size", "65"], "the model takes at most 64"),
        ("nobody", [], "Connection refused"),
    ],
)
def test_a_server_that_cannot_serve_this_is_named_before_anything_starts(
    server: FakeServer, model: tuple[str, ...], protocol: str, arguments: list[str], words: str
) -> None:
    host = ("--host", CLOSED) if protocol == "nobody" else host_of(server, protocol)
    done = locust(*host, *model, *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert words in line
    assert not server.served
