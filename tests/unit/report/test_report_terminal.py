import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from sample_card import run_with_card
from sample_run import sample_run
from unusual_runs import UNUSUAL

from harness.cli.session import print_outcome
from harness.report.family_results import families_of
from harness.report.page import page_of
from harness.report.selection import best_of_variant
from harness.report.terminal.run import (
    cold_start_table,
    quality_table,
    verdict_summary,
    verdict_table,
)
from harness.report.terminal.trial import trial_table
from harness.study.objective import parse_objective
from harness.words.numbers import MISSING, milliseconds

RUNS = {"sample_run": sample_run, **UNUSUAL}


def printed(renderable, width=100):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(renderable)
    return stream.getvalue()


def test_a_mix_of_batch_sizes_reads_as_one_everywhere():
    run, mix = sample_run(), ((1, 0.75), (16, 0.25))
    winner = families_of(run)[0].recommended
    workload = replace(winner.trial.workload, batch_mix=mix)
    mixed = replace(winner, trial=replace(winner.trial, workload=workload))
    others = [one for one in run.trials if one.trial.family != "topics"]
    series = {mixed.trial.trial_id: run.series[winner.trial.trial_id]}
    run = replace(run, trials=(mixed, *others), saturation=(mixed,), series=series)
    assert "gRPC b1 to 16 c16" in printed(verdict_table(run))
    family = page_of(run).families[0]
    assert "batch 1 to 16" in family.rates.rows[0][0].detail
    assert [plot.title for plot in family.throughput] == ["Client batch 1 to 16"]
    assert "batch 1 to 16" in family.starts[0].title
    assert family.split.layout["yaxis"]["ticktext"] == ["student-int8 · b1 to 16"]


@pytest.mark.parametrize("name", RUNS)
def test_every_run_fits_a_hundred_columns(name):
    run = RUNS[name]()
    tables = (verdict_table(run), quality_table(run), cold_start_table(run))
    for renderable in (*tables, verdict_summary(run)):
        assert all(len(line) <= 100 for line in printed(renderable).splitlines())


def test_nothing_is_cut_off_at_a_hundred_columns():
    run = sample_run()
    text = printed(verdict_table(run)) + printed(quality_table(run))
    assert "…" not in text
    for variant in run.variants:
        assert variant.name in text


def test_a_variant_is_one_line():
    run = sample_run()
    names = {name for family in families_of(run) for name in family.names}
    lines = printed(verdict_table(run)).splitlines()
    assert len(lines) == 2 + len(names)  # under the title and the columns' names


def test_families_judged_on_different_latencies_say_which():
    run = sample_run()
    prose = parse_objective("p90 < 30 ms")
    table = printed(verdict_table(replace(run, objectives={**run.objectives, "prose": prose})))
    assert "Latency ms" in table
    line = next(one for one in table.splitlines() if one.startswith("prose-student-fp32"))
    best = best_of_variant(families_of(run)[1], "prose-student-fp32")
    assert f"p90 {milliseconds(best.latency.percentiles['p90'].value_ms)} " in line


def test_a_row_says_quality_best_trial_latency_and_decision():
    lines = printed(verdict_table(sample_run())).splitlines()
    row = next(line for line in lines if line.startswith("topics-student-int8"))
    for part in ("79.7%", "97.1% 9", "gRPC b16 c16", "11,552", "29.4 2", "✓ Recommended"):
        assert part in row
    tiny = next(line for line in lines if line.startswith("topics-tiny"))
    assert "✕ Fail (quality)" in tiny


def test_the_summary_names_the_trial_and_the_next_step():
    assert "topics-student-int8--mb16-qd0-i2-t1--grpc-b16-c16-r1" in printed(
        verdict_summary(sample_run())
    )
    assert "next: raise traffic.duration_s to 20" in printed(
        verdict_summary(UNUSUAL["undecided"]())
    )


def test_the_summary_says_what_the_search_spent():
    lines = printed(verdict_summary(sample_run())).splitlines()
    assert any(line.startswith("  search: 55 trials in ") for line in lines)
    assert "search:" not in printed(verdict_summary(UNUSUAL["no_trials"]()))


def test_an_open_loop_s_best_trial_is_named_by_its_rate():
    assert "gRPC b16 736/s" in printed(verdict_table(UNUSUAL["open_loop"]()))


def test_a_cold_start_without_a_steady_state_has_dashes():
    rows = printed(cold_start_table(sample_run())).splitlines()
    restless = next(row for row in rows if row.startswith("topics-teacher-int8"))
    assert restless.split()[1:] == ["1.31", "9.12", *[MISSING] * 3]
    settled = next(row for row in rows if row.startswith("topics-teacher-fp32"))
    assert settled.split()[1:] == ["1.31", "12.3", "38", "requests", "0.21", "2.05"]


def test_markup_in_names_is_printed_as_it_stands():
    run = UNUSUAL["hostile"]()
    assert "<img src=x" in printed(verdict_table(run))


@pytest.mark.parametrize("name", ["sample_run", "no_server_metrics", "nothing_answered"])
def test_a_trial_by_itself_shows_what_is_known(name):
    for result in RUNS[name]().trials:
        text = printed(trial_table(result))
        assert result.trial.variant in text
        assert ("invalid" in text) == (not result.valid)


def outcome(capsys, *, verbose):
    print_outcome(run_with_card(), Path("runs/today"), as_json=False, verbose=verbose)
    return capsys.readouterr().out


def test_a_run_ends_with_verdict_variants_and_the_report_s_path(capsys):
    text = outcome(capsys, verbose=False)
    places = [text.index(part) for part in ("✓ Pass  topics", "Every variant at", "report: runs/")]
    assert places == sorted(places)
    assert text.splitlines()[-1] == "report: runs/today/report.html"
    assert "Report card" not in text
    assert "From cold to steady" not in text


def test_verbose_prints_the_long_tables_before_the_verdict(capsys):
    short, long = outcome(capsys, verbose=False), outcome(capsys, verbose=True)
    assert long.endswith(short)
    for title in ("Report card: in this process", "From cold to steady"):
        assert title in long.removesuffix(short)
