import json
import re
from dataclasses import replace
from importlib.resources import files

import plotly.graph_objects as go
import pytest
from sample_run import sample_run
from unusual_runs import HOSTILE, UNUSUAL

from harness.report.family_results import families_of
from harness.report.page import page_of
from harness.report.plots.base import log_axis, styles_of
from harness.study.objective import parse_objective
from harness.types import RESPONSE, Percentile

CSS = (files("harness.report") / "templates" / "report.css").read_text(encoding="utf-8")
RUNS = {"sample_run": sample_run, **UNUSUAL}


def themes():
    """CSS variables of the light and of the dark theme."""
    light, dark = CSS.split("@media (prefers-color-scheme: dark)")
    variables = dict(re.findall(r"(--[\w-]+):\s*([^;]+);", light))
    return {
        "light": variables,
        "dark": {**variables, **dict(re.findall(r"(--[\w-]+):\s*([^;]+);", dark))},
    }


def resolved(node, variables):
    if isinstance(node, str) and node.startswith("--"):
        return variables[node]
    if isinstance(node, list):
        return [resolved(item, variables) for item in node]
    if isinstance(node, dict):
        return {key: resolved(value, variables) for key, value in node.items()}
    return node


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_plotly_accepts_every_figure_with_the_colours_of_the_style_sheet(name, theme):
    for figure in page_of(RUNS[name]()).plots.values():
        drawn = go.Figure(resolved(figure, themes()[theme]))  # plotly refuses an unknown colour
        assert len(drawn.data) == len(figure["data"])
        assert json.loads(json.dumps(figure, allow_nan=False))


def test_a_whole_run_has_every_plot_with_data():
    topics, prose = page_of(sample_run()).families
    # Quality, client batches, split, executed batches, a start for each variant, the seconds.
    assert len(topics.plots) == 1 + 4 + 1 + 1 + 4 + 1
    assert len(prose.plots) == 1 + 2 + 1 + 1 + 2 + 1
    for plot in (*topics.plots, *prose.plots):
        assert all(trace["x"] for trace in plot.traces)


def test_the_objective_is_drawn_at_its_bounds():
    plot = page_of(sample_run()).families[0].quality
    lines = [shape for shape in plot.layout["shapes"] if shape["type"] == "line"]
    assert lines[0]["x0"] == lines[0]["x1"] == 50
    assert lines[1]["y0"] == pytest.approx(0.9 * 82.13)


def test_a_latency_bound_alone_tints_the_whole_height():
    run = sample_run()
    alone = replace(run.objectives["topics"], constraints=run.objectives["topics"].constraints[:1])
    plot = page_of(replace(run, objectives={"topics": alone})).families[0].quality
    area = plot.layout["shapes"][0]
    assert (area["type"], area["x1"], area["yref"]) == ("rect", 50, "paper")
    assert page_of(replace(run, objectives={})).families[0].quality.layout["shapes"] == []


def test_a_floor_on_perplexity_runs_the_axis_down():
    low, high = page_of(sample_run()).families[1].quality.layout["yaxis"]["range"]
    assert low > high


def test_all_small_multiples_share_their_axes():
    plots = page_of(sample_run()).families[0].throughput
    assert {tuple(plot.layout["xaxis"]["range"]) for plot in plots} == {
        tuple(plots[0].layout["xaxis"]["range"])
    }
    assert {tuple(plot.layout["yaxis"]["range"]) for plot in plots} == {
        tuple(plots[0].layout["yaxis"]["range"])
    }


def test_the_cut_is_shaded_as_far_as_the_warm_up_went():
    topics = families_of(sample_run())[0]
    plot = page_of(sample_run()).families[0].starts[0]
    cut, steady = plot.layout["shapes"]
    assert (cut["type"], cut["x1"]) == ("rect", topics.recommended.warmup_s)
    assert steady["y0"] == steady["y1"] == topics.recommended.latency.mean_ms
    assert "0.45 s cut" in plot.title


def test_the_start_of_a_long_load_is_not_the_whole_load():
    topics = families_of(sample_run())[0]
    (trace,) = page_of(sample_run()).families[0].starts[0].traces
    assert max(trace["x"]) < 3.0 < topics.recommended.duration_s


def test_the_recommended_trial_comes_first_among_the_starts():
    keys = [plot.key for plot in page_of(sample_run()).families[0].starts]
    assert keys[0] == "topics-start-topics-student-int8"
    assert len(keys) == len(set(keys)) == 4


def test_a_short_trial_has_no_line_over_seconds():
    run = sample_run()
    winner = families_of(run)[0].recommended.trial.trial_id
    series = run.series[winner]
    short = {**run.series, winner: replace(series, seconds=series.seconds[:4])}
    assert page_of(run).families[0].seconds is not None
    assert page_of(replace(run, series=short)).families[0].seconds is None


@pytest.mark.parametrize(
    ("objective", "bounds"),
    [("p95 < 50 ms", [50.0]), ("ttft p95 < 7 ms", []), ("ttft p95 < 7 ms, p99 < 2 s", [2000.0])],
)
def test_seconds_are_bounded_by_clauses_on_the_response_alone(objective, bounds):
    run = sample_run()
    run = replace(run, objectives={"topics": parse_objective(objective)})
    layout = page_of(run).families[0].seconds.layout
    assert [shape["y0"] for shape in layout.get("shapes", ())] == bounds


def test_seconds_without_an_answer_are_gaps_not_zeros():
    run = sample_run()
    winner = families_of(run)[0].recommended.trial.trial_id
    points = list(run.series[winner].seconds)
    points[3] = replace(points[3], p50_ms=None, p95_ms=None, p99_ms=None)
    series = {**run.series, winner: replace(run.series[winner], seconds=tuple(points))}
    rate, *latencies = page_of(replace(run, series=series)).families[0].seconds.traces
    assert rate["y"][2] > 0  # the first of the points is warm-up
    assert [trace["y"][2] for trace in latencies] == [None] * 3


def test_without_series_there_are_no_plots_over_time():
    for family in page_of(UNUSUAL["no_evidence_over_time"]()).families:
        assert family.starts == ()
        assert family.seconds is None


def test_points_of_an_open_loop_are_labelled_with_their_rate():
    plot = page_of(UNUSUAL["open_loop"]()).families[0].throughput[0]
    labels = [label for trace in plot.traces for label in trace.get("text", [])]
    assert labels
    assert all(label.endswith("/s") for label in labels)
    for trace in plot.traces:
        rates = [float(label[:-2].replace(",", "")) for label in trace.get("text", [])]
        assert rates == sorted(rates)


def test_missing_server_metrics_draw_no_zero_bars():
    for family in page_of(UNUSUAL["no_server_metrics"]()).families:
        assert family.split is None
        assert family.batches is None
        assert family.quality is not None


def test_names_with_markup_are_text_to_plotly():
    figures = json.dumps(page_of(UNUSUAL["hostile"]()).plots)
    without_meta = re.sub(r'"meta": "(?:[^"\\]|\\.)*"', "", figures)
    assert HOSTILE[:5] not in without_meta
    assert "&lt;img" in without_meta


def test_no_two_variants_look_alike_without_colour():
    for family in families_of(sample_run()):
        looks = [(style.shape, style.open, style.dash) for style in styles_of(family).values()]
        assert len(looks) == len(set(looks))


@pytest.mark.parametrize("values", [[1.2, 480.0], [2400.0, 5800.0], [0.5, 9.0], [7.0, 7.0]])
def test_log_ticks_are_few_round_and_within_the_axis(values):
    axis = log_axis("ms", values)
    low, high = (10**end for end in axis["range"])
    assert 2 <= len(axis["tickvals"]) <= 6
    assert all(low <= tick <= high for tick in axis["tickvals"])


@pytest.mark.parametrize("values", [(1.2, 3.0), (1.0, 2.5), (15.0, 40.0), (1500.0, 4e6)])
def test_a_tick_is_labelled_with_its_own_value(values):
    axis = log_axis("ms", values)
    assert [float(text.replace(",", "")) for text in axis["ticktext"]] == axis["tickvals"]


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_reaches_the_contrast_of_wcag_aa(theme):
    colours = themes()[theme]
    pairs = [("--ink", "--page"), ("--ink-soft", "--page"), ("--ink-soft", "--panel")]
    pairs += [("--link", "--page"), ("--link", "--panel")]
    for tone in ("--pass", "--fail", "--undecided", "--invalid"):
        pairs += [(tone, f"{tone}-bg"), (tone, "--panel")]
    for front, ground in pairs:
        assert contrast(colours[front], colours[ground]) >= 4.5, (front, ground)
    assert contrast("#ffffff", colours["--heat-1"]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_of_the_first_models_reach_the_contrast_of_graphics(theme):
    colours = themes()[theme]
    for name in ("--c-blue", "--c-vermillion", "--c-green", "--c-purple", "--c-bound"):
        assert contrast(colours[name], colours["--panel"]) >= 3, name


def at_latency(result, value_ms, low_ms, high_ms):
    """The same trial with another p95."""
    percentiles = {**result.latency.percentiles, "p95": Percentile(value_ms, low_ms, high_ms)}
    latency = replace(result.latency, percentiles=percentiles)
    return replace(result, latencies={**result.latencies, RESPONSE: latency})


def with_latency(variant, value_ms, low_ms, high_ms):
    """The sample run in which every trial of a variant has the same p95."""
    run = sample_run()
    trials = [
        at_latency(one, value_ms, low_ms, high_ms) if one.trial.variant == variant else one
        for one in run.trials
    ]
    return replace(run, trials=tuple(trials))


def test_the_axis_of_latencies_reaches_to_the_ends_of_the_drawn_intervals():
    plot = page_of(with_latency("topics-teacher-fp32", 60.0, 0.4, 400.0)).families[0].quality
    low, high = (10**end for end in plot.layout["xaxis"]["range"])
    assert low < 0.4
    assert high > 400.0


def test_an_end_beyond_ten_times_its_value_stretches_no_axis():
    plot = page_of(with_latency("topics-teacher-fp32", 60.0, 50.0, 9e6)).families[0].quality
    assert 600.0 < 10 ** plot.layout["xaxis"]["range"][1] < 1000.0
    (best,) = [
        trace
        for trace in plot.traces
        if trace.get("meta") == "topics-teacher-fp32" and "error_x" in trace
    ]
    assert best["error_x"]["array"] == [540.0]


def test_a_latency_of_zero_stands_in_the_strip_with_the_reason():
    plot = page_of(with_latency("topics-teacher-fp32", 0.0, 0.0, 0.1)).families[0].quality
    (trace,) = [one for one in plot.traces if one.get("meta") == "topics-teacher-fp32"]
    assert trace["xaxis"] == "x2"
    assert "its latency has no place on the axis" in trace["hovertext"][0]
    assert plot.layout["xaxis2"]["ticktext"] == ["no place<br>on the axis"]
    (unloaded,) = [one for one in plot.traces if one.get("meta") == "topics-tiny-fp32"]
    assert "not load-tested" in unloaded["hovertext"][0]
