"""The section on a job with a deadline: its pictures as plotly reads them, its words."""

import sys
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest

sys.path.append(str(Path(__file__).parents[1] / "planning"))
from cost_samples import STUDENT, TEACHER
from test_offline_plan import FOUR, TWO, ask, run, scores
from test_report_plots import resolved, themes

from harness.report.offline.section import offline_section
from harness.report.offline.tables import duration, job_words, needs_table
from harness.types.estimates import Interval
from harness.types.offline import OfflineTerms


@pytest.fixture
def section():
    return offline_section(ask(instances=(TWO, FOUR)))


def test_pictures_are_what_plotly_takes(section):
    assert [one.key for one in section.plots] == ["offline-batches-1", "offline-machines"]
    for one in section.plots:
        go.Figure(resolved(one.figure, themes()["light"]))  # plotly refuses an unknown colour
        assert one.summary


def test_the_ring_is_at_the_batch_that_is_taken(section):
    rings = [one for one in section.plots[0].traces if one["name"] == "batch taken"]
    assert sorted((one["x"][0], one["y"][0]) for one in rings) == [(1, 250.0), (1, 1000.0)]


def test_the_teacher_stands_beside_its_student(section):
    assert [row[0].text for row in section.needs.rows] == [TEACHER, TEACHER, STUDENT, STUDENT]
    (beside,) = section.beside
    assert beside.startswith(
        "teacher needs 20 (18\N{EN DASH}22) machines where student needs 6 (6\N{EN DASH}7)"
    )
    assert "USD per job instead of" in beside
    assert section.choices[0].startswith("topics: student at batch 1 on 7 two machines; with one")


def test_what_fails_on_quality_is_in_the_table_and_not_recommended():
    table = needs_table(ask(run(scores=scores(relative=0.8))))
    rows = {row[0].text: row for row in table.rows}
    assert rows[STUDENT][2].text == "Fail"
    assert "recommended" not in rows[STUDENT][0].detail
    assert "recommended" in rows[TEACHER][0].detail


def test_cells_are_as_many_as_columns_with_and_without_a_price_and_in_brief():
    for plan in (ask(), ask(instances=())):
        for brief in (False, True):
            table = needs_table(plan, brief=brief)
            assert {len(row) for row in table.rows} == {len(table.columns)}


def test_times_and_jobs_read_well():
    assert [duration(one) for one in (21600.0, 750.0, 0.45)] == ["6.00 h", "12.5 min", "0.45 s"]
    assert job_words(OfflineTerms(10**7, 5400.0, 2.0)) == (
        "10,000,000 documents, 2 rows each, within 1.50 h"
    )


def test_the_axis_of_machines_reaches_to_the_ends_of_every_interval():
    plan = ask()
    first = plan.variants[0]
    slow = replace(first.needs[0], with_stragglers=Interval(20.0, 1.0, 5000.0))
    variants = (replace(first, needs=(slow, *first.needs[1:])), *plan.variants[1:])
    plot = offline_section(replace(plan, variants=variants)).plots[1]
    assert 10 ** plot.layout["xaxis"]["range"][1] > 5000.0
