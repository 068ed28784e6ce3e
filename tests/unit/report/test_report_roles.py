"""The three roles of a student on one section: what each figure is, and where it comes from."""

import dataclasses

import pytest
from rich.console import Console

from harness.report.family_results import families_of
from harness.report.markdown import render_markdown
from harness.report.page import page_of, render_html
from harness.report.roles.section import roles_section
from harness.report.roles.values import role_figures, role_trials
from harness.report.terminal.roles import roles_tables
from harness.types import RESPONSE, ROLES, STEADIER_REPEAT, TPOT, QualityScore, Role
from harness.types.estimates import Interval
from harness.types.roles import Cascade, StepCosts, StudentRoles
from harness.types.routing import RoutePoint
from harness.types.streams import NO_STREAMS, StreamFigures
from tests.sample_run import sample_run

TEACHER, STUDENT = "prose-teacher-fp32", "prose-student-fp32"
DRAFTED = f"{TEACHER}-speculative"
POINT = RoutePoint(
    0.4,
    routed=Interval(0.25, 0.1, 0.4),
    accuracy=Interval(0.9, 0.8, 0.95),
    kept=None,
    gained=0.2,
    lost=0.0,
    latency_ms=None,
    usd_per_million=None,
)
FOUND = StudentRoles(
    family="prose",
    teacher=TEACHER,
    student=STUDENT,
    speculative=DRAFTED,
    sha256="ab",
    draft_tokens=3,
    texts=64,
    same_texts=64,
    acceptance=Interval(0.72, 0.62, 0.81),
    tokens_per_run=Interval(2.1, 1.8, 2.4),
    costs=StepCosts(teacher_ms=2.0, verification_ms=3.0, draft_ms=0.5),
    predicted_speedup=0.93,
    cascade=Cascade(POINT, 0.95, False, 32, 32, rouge_kept=0.88),
)
PER_TOKEN_MS = {TEACHER: 2.0, DRAFTED: 1.6, STUDENT: 1.0}
RESPONSE_MS = {TEACHER: 40.0, DRAFTED: 32.0, STUDENT: 20.0}
REQUESTS_PER_S = {TEACHER: 50.0, DRAFTED: 40.0, STUDENT: 100.0}


def made_trials(base, *, scale=(1.0, 1.25)):
    """Two rounds of each model at 1 and 8 in flight; the second round's drafts are slower."""
    for number in (0, 1):
        for name, per_token_ms in PER_TOKEN_MS.items():
            for in_flight in (1, 8):
                slower = scale[number] if name == DRAFTED else 1.0
                workload = dataclasses.replace(base.trial.workload, concurrency=in_flight)
                trial = dataclasses.replace(
                    base.trial, variant=name, workload=workload, stage=ROLES, repeat=number
                )
                yield dataclasses.replace(
                    base,
                    trial=trial,
                    valid=True,
                    latencies={
                        **base.latencies,
                        RESPONSE: dataclasses.replace(base.latency, mean_ms=RESPONSE_MS[name]),
                        TPOT: dataclasses.replace(base.latency, mean_ms=per_token_ms * slower),
                    },
                    throughput_requests_per_s=REQUESTS_PER_S[name],
                    streams=StreamFigures(NO_STREAMS, 24 * REQUESTS_PER_S[name]),
                )


@pytest.fixture
def run():
    run = sample_run()
    base = next(one for one in run.trials if one.trial.variant == TEACHER and one.latency)
    score = QualityScore(STUDENT, "prose", Role.STUDENT, "agreement", 0.4, 0.3, 0.5, 64, "cd")
    return dataclasses.replace(
        run, roles=(FOUND,), role_trials=tuple(made_trials(base)), scores=(*run.scores, score)
    )


def prose(run):
    return next(one for one in families_of(run) if one.name == "prose")


def test_each_role_has_its_own_models_figures(run):
    family = prose(run)
    teacher, student, drafted, cascade = role_figures(family, FOUND, role_trials(family))
    assert (teacher.own_texts, student.own_texts, drafted.own_texts) == (1.0, 0.4, 1.0)
    assert (teacher.response_ms, student.response_ms, drafted.response_ms) == (40.0, 20.0, 32.0)
    assert (teacher.per_token_ms, student.per_token_ms) == (2.0, 1.0)
    assert drafted.per_token_ms == pytest.approx((1.6 + 2.0) / 2)
    assert (teacher.machine_s, student.machine_s, drafted.machine_s) == (20.0, 10.0, 25.0)
    assert (teacher.tokens_per_s, student.tokens_per_s) == (1200.0, 2400.0)
    # A quarter of the prompts go to the teacher as well, behind the student.
    assert cascade.is_estimate
    assert (cascade.own_texts, cascade.rouge_kept) == (0.9, 0.88)
    assert cascade.response_ms == 20.0 + 0.25 * 40.0
    assert cascade.machine_s == 10.0 + 0.25 * 20.0


def test_the_measured_speedup_stands_beside_the_predicted_round_by_round(run):
    family = prose(run)
    assert role_trials(family).speedups(FOUND, 1) == pytest.approx([2.0 / 1.6, 1.0])
    section = roles_section(family)
    said = {row[0].text: (row[1].text, row[2].text) for row in section.draft.rows}
    assert said["Predicted speed-up"][0] == "0.930\u00d7"
    assert said["Measured speed-up, 1 in flight"] == ("1.12\u00d7", "1.25\u00d7, 1.00\u00d7")
    assert "all 64 texts are the teacher's own" in section.summary


def test_invalid_trials_give_no_figure_and_are_told(run):
    trials = tuple(
        dataclasses.replace(one, valid=False, invalid_reason="the machine was busy")
        for one in run.role_trials
    )
    family = prose(dataclasses.replace(run, role_trials=trials))
    section = roles_section(family)
    assert role_trials(family).speedups(FOUND, 1) == []
    assert all(row[3].missing for row in section.roles.rows)
    assert "no valid closed loop" in section.summary
    assert "12 of the 12 closed loops are invalid" in section.notes[-1]


def test_a_round_measured_again_stands_in_its_first_place(run):
    first = next(one for one in run.role_trials if one.trial.variant == DRAFTED)
    again = dataclasses.replace(
        first,
        trial=dataclasses.replace(first.trial, repeat=STEADIER_REPEAT),
        latencies={**first.latencies, TPOT: dataclasses.replace(first.latency, mean_ms=4.0)},
    )
    family = prose(dataclasses.replace(run, role_trials=(*run.role_trials, again)))
    assert role_trials(family).speedups(FOUND, 1) == pytest.approx([0.5, 1.0])


def test_texts_that_are_not_the_teacher_s_are_told(run):
    other = dataclasses.replace(FOUND, same_texts=61, cascade=None, no_cascade="too few prompts")
    section = roles_section(prose(dataclasses.replace(run, roles=(other,))))
    assert "3 of 64 texts are not the teacher's own" in section.summary
    assert section.notes == ("No cascade: too few prompts.",)
    assert section.roles.rows[2][2].missing


def test_page_markdown_and_terminal_show_the_same(run):
    page = page_of(run)
    html, markdown = render_html(page), render_markdown(page)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(roles_tables(run))
    for shown in (html, markdown, capture.get()):
        assert "1.25\u00d7, 1.00\u00d7" in shown
        assert "First stage" in shown


def test_a_run_without_a_draft_shows_nothing():
    assert roles_tables(sample_run()) is None
    assert roles_section(prose(sample_run())) is None
