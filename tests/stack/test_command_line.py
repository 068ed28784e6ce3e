"""`docker compose run --rm harness ...`: the scripted way, inside the stack's network."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from load import VARIANTS, WORKERS
from stack import Stack

from harness.runs.folder import read_run
from harness.types import Decision
from tests.held_up import HeldUp, is_held_up

URL = ("--url", "grpc://triton:8001")


@pytest.fixture
def out(stack: Stack) -> Path:
    """A run folder yet to be, in the checkout's own folder of runs, which the service mounts."""
    return stack.checkout / "runs" / f"test-{secrets.token_hex(4)}"


def harness(stack: Stack, *arguments: str, exit_code: int = 0) -> str:
    # Docker Compose needs no profile for the service that it is asked to run; podman-compose does.
    # The service's name for its container it has to be asked for; podman-compose always sets it.
    named = [] if stack.engine.name == "podman" else ["--use-aliases"]
    command = ("--profile=tools", "run", "--rm", "-T", *named, "harness", *arguments)
    return stack.compose(*command, exit_code=exit_code)


@contextmanager
def judged_by_its_trials(run: Path) -> Iterator[None]:
    """A failure is the machine's where the run's own trials say that other work disturbed them."""
    shutil.rmtree(run, ignore_errors=True)  # of the attempt before
    try:
        yield
    except AssertionError as failure:
        reasons = [one.invalid_reason for one in read_run(run).trials] if run.exists() else []
        disturbed = list(filter(is_held_up, reasons))
        if disturbed:
            raise HeldUp(disturbed[0]) from failure
        raise


def test_load_measures_the_stack_and_leaves_its_run_outside(stack: Stack, out: Path) -> None:
    with judged_by_its_trials(out):
        harness(
            stack, "load", "studies/study.yaml", "--variant", VARIANTS[1], *URL,
            "--duration", "3", "--slo", "p95 < 60 s", "--out", f"runs/{out.name}",
        )  # fmt: skip
    (trial,) = read_run(out).trials
    assert trial.requests > 0


@pytest.mark.parametrize(
    ("slo", "exit_code", "decision"),
    [
        pytest.param("p95 < 5 s", 0, Decision.PASS, id="met"),
        pytest.param("p95 < 1 us", 3, Decision.FAIL, id="missed"),
        # Half a second's requests, none of which failed, cannot tell.
        pytest.param("error_rate < 0.001%", 4, Decision.UNDECIDED, id="undecided"),
    ],
)
def test_a_sweep_of_the_stack_ends_with_its_verdict_and_a_report(
    stack: Stack,
    out: Path,
    tell: Callable[[str], None],
    slo: str,
    exit_code: int,
    decision: Decision,
) -> None:
    with judged_by_its_trials(out):
        told = harness(
            stack, "sweep", "studies/study.yaml", *URL, "--slo", slo, "--out", f"runs/{out.name}",
            exit_code=exit_code,
        )  # fmt: skip
    tell(told[told.rindex("  sentences: ") :])
    run = read_run(out)
    assert run.decision is decision
    assert run.trials
    assert (out / "report.html").stat().st_size > 100_000


def test_a_sweep_by_the_stacks_workers_who_then_serve_the_page_again(
    stack: Stack, out: Path, tell: Callable[[str], None]
) -> None:
    """They come by the service's name and hold nothing of what they send."""
    with judged_by_its_trials(out):
        told = harness(
            stack, "sweep", "studies/study.yaml", *URL, "--slo", "p95 < 5 s",
            "--listen", "0.0.0.0:5557", "--expect-workers", str(WORKERS),
            "--out", f"runs/{out.name}",
        )  # fmt: skip
    tell(told[told.rindex("  sentences: ") :])
    run = read_run(out)
    assert run.decision is Decision.PASS
    hosts = {stack.inspect(one)["Config"]["Hostname"] for one in stack.containers("locust-worker")}
    log = (out / "logs" / "switchboard.log").read_text()
    assert len(hosts) == WORKERS
    assert all(f"on {host}" in told or host in log for host in hosts)
    stack.wait_for(lambda: len(page_workers(stack)) == WORKERS, "the workers back at the page")


def page_workers(stack: Stack) -> list[object]:
    """Those that the page can start a load on."""
    known: list[dict[str, object]] = stack.get("LOCUST_PORT", "stats/requests")["workers"]
    return [one for one in known if one["state"] == "ready"]
