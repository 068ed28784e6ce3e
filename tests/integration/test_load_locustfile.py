"""The locustfile by itself, in one process, as `locust -f locustfiles/locustfile.py` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import Behaviour, FakeServer, Fault, constant
from load_rig import checkout, environment, make_payloads, read_records
from locust_command import LIMIT_S, locust, read, response_of, served

from harness import hdr

FOUR_USERS = ("--users", "4", "--spawn-rate", "4")
MANY = ("--users", "16", "--spawn-rate", "16")
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
        until=served(server, 80),
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
    done = locust(
        *(*host_of(server, "http"), *model, *FOUR_USERS, "--histograms", str(file)),
        until=served(server, 30),
    )
    assert done.returncode == 1, done.stderr  # Locust's own word for failures
    assert "empty_output: output logits" in done.stderr
    assert "failed: empty_output" in done.stdout
    document = read(file)
    failures = sum(phase["failures"].get("empty_output", 0) for phase in document["phases"])
    assert failures == hdr.total(response_of(document, "failed")) > 10
    assert hdr.total(response_of(document)) == 0
    assert document["first_failure"].startswith("empty_output: output logits")


CTRL_C_IN_A_THREAD = """
import signal
import sys
import threading
from locust import events
sys.path.insert(0, {locustfiles!r})
from locustfile import *


@events.spawning_complete.add_listener
def press(**_):
    threading.Thread(target=signal.raise_signal, args=[signal.SIGINT]).start()
"""


def test_ctrl_c_ends_the_test_wherever_it_comes(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    locustfile = tmp_path / "pressed.py"
    locustfile.write_text(CTRL_C_IN_A_THREAD.format(locustfiles=str(checkout() / "locustfiles")))
    done = locust(*host_of(server, "http"), *model, *FOUR_USERS, locustfile=locustfile)
    assert done.returncode == 0, done.stderr
    assert "Shutting down (exit code 0)" in done.stderr
    assert "Exception in thread" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("protocol", [pytest.param("http", marks=pytest.mark.slow), "grpc"])
def test_an_open_loop_sends_what_falls_due_within_the_run_time(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path, protocol: str
) -> None:
    """100 a second at equal gaps for 2 s are 200, whatever the number of users says."""
    file = tmp_path / "histograms.json"
    done = locust(
        *(*host_of(server, protocol), *model, "--rate", "100", "--arrivals", "constant"),
        *("--run-time", "2s", "--users", "7", "--histograms", str(file)),
    )
    assert done.returncode == 0, done.stderr
    document = read(file)
    assert hdr.total(response_of(document)) == len(server.served) == 200
    assert sum(phase["dropped"] for phase in document["phases"]) == 0


@pytest.mark.slow
def test_a_closed_loop_ends_with_the_run_time(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    """How much it sends until then is the machine's affair; nothing falls due afterwards."""
    file, records = tmp_path / "histograms.json", tmp_path / "records"
    done = locust(
        *(*host_of(server, "http"), *model, *FOUR_USERS, "--run-time", "2s"),
        *("--histograms", str(file), "--records", str(records)),
    )
    assert done.returncode == 0, done.stderr
    document = read(file)
    assert hdr.total(response_of(document)) == len(server.served)
    due_ns = read_records(records).scheduled_ns
    assert len(due_ns) == len(server.served)
    assert (due_ns < document["start_monotonic_ns"] + 2e9).all()
    assert document["phases"][-1]["name"] == "draining"
    assert document["phases"][-1]["start_s"] == 2.0


def test_what_falls_due_with_too_many_in_flight_is_dropped_and_counted(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "histograms.json"
    server.behaviour = Behaviour(constant(1.0))
    done = locust(
        *(*host_of(server, "http"), *model, "--rate", "100", "--arrivals", "constant"),
        *("--run-time", "2s", "--max-in-flight", "2", "--histograms", str(file)),
    )
    assert "dropped: fell due with too many requests in flight, never sent" in done.stderr
    (row,) = [line for line in done.stdout.splitlines() if "dropped: never sent" in line]
    dropped = sum(phase["dropped"] for phase in read(file)["phases"])
    assert dropped + len(server.served) == 200
    assert dropped > 100  # two at a time would have to go on for 50 s
    assert 0 < int(row.split()[3].replace(",", "")) <= dropped  # of what was measured


def test_a_sweep_gives_each_step_its_own_result_and_verdict(
    server: FakeServer, model: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "histograms.json"
    done = locust(
        *(*host_of(server, "http"), *model, "--sweep", "1,4", "--step-time", "3"),
        *("--histograms", str(file), "--objective", "p50 < 10 ms"),
    )
    document = read(file)
    steps = {phase["name"]: phase for phase in document["phases"] if "in flight" in phase["name"]}
    assert list(steps) == ["1 in flight", "4 in flight"]
    for step in steps.values():
        assert step["ok"]["response"]["p50_ms"] >= 30
        assert step["requests_per_s"] == pytest.approx(step["completed"] / step["duration_s"])
    most = [most_in_flight(server, document, step) for step in steps.values()]
    assert most[0] == 1 < most[1] <= 4
    assert "4 in flight" in done.stdout
    assert hdr.total(response_of(document)) == len(server.served)

    said = [line for line in done.stdout.splitlines() if line.startswith("Verdict of ")]
    assert [line.split(" on ")[0] for line in said] == [f"Verdict of {name}" for name in steps]
    told = {line.split(": ", 1)[1].split(":")[0] for line in said}
    # A step that may yet pass leaves it open; a window of a second is short for a bound.
    expected = next(EXIT_OF[one] for one in ("undecided", "invalid", "fail") if one in told)
    assert done.returncode == expected, done.stdout


def most_in_flight(server: FakeServer, document: dict[str, Any], step: dict[str, Any]) -> int:
    """At a time, by the server's own record, of what it received within a step."""
    first_ns = document["start_monotonic_ns"] + step["start_s"] * 1e9
    last_ns = first_ns + step["duration_s"] * 1e9
    inside = [one for one in server.served if first_ns <= one.received_ns < last_ns]
    in_flight: list[int] = [
        sum(other.received_ns <= one.received_ns < other.answered_ns for other in inside)
        for one in inside
    ]
    return max(in_flight, default=0)


@pytest.mark.slow
def test_a_shape_moves_the_users(server: FakeServer, model: tuple[str, ...]) -> None:
    done = locust(
        *(*host_of(server, "http"), *model, "--users", "2", "--run-time", "600s"),
        *("--users-shape", "step:1..3/2s"),
        until=lambda said: all(f"updating to {one} users" in said for one in (2, 6)),
    )
    assert done.returncode == 0, done.stderr
    assert "updating to 2 users" in done.stderr
    assert "updating to 6 users" in done.stderr


EXIT_OF = {"pass": 0, "fail": 3, "undecided": 4, "invalid": 5}


def judged(
    server: FakeServer, verdict: str, *arguments: str
) -> tuple[subprocess.CompletedProcess[str], str]:
    """A session and the verdict that it ends with, as long as it takes to tell.

    Where a window was too short for what is expected of it, which a slow machine makes of any, the
    product says "undecided" and how much longer would tell: then it is measured longer, as advised.
    """
    for lasting_s in (2.0, 8.0, 32.0):
        server.served.clear()
        done = locust(
            *host_of(server, "http"), *arguments, until=served(server, 1000, for_s=lasting_s)
        )
        (said,) = [line for line in done.stdout.splitlines() if line.startswith("Verdict on ")]
        told = said.split(": ", 1)[1].split(":")[0]
        if told != "undecided" or verdict == "undecided":
            break
    return done, told


@pytest.mark.parametrize(
    ("objective", "verdict", "words"),
    [
        ("p50 < 10 ms", "fail", "10 ms"),  # the server takes 30 ms
        ("error_rate < 0.0001%", "undecided", "would tell"),
    ],
)
def test_the_verdict_is_said_in_words_and_is_the_exit_code(
    server: FakeServer, model: tuple[str, ...], objective: str, verdict: str, words: str
) -> None:
    """A machine that stalls may spoil the measurement: then that is said, and is the exit code."""
    both = f"{objective}, accuracy >= 90%"
    done, told = judged(server, verdict, *model, *MANY, "--objective", both)
    assert told in {verdict, "invalid"}, done.stdout
    assert done.returncode == EXIT_OF[told], done.stdout
    assert "Not judged here: accuracy >= 90%" in done.stdout
    if told != "invalid":
        assert words in done.stdout


@pytest.mark.slow
def test_failures_that_the_objective_allows_are_no_failed_test(
    server: FakeServer, model: tuple[str, ...]
) -> None:
    """Locust's own exit code is 1 after any failure; the objective's says how many there may be."""
    server.behaviour = Behaviour(constant(0.02), fault=Fault.EMPTY_OUTPUT, fault_every=20)
    objective = "p50 < 60 s, error_rate < 45%"
    done, told = judged(server, "pass", *model, *MANY, "--objective", objective)
    assert told in {"pass", "invalid"}, done.stdout
    assert done.returncode == EXIT_OF[told]
    if told == "pass":
        assert "is under 60,000 ms" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "m", "--payloads", "none.npz"], "none.npz: not a payload file"),
        (["TritonGrpcUser", "--model", "m", "--payloads", "x"], "that is TritonHttpUser"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments: list[str], words: str) -> None:
    """Of every kind there is: test_load_locust_results."""
    done = locust("--host", CLOSED, *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert words in line


ASK = """
import sys
sys.path.insert(0, {locustfiles!r})
from locust import main  # as it is loaded: the interpreter is patched before anything else
from locust.argument_parser import get_parser
from harness_locust.arguments import add_arguments
from harness.errors import HarnessError
from harness_locust.plan import make_plan
from harness_locust.preflight import check_plan

for host, *arguments in {asked!r}:
    parser = get_parser()
    add_arguments(parser)
    options = parser.parse_args(["--host", host, *{model!r}, *arguments])
    try:
        check_plan(make_plan(options, host))
    except HarnessError as error:
        print(" ".join(str(error).split()), error.next_step, sep="; ")
"""


def test_a_server_that_cannot_serve_this_is_named_before_anything_starts(
    server: FakeServer, model: tuple[str, ...]
) -> None:
    """Each by itself in a process that has what Locust has; one as Locust's own command."""
    http, grpc = host_of(server, "http")[1], host_of(server, "grpc")[1]
    nope = "has no model 'nope'; models that are ready there: m"
    wrong = {
        (http, "--model", "nope"): nope,
        (grpc, "--model", "nope"): nope,
        (http, "--client-batch-size", "65"): "the model takes at most 64",
        (CLOSED,): "Connection refused",
    }
    asked = [list(one) for one in wrong]
    locustfiles = str(checkout() / "locustfiles")
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(locustfiles=locustfiles, asked=asked, model=model)],
        capture_output=True, text=True, timeout=LIMIT_S, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words, line in zip(wrong.values(), done.stdout.splitlines(), strict=True):
        assert words in line

    whole = locust("--host", http, *model, "--client-batch-size", "65")
    assert whole.returncode == 2, whole.stderr
    (line,) = [line for line in whole.stderr.splitlines() if "ERROR" in line]
    assert "the model takes at most 64" in line
    assert not server.served
