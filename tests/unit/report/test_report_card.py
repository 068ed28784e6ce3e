from dataclasses import replace

import pandas as pd
import pytest
from sample_card import PLAN, run_with_card

from harness.report.build import build_report
from harness.report.card.page import card_frame
from harness.report.card.section import batch_plots
from harness.report.card.tables import card_table, export_table, served_table, throughput_table
from harness.report.card.values import cards_of
from harness.report.markdown import render_markdown
from harness.report.page import page_of
from harness.report.plots.base import styles_of
from harness.report.terminal.run import card_table as terminal_table
from harness.runs.journal import Journal
from harness.words.numbers import MINUS, TIMES
from tests.sample_run import sample_run
from tests.unit.report.test_report_terminal import printed


@pytest.fixture(scope="module")
def run():
    return run_with_card()


def test_every_number_stands_beside_the_teachers_of_the_same_runtime(run):
    frame = card_frame(run)
    own = frame[(frame.metric == "latency_p95") & (frame.runtime == "onnxruntime")]
    teacher = own[own.name == "topics-teacher-fp32"].iloc[0]
    student = own[own.name == "topics-student-int8"].iloc[0]
    assert teacher.ratio == 1
    assert student.teacher == teacher.value
    assert student.delta == pytest.approx(student.value - teacher.value)
    assert student.ratio == pytest.approx(student.value / teacher.value)
    torch = frame[(frame.metric == "latency_p95") & (frame.runtime == "pytorch")]
    assert torch[torch.name == "topics-student"].iloc[0].teacher == pytest.approx(
        torch[torch.name == "topics-teacher"].iloc[0].value
    )


def test_quality_is_the_endpoints_and_a_checkpoint_has_none(run):
    frame = card_frame(run)
    assert set(frame[frame.metric == "accuracy"].runtime) == {"onnxruntime"}
    perplexity = frame[frame.metric == "perplexity"]
    assert set(perplexity.name) == {
        "prose-teacher-fp32", "prose-student-fp32", "prose-control-fp32",
    }  # fmt: skip


def test_the_rate_of_one_in_flight_has_the_bounds_of_its_mean(run):
    frame = card_frame(run)
    own = frame[(frame.runtime == "served") & (frame.name == "topics-student-fp32")]
    rate = own[(own.metric == "throughput") & (own.batch_size == 4)].iloc[0]
    mean = own[(own.metric == "latency_mean") & (own.batch_size == 4)].iloc[0]
    assert rate.low == pytest.approx(4e3 / mean.high)
    assert rate.high == pytest.approx(4e3 / mean.low)


def test_tables_have_a_row_a_model_and_name_how_it_was_measured(run):
    card = cards_of(run)[0]
    table = card_table(card)
    assert [row[0].text for row in table.rows][:3] == [
        "topics-teacher", "topics-teacher-fp32", "topics-teacher-int8",
    ]  # fmt: skip
    for part in ("1,000 calls", "seed 20", "10 rounds", "1 thread", "PyTorch 2.13.0+cpu"):
        assert part in table.note
    assert "256 distinct" in card_table(cards_of(run)[1]).note
    assert len(throughput_table(card).columns) == 1 + 4 + 2 * 2
    export = export_table(card)
    assert export is not None
    # The sample's PyTorch is 2.2 times as slow.
    assert export.rows[0][3].text.startswith("0.455")


def test_a_difference_of_shares_is_one_of_points(run):
    table = card_table(cards_of(run)[0])
    place = next(at for at, one in enumerate(table.columns) if one.title == "Accuracy")
    row = next(row for row in table.rows if row[0].text == "topics-student-int8")
    assert row[place].detail.splitlines()[1] == f"{MINUS}2.40 points, 0.971{TIMES}"


def test_without_measurements_of_its_own_the_server_side_is_the_runs_trials():
    card = cards_of(run_with_card(served=False))[0]
    table = served_table(card)
    assert table is not None
    assert "own trials" in table.note
    row = next(row for row in table.rows if row[0].text == "topics-student-int8")
    assert "in flight" in row[2].detail


def test_the_report_holds_the_card_and_writes_it_alone_too(run, tmp_path):
    html, markdown = build_report(run, tmp_path)
    assert "What the export brought" in html.read_text()
    assert "### Report card" in markdown.read_text()
    for name in ("card.html", "card.md", "card.csv"):
        assert (tmp_path / name).stat().st_size > 0
    frame = pd.read_csv(tmp_path / "card.csv")
    key = ["name", "runtime", "metric", "batch_size", "length"]
    assert not frame.duplicated(key).any()
    keys = [plot.key for family in page_of(run).families for plot in family.plots]
    assert len(keys) == len(set(keys))


def test_a_run_without_a_card_has_none(tmp_path):
    build_report(sample_run(), tmp_path)
    assert not (tmp_path / "card.html").exists()


def test_the_terminals_card_fits_a_hundred_columns(run):
    text = printed(terminal_table(run))
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "topics-student-int8" in text


def test_entries_survive_the_journal(run, tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for entry in run.card:
        journal.add(entry)
    for one in run.served:
        journal.add(one)
    read = Journal.read(journal.path)
    assert tuple(read.card.values()) == run.card
    assert tuple(read.served.values()) == run.served
    assert next(iter(read.card.values())).plan == PLAN


def test_the_axis_of_throughput_reaches_to_the_ends_of_its_intervals(run):
    card = cards_of(run)[0]
    first = card.entries[0]
    wide = tuple(
        replace(one, per_s=replace(one.per_s, low=0.5, high=1e6)) for one in first.throughput
    )
    entries = (replace(first, throughput=wide), *card.entries[1:])
    for plot in batch_plots(replace(card, entries=entries), styles_of(card.family)):
        low, high = (10**end for end in plot.layout["yaxis"]["range"])
        assert low < 0.5
        assert high > 1e6


def test_markdown_has_brackets_where_the_page_has_small_type(run):
    text = render_markdown(page_of(run))
    assert "rounds, in brackets their range" in text
    assert "in small" not in text
