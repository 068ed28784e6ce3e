"""How a session of Locust ends of which too little is known: with an error, not with success."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from locust.env import Environment

from harness.errors import EXIT_ENVIRONMENT, EXIT_USAGE, StorageError
from harness_locust import session_log
from harness_locust.session_log import SessionLog
from harness_locust.verdict import VerdictAtEnd


def conductor(objective: str = "") -> Any:
    options = SimpleNamespace(objective=objective, json=False)
    return SimpleNamespace(environment=Environment(), options=options, watchers=[])


@pytest.mark.parametrize(
    ("objective", "before", "after"),
    [
        ("p95 < 10 ms", None, EXIT_ENVIRONMENT),
        ("p95 < 10 ms", EXIT_USAGE, EXIT_USAGE),
        ("", None, None),
    ],
)
def test_an_objective_of_which_nothing_was_measured_is_an_error(
    objective: str, before: int | None, after: int | None
) -> None:
    made = conductor(objective)
    made.environment.process_exit_code = before
    VerdictAtEnd(made, SimpleNamespace(current=None)).session_ended()  # type: ignore[arg-type]
    assert made.environment.process_exit_code == after


def test_a_run_folder_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    made = conductor()
    folder: Any = SimpleNamespace(path="run", journal=SimpleNamespace(add=full))
    phase = SimpleNamespace(name="measured", start_s=0.0, duration_s=1.0)
    watched: Any = SimpleNamespace(
        number=1, ended_s=1.0, verdicts={"measured": SimpleNamespace(result=None)},
        results=SimpleNamespace(phases=lambda _: [phase]),
    )  # fmt: skip
    monkeypatch.setattr(session_log, "test_document", lambda *_: {})
    monkeypatch.setattr(session_log, "summary_rows", lambda *_: [])
    monkeypatch.setattr(session_log, "_series_rows", lambda *_: [])
    monkeypatch.setattr(session_log, "load_of", full)
    log = SessionLog(made, SimpleNamespace(current=watched), folder)  # type: ignore[arg-type]
    log.test_ended()
    assert log.problem == "the run folder lacks test 1: the disk is full"
    assert made.environment.process_exit_code == StorageError.exit_code
