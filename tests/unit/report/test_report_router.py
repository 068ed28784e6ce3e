"""A router in the report: its words, its table, its picture, in both files."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_run import sample_run

from harness.report.build import build_report
from harness.report.routing.section import router_section
from harness.report.routing.words import deployed_words
from harness.runs.documents import write_document
from harness.types import Decision, ServingConfig
from harness.types.estimates import Interval
from harness.types.routing import (
    CalibratedThreshold,
    DeployedRouter,
    Route,
    RoutePoint,
    ServedModel,
)

SERVING = ServingConfig()
TRIAL = "topics-student-fp32-router--mb16-qd0-i1-t1--http-b1-c8"


def point(threshold: float, routed: float, kept: float | None) -> RoutePoint:
    known = None if kept is None else Interval(kept, kept - 0.02, kept + 0.02)
    accuracy = Interval(0.8, 0.77, 0.83)
    return RoutePoint(
        threshold, Interval(routed, routed, routed), accuracy, known, 0.02, 0.005, 12.5, None
    )


ROUTE = Route(
    family="topics",
    student="topics-student-fp32",
    teacher="topics-teacher-fp32",
    student_sha256="ab" * 32,
    teacher_sha256="cd" * 32,
    chosen=CalibratedThreshold(0.625, 0.95, 0.95, 0.01, 700, 9),
    at=point(0.625, 0.25, 0.98),
    curve=(point(0.0, 0.0, 0.9), point(0.5, 0.1, None), point(2.0, 1.0, 1.0)),
    held_out_rows=750,
    seed=20,
    served=(ServedModel(3.0), ServedModel(30.0)),
    trials=("a", "b"),
)
DEPLOYED = DeployedRouter(
    variant="topics-student-fp32-router",
    sha256="ef" * 32,
    student_serving=SERVING,
    teacher_serving=SERVING,
    rows=1500,
    routed=0.26,
    accuracy=Interval(0.8, 0.77, 0.83),
    kept=Interval(0.975, 0.955, 0.995),
    otherwise=3,
    keeps=Decision.PASS,
    decision=Decision.FAIL,
    summary="The router fails: too slow.",
    trials=(TRIAL,),
    routed_under_load=0.24,
)


def test_a_router_that_was_not_deployed_has_its_curve_alone() -> None:
    section = router_section(ROUTE)
    assert (section.deployed, section.sign, section.trials) == ("", None, ())
    assert section.summary.startswith(
        "topics-student-fp32 answers, and topics-teacher-fp32 below a confidence of 0.625: 25.0% "
    )
    thresholds = [row[0].plain for row in section.curve.rows]
    assert thresholds == ["0", "0.5", "0.625 (chosen)", "all"]
    (plot,) = section.plots
    # The point without an interval is in the table and not in the picture.
    assert plot.traces[0]["x"] == [0.0, 100.0]
    assert plot.traces[0]["y"] == pytest.approx([90.0, 100.0])
    assert plot.layout["shapes"][0]["y0"] == pytest.approx(95.0)


def test_a_deployed_router_is_a_point_of_the_picture_and_a_sentence() -> None:
    section = router_section(replace(ROUTE, deployed=DEPLOYED))
    square = section.plots[0].traces[-1]
    assert (square["x"], square["y"]) == ([26.0], [97.5])
    assert section.sign is not None
    assert section.sign.word == "Fail"
    assert section.deployed == (
        "Deployed as topics-student-fp32-router: it keeps 97.5% (95.5\u201399.5%) of the teacher's "
        "accuracy on 750 rows held out (promised 95%: within what was promised); the teacher was "
        "asked 26.0% of the scored rows and 24.0% of those under load. 3 of 1,500 rows were "
        "answered otherwise than the stored answers say. The router fails: too slow."
    )


def test_what_was_not_measured_is_not_said() -> None:
    less = replace(DEPLOYED, otherwise=0, routed_under_load=None, kept=None)
    said = deployed_words(ROUTE, replace(less, keeps=Decision.UNDECIDED))
    assert "under load" not in said
    assert "otherwise" not in said
    assert "too few rows to tell" in said


def test_both_files_have_it_and_lead_to_its_trial(tmp_path) -> None:
    write_document(tmp_path, "route", replace(ROUTE, deployed=DEPLOYED))
    html, markdown = build_report(sample_run(), tmp_path)
    assert 'id="router"' in html.read_text()
    assert TRIAL in html.read_text()
    for page in (html.read_text(), markdown.read_text()):
        assert "Deployed as topics-student-fp32-router" in page
        assert "0.625 (chosen)" in page
