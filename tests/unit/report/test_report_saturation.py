"""Measured latency over rate in the report: points, intervals, the objective, what is invalid."""

from dataclasses import replace

from queueing_model import BOUND_MS, measure
from sample_run import sample_run

from harness.report.family_results import families_of
from harness.report.markdown import render_markdown
from harness.report.page import page_of, render_html
from harness.types import RESPONSE, SATURATION, ArrivalProcess, LoadMode, Percentile

RATES = (100.0, 200.0, 300.0)


def opened(result, rate, *, valid=True, repeat=0):
    """An open loop in the configuration of a trial."""
    workload = replace(
        result.trial.workload,
        load_mode=LoadMode.OPEN,
        arrivals=ArrivalProcess(),
        rate_per_s=rate,
    )
    trial = replace(result.trial, workload=workload, stage=SATURATION, repeat=repeat)
    made = measure(trial, valid=valid)
    return replace(made, offered_requests_per_s=rate + 1, throughput_requests_per_s=rate)


def run_with_saturation():
    """The winner at three rates, the highest invalid; the teacher at one, measured twice."""
    run = sample_run()
    winner = families_of(run)[0].recommended
    teacher = next(one for one in run.trials if one.trial.variant == "topics-teacher-fp32")
    measured = [opened(winner, rate, valid=rate < 300) for rate in reversed(RATES)]
    measured += [opened(teacher, 50.0), opened(teacher, 50.0, repeat=3)]
    return replace(run, saturation=tuple(measured))


def test_the_plot_has_each_point_with_its_interval_the_bound_and_a_cross_where_invalid():
    run = run_with_saturation()
    plot = page_of(run).families[0].over_rate
    line, teacher, crosses = plot.traces
    assert line["x"] == [101.0, 201.0, 301.0]  # offered, ascending
    by_rate = {one.trial.workload.rate_per_s: one.latency for one in run.saturation}
    assert line["y"] == [by_rate[rate].percentiles["p95"].value_ms for rate in RATES]
    found = by_rate[100.0].percentiles["p95"]
    assert line["error_y"]["array"][0] == found.high_ms - found.value_ms
    assert line["error_y"]["arrayminus"][0] == found.value_ms - found.low_ms
    assert teacher["x"] == [51.0]
    assert crosses["x"] == [301.0]
    assert [one["y0"] for one in plot.layout["shapes"]] == [BOUND_MS]


def test_of_two_measurements_the_one_after_the_longer_warm_up_is_shown():
    (*_, shown) = families_of(run_with_saturation())[0].saturation
    assert shown.trial.repeat == 3


def test_they_are_no_part_of_the_search_and_of_what_is_best():
    with_them, without = families_of(run_with_saturation())[0], families_of(sample_run())[0]
    assert with_them.trials == without.trials
    assert page_of(sample_run()).families[0].over_rate is None


def test_page_and_markdown_show_the_rows_and_the_table_of_all_trials_has_them():
    run = run_with_saturation()
    page = page_of(run)
    rates = page.families[0].rates
    assert [row[0].text for row in rates.rows][:3] == [run.saturation[0].trial.variant] * 3
    assert len(page.trials.rows) == len(run.trials) + 5
    assert "### Latency over rate" in render_markdown(page)
    assert "<h3>Latency over rate</h3>" in render_html(page)


def test_a_latency_of_zero_has_no_place_on_the_logarithmic_axis():
    run = run_with_saturation()
    first = run.saturation[0]
    percentiles = {**first.latency.percentiles, "p95": Percentile(0.0, 0.0, 0.1)}
    latency = replace(first.latency, percentiles=percentiles)
    nothing = replace(first, latencies={**first.latencies, RESPONSE: latency})
    plot = page_of(replace(run, saturation=(nothing, *run.saturation[1:]))).families[0].over_rate
    assert all(y > 0 for trace in plot.traces for y in trace["y"])
    assert plot.traces[0]["x"] == [101.0, 201.0]
