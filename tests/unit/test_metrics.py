"""The registry of metrics itself: what it holds, and what is printed of it."""

from pathlib import Path

import numpy as np
import pytest

from harness.errors import UnknownMetricError
from harness.metrics import METRICS, MetricRegistry, described, metric_named, quality_metrics
from harness.planning.clauses import MEASURES
from harness.statistics.metrics import share_statistic
from harness.study.objective import parse_objective
from harness.tasks.registry import FAMILIES
from harness.telemetry.exposition.families import BOUNDS
from harness.types.metrics import Metric, MetricKind
from harness.words.metrics import as_markdown

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list(METRICS))
def test_an_entry_is_whole_and_its_example_is_an_objective(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert all((metric.title, metric.of, metric.example, metric.missed, metric.unit.scales))
    (clause,) = parse_objective(metric.clause).constraints
    assert (clause.metric, clause.relative_to_teacher) == (name, False)
    assert metric.kind in BOUNDS
    assert bool(metric.tasks) is metric.is_quality, "a quality is of a task, and only a quality is"
    assert bool(metric.span) is (metric.kind is MetricKind.LATENCY)


def test_a_metric_of_a_load_has_its_computation_and_no_other_has() -> None:
    of_a_load = {one.name for one in METRICS.values() if not one.is_quality and not one.span}
    assert set(MEASURES) == of_a_load


def test_a_name_is_entered_once() -> None:
    accuracy = metric_named("accuracy")
    with pytest.raises(ValueError, match="accuracy is entered twice"):
        MetricRegistry([accuracy, accuracy])


@pytest.mark.parametrize("name", ["acuracy", "", "p95"])
def test_a_statistic_of_no_metric_of_quality_is_refused(name: str) -> None:
    with pytest.raises(UnknownMetricError) as caught:
        share_statistic(name, np.array([True, False]))
    assert "accuracy" in str(caught.value)
    assert caught.value.exit_code == 2


def test_lm_evals_own_metrics_read_like_ours_where_they_are_the_same() -> None:
    def of(name: str) -> Metric | None:
        return described(name)

    assert of("mnli/acc,none") is metric_named("accuracy")
    assert of("wikitext/word_perplexity,none") is metric_named("word_perplexity")
    assert of("squad/exact_match") is metric_named("exact_match")
    assert of("cola/mcc,none") is None
    assert of("anything/p95") is None, "a load's metric is not a score of a task"
    with pytest.raises(UnknownMetricError):
        of("mcc")


def test_the_page_of_metrics_is_the_registrys() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == as_markdown(), "run: harness schema --metrics > docs/metrics.md"
    for metric in METRICS.values():
        assert f"| `{metric.name}` | {metric.of} |" in page


def test_the_readme_names_the_page_of_metrics() -> None:
    assert "docs/metrics.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_quality_is_of_a_family_and_every_family_has_one() -> None:
    kinds = {family.kind for family in FAMILIES}
    assert {kind for one in quality_metrics() for kind in one.tasks} == kinds
    for kind in kinds:
        assert all(kind in one.tasks for one in quality_metrics(kind))
