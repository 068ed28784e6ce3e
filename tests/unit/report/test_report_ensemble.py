"""What pre- and post-processing cost, as the report shows it."""

from dataclasses import replace

import pytest
from sample_run import sample_run

from harness.report.family_results import families_of
from harness.report.markdown import render_markdown
from harness.report.page import page_of
from harness.report.plots.base import styles_of
from harness.report.plots.server import ensemble_plot
from harness.report.plots.tradeoffs import quality_plot
from harness.report.tables.costs import ensemble_quality, ensemble_table
from harness.types import RESPONSE, PartMetrics
from harness.words.numbers import factor


@pytest.fixture(scope="module")
def run():
    """The sample run, whose winner was measured as an ensemble too: three times as slow."""
    plain = sample_run()
    winner = families_of(plain)[0].recommended
    name = winner.trial.variant
    around = f"{name}-ensemble"
    variant = next(one for one in plain.variants if one.name == name)
    mean_ms = winner.latency.mean_ms
    parts = tuple(
        PartMetrics(part, 100, 0.1 * mean_ms, 0.8 * mean_ms)
        for part in (f"{name}-tokenize", name, f"{name}-label")
    )
    server = replace(
        winner.server,
        parts=parts,
        queue_ms=0.3 * mean_ms,
        compute_input_ms=0.0,
        compute_infer_ms=2.4 * mean_ms,
        compute_output_ms=0.0,
    )
    result = replace(
        winner,
        trial=replace(winner.trial, variant=around, stage="ensemble", repeat=0),
        latencies={RESPONSE: replace(winner.latency, mean_ms=3 * mean_ms)},
        server=server,
    )
    scores = [replace(score, variant=around) for score in plain.scores if score.variant == name]
    return replace(
        plain,
        variants=(*plain.variants, replace(variant, name=around, ensemble_of=name)),
        scores=(*plain.scores, *scores),
        trials=(*plain.trials, result),
    )


def test_an_ensemble_is_no_candidate_in_any_table_or_plot(run):
    with_ensemble, plain = families_of(run)[0], families_of(sample_run())[0]
    assert with_ensemble.names == plain.names
    assert with_ensemble.trials == plain.trials
    assert with_ensemble.scores == plain.scores


def test_the_metric_of_the_ensemble_keeps_its_capitals(run):
    family = families_of(run)[0]
    macro = tuple(one for one in family.ensemble_scores if one.metric == "macro_f1")
    assert ensemble_quality(replace(family, ensemble_scores=macro)).startswith("Macro-F1, text in")
    only = replace(family, scores=tuple(s for s in family.scores if s.metric == "macro_f1"))
    plot = quality_plot(replace(only, objective=None), styles_of(only))
    assert plot.title == "Macro-F1 against p95"


def test_the_parts_and_the_rest_add_up_to_the_whole(run):
    table = ensemble_table(families_of(run)[0])
    *parts, whole, alone = table.rows
    assert [row[0].text for row in parts] == [
        "tokenize", "model", "label", "client, network and ensemble",
    ]  # fmt: skip
    assert sum(row[3].sort for row in parts) == pytest.approx(whole[3].sort)
    assert sum(row[4].sort for row in parts) == pytest.approx(1)
    assert whole[3].sort == pytest.approx(3 * alone[3].sort)
    assert f"{factor(3.0)} the model alone" in whole[3].detail


def test_the_plot_stacks_the_same_parts(run):
    family = families_of(run)[0]
    plot = ensemble_plot(family)
    *bars, totals = plot.traces
    alone, whole = (sum(bar["x"][row] for bar in bars) for row in (0, 1))
    assert whole == pytest.approx(3 * alone, rel=0.01)
    assert [float(text) for text in totals["text"]] == pytest.approx([alone, whole], rel=0.01)


def test_the_report_says_what_the_ensemble_answered(run):
    family = families_of(run)[0]
    name = family.recommended.trial.variant
    score = family.score(name, "accuracy")
    assert ensemble_quality(family) == (
        f"Accuracy, text in and label out: {name} {score.value:.1%} (alone {score.value:.1%})."
    )
    assert "Pre- and post-processing" in render_markdown(page_of(run))


def test_without_ensembles_there_is_nothing_of_it():
    family = families_of(sample_run())[0]
    assert ensemble_table(family) is None
    assert ensemble_plot(family) is None
    assert ensemble_quality(family) == ""
