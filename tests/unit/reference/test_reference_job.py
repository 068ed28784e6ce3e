"""What goes to a training process and comes back survives the wire."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError, EnvironmentFailure, MissingExtraError, StorageError
from harness.reference.processes import Advanced, Failed, Job, read_message
from harness.reference.recipes import RECIPES


def test_a_job_survives():
    job = Job(Path("/cache/reference/abc"), 20, ("topics-data",), tuple(RECIPES.values()))
    assert Job.from_json(job.to_json()) == job


@given(st.text(), st.floats(min_value=0, max_value=1e9))
def test_an_advance_survives(unit, cost_ms):
    message = Advanced(unit, cost_ms)
    assert read_message(message.to_json()) == message
    assert "\n" not in message.to_json()


@pytest.mark.parametrize("kind", [DataError, StorageError, MissingExtraError])
def test_an_error_comes_back_as_what_it_was(kind):
    sent = Failed(kind.__name__, "what\nand where", "what next")
    received = read_message(sent.to_json())
    assert isinstance(received, Failed)
    error = received.to_error()
    assert type(error) is kind
    assert str(error) == "what\nand where"
    assert error.next_step == "what next"


def test_an_unknown_error_is_the_environments():
    assert type(Failed("NoSuchError", "what", "").to_error()) is EnvironmentFailure
