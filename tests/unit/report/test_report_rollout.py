"""A rollout in the report and on the terminal: words, decisions, pictures, in both files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from sample_run import sample_run

from harness.planning.rollout.stages import begin, look
from harness.report.build import build_report
from harness.report.rollout.section import rollout_section
from harness.report.rollout.words import outcome_words, sizes_words
from harness.report.terminal.rollout import changes_table
from harness.runs.documents import read_document, write_document
from harness.types import Decision
from harness.types.rollout import (
    BadOutcome,
    Comparison,
    Guardrail,
    PlannedSize,
    RollbackCheck,
    RolloutMode,
    RolloutPlan,
    RolloutRecord,
    RolloutStage,
    RolloutStatus,
    RolloutTraffic,
    Tally,
)

ERRORS = Guardrail("error_rate < 2%", BadOutcome.FAILED, Comparison.LIMIT, 0.02)
WRONG = Guardrail("accuracy", BadOutcome.WRONG, Comparison.PAIRED, 0.1, factor=0.9)
PLAN = RolloutPlan(
    "student", "teacher", (ERRORS, WRONG),
    (RolloutStage(0.1), RolloutStage(1.0)), RolloutMode.MIRROR,
)  # fmt: skip
GOOD = {"error_rate < 2%": Tally(0, 1000), "accuracy": Tally(0, 0, 0, 0, 900, 20, 20, 60)}
FAILING = {"error_rate < 2%": Tally(200, 1000), "accuracy": GOOD["accuracy"]}
FEW = {"error_rate < 2%": Tally(0, 10), "accuracy": Tally(0, 0, 0, 0, 9, 0, 0, 1)}


def test_the_terminal_shows_a_reason_as_it_stands():
    found = record(GOOD)
    reason = 'no data: sum(refunds{shop=~"[a-z]+"})'
    (one,) = found.looks
    told = replace(
        found, looks=(replace(one, reason=reason),), state=replace(found.state, changes=())
    )
    stream = io.StringIO()
    Console(file=stream, width=150, color_system=None).print(changes_table(told))
    assert reason in stream.getvalue()


def record(*observed: dict[str, Tally]) -> RolloutRecord:
    """Of these looks, one a minute."""
    state, looks = begin(PLAN), []
    for number, counts in enumerate(observed, start=1):
        state = look(state, number, counts)
        assert state.last is not None
        looks.append(state.last)
    return RolloutRecord(
        family="topics",
        student_sha256="ab" * 32,
        teacher_sha256="cd" * 32,
        traffic=RolloutTraffic(1000, 8, 0, 0, through_router=True),
        planned=(
            PlannedSize("error_rate < 2%", 630),
            PlannedSize("accuracy", None, "the stored answers say nothing of it"),
        ),
        notes=("`mean < 5 ms` is no guardrail: it says nothing of a single request",),
        state=state,
        looks=tuple(looks),
        looked_utc=("2026-01-01T00:00:00+00:00",) * len(looks),
    )


def test_the_evidence_is_drawn_up_to_promotion_and_down_to_rollback() -> None:
    found = record(FEW, GOOD, FAILING)
    assert found.state.status is RolloutStatus.ROLLED_BACK
    weight, evidence = rollout_section(found).plots
    assert weight.traces[0]["x"] == [1, 2, 3, 4]
    assert weight.traces[0]["y"] == [10, 10, 100, 0]
    within, beyond, *_ = evidence.traces
    assert (within["name"], within["x"]) == ("error_rate &lt; 2%", [1, 2, 3])
    assert 0 < within["y"][0] < 1 <= within["y"][1]  # decided at the second look
    assert beyond["y"][0] == beyond["y"][1] == 0
    assert beyond["y"][2] <= -1  # and back at the third
    assert [line["y0"] for line in evidence.layout["shapes"]] == [1, -1]


def test_a_look_passes_where_the_evidence_reaches_one() -> None:
    """The picture and the decision come of the same number."""
    for one in record(FEW, GOOD, FAILING).looks:
        for finding in one.findings:
            assert finding.passes == (finding.within >= 1)
            assert finding.breaches == (finding.beyond >= 1)


def test_the_table_has_the_decisions_and_the_last_look() -> None:
    rows = rollout_section(record(FEW, GOOD, FEW)).changes.rows
    assert [[cell.plain for cell in row[:2]] for row in rows] == [["2", "10%"], ["3", "100%"]]
    assert rows[0][2].tone == "pass"
    assert rows[1][2].tone == "undecided"
    assert rows[1][3].plain.startswith("not certain yet: error_rate < 2%: ")


@pytest.mark.parametrize(
    ("observed", "decision", "said"),
    [
        ((FEW,), Decision.UNDECIDED, "student is held at 10% of the traffic after 1 look: not"),
        (
            (GOOD, GOOD),
            Decision.PASS,
            "student has taken over from teacher after 2 looks: certainly within every limit: ",
        ),
        (
            (FAILING,),
            Decision.FAIL,
            "student was rolled back at 10% of the traffic, at look 1: certainly beyond the limit:",
        ),
    ],
)
def test_the_outcome_says_where_it_stands_and_why(
    observed: tuple[dict[str, Tally], ...], decision: Decision, said: str
) -> None:
    found = record(*observed)
    assert found.decision is decision
    assert outcome_words(found).startswith(said)


def test_a_rollback_without_effect_is_said() -> None:
    found = record(FAILING)
    assert outcome_words(replace(found, rollback=RollbackCheck(50, 0))).endswith(
        "The teacher answered all of the 50 requests sent after it."
    )
    assert outcome_words(replace(found, rollback=RollbackCheck(50, 3))).endswith(
        "But the student still answered 3 of the 50 requests sent after it."
    )


def test_planned_sizes_are_said_and_why_there_is_none() -> None:
    assert sizes_words(record(FEW)) == (
        (
            "error_rate < 2%: about 630 requests of the student pass the 10% stage with 80% "
            "probability, by the offline scores"
        ),
        "accuracy: no planned size, as the stored answers say nothing of it",
    )


def test_both_files_have_it_and_the_document_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = record(FEW, GOOD, FAILING)
    write_document(tmp_path, "rollout", found)
    assert read_document(tmp_path, "rollout", RolloutRecord) == found
    html, markdown = build_report(sample_run(), tmp_path)
    assert 'id="rollout"' in html.read_text()
    for page in (html.read_text(), markdown.read_text()):
        assert "student was rolled back at 100% of the traffic" in page
        assert "no guardrail" in page


def test_a_rollout_that_has_not_looked_yet_has_no_picture() -> None:
    section = rollout_section(record())
    assert section.plots == ()
    assert section.changes.rows == ()
    assert section.outcome == "student is held at 10% of the traffic after 0 looks."
