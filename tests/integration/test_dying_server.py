"""The embedded server killed at each stage of a run: exit 5, how it ended, and how to go on.

It is killed in the instant before a request, so the request fails before the end of the process
can be seen: what a test with a thread beside the run meets only by chance.
"""

import os
import signal
from contextlib import contextmanager

import psutil
import pytest
import yaml

from harness.cli.main import run_command
from harness.errors import EXIT_ENVIRONMENT
from harness.flow import cold_start, null_model, trial
from harness.runs.folder import read_run
from harness.serving.endpoint import TritonClient
from tests.held_up import unhurried

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("server_environment")]


@pytest.fixture(scope="module")
def small(local_study):
    """A point for each of two models."""
    document = yaml.safe_load(local_study.read_text())
    document["traffic"] |= {"protocols": ["http"], "client_batch_sizes": [4], "duration_s": 2.0}
    path = local_study.with_name("small.yaml")
    path.write_text(yaml.safe_dump(document))
    return path


def kill_server():
    """Kill the command's own server: the last that was started, others may serve other tests."""
    servers = [one for one in psutil.Process().children() if one.name() == "tritonserver"]
    os.kill(max(servers, key=lambda one: one.create_time()).pid, signal.SIGKILL)


@contextmanager
def killed_before(owner, name, *, call=1):
    """Kill the server right before the `call`-th call of a function."""
    real, calls = getattr(owner, name), []

    def killing(*arguments, **settings):
        calls.append(1)
        if len(calls) == call:
            kill_server()
        return real(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, killing)
        yield
    assert len(calls) >= call, "it was never called"


STAGES = {
    "a model is loaded to be scored": ("evaluate", TritonClient, "load", 1),
    "a model is scored": ("evaluate", TritonClient, "infer", 3),
    "a model is asked row by row for the losses": ("evaluate", TritonClient, "load", 2),
    "the null model is measured": ("run", null_model, "drive_alone", 1),
    "a model is loaded for its cold start": ("run", trial, "measure_cold_start", 1),
    "a cold start is measured": ("run", cold_start, "drive_alone", 1),
    "known answers are asked for": ("run", trial, "known_answers_file", 1),
    "a trial of the card is prepared": ("card", trial, "known_answers_file", 2),
}
QUICK = ("a model is scored", "a model is loaded for its cold start")
"""The others take the same way; they are seen to in `make check-slow`."""


@pytest.mark.parametrize(
    "stage",
    [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in STAGES],
)
def test_a_server_killed_while(stage, small, tmp_path, capsys):
    command, owner, name, call = STAGES[stage]
    folder = tmp_path / "run"
    repository = str(small.parent / "model_repository")
    arguments = [command, str(small), "--out", str(folder), "--repository", repository]
    capsys.readouterr()

    with unhurried(), killed_before(owner, name, call=call):
        code = run_command(arguments)

    errors = capsys.readouterr().err
    assert code == EXIT_ENVIRONMENT, errors
    assert "Triton ended by signal SIGKILL; its log's last lines:" in errors
    assert "memory is short" in errors
    assert "triton.log" in errors
    assert "--resume" in errors
    assert not read_run(folder).trials, "a dead server is no trial's result"
