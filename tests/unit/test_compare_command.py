"""`harness compare` on run folders: what is like is compared, the rest says why not."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from stored_folder import ROWS, topics_manifest, write_topics

from harness.cli.main import run_command
from harness.flow.review.releases import compare_runs
from harness.planning.review.differences import WorseningTolerance, parse_tolerance
from harness.statistics.paired import paired_loss
from harness.types.estimates import Pricing
from harness.types.review import Change

STUDENT = "topics-student-fp32"


def compared(before, after, tolerance=None, only=()):
    return compare_runs(before, after, tolerance=tolerance or WorseningTolerance(), only=only)


def row(comparison, metric, variant=STUDENT):
    return next(one for one in comparison.metrics if (one.variant, one.metric) == (variant, metric))


def slower(factor):
    """A release whose every trial has so many times the latency, and as much less throughput."""

    def change(run):
        return replace(run, trials=tuple(_slowed(one, factor) for one in run.trials))

    return change


def _slowed(result, factor):
    latencies = {
        name: replace(
            summary,
            mean_ms=summary.mean_ms * factor,
            percentiles={
                key: replace(
                    one,
                    value_ms=one.value_ms * factor,
                    low_ms=one.low_ms * factor,
                    high_ms=one.high_ms * factor,
                )
                for key, one in summary.percentiles.items()
            },
        )
        for name, summary in result.latencies.items()
    }
    rate = result.throughput_inferences_per_s / factor
    return replace(
        result,
        latencies=latencies,
        throughput_inferences_per_s=rate,
        throughput_low_inferences_per_s=rate * 0.99,
        throughput_high_inferences_per_s=rate * 1.01,
    )


def manifest(**changes):
    document = copy.deepcopy(topics_manifest())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    return document


@pytest.fixture
def earlier(tmp_path):
    return write_topics(tmp_path / "earlier", change=slower(1.0))


def test_a_run_against_its_copy_is_exit_0(earlier, tmp_path, capsys):
    later = write_topics(tmp_path / "later", change=slower(1.0))
    assert run_command(["compare", str(earlier), str(later)]) == 0
    said = capsys.readouterr().out
    assert "0 worse" not in said
    assert "✓ Nothing got worse: " in said
    assert "Difference" not in said, "what shows no difference is in the page alone"
    found = compared(earlier, later)
    assert {one.change for one in found.metrics} == {Change.SAME}
    names = {one.metric for one in found.metrics}
    assert names == {"accuracy", "macro_f1", "p95", "throughput", "size", "cold_start"}
    assert (later / "compare.html").is_file()
    assert (later / "compare.md").is_file()


def test_twice_the_latency_is_exit_3_and_says_where(earlier, tmp_path, capsys):
    later = write_topics(tmp_path / "later", change=slower(2.0))
    assert run_command(["compare", str(earlier), str(later)]) == 3
    found = compared(earlier, later)
    latency, rate = row(found, "p95"), row(found, "throughput")
    assert latency.change is Change.WORSE
    assert latency.difference.value == pytest.approx(latency.before.estimate.value)
    assert rate.change is Change.WORSE
    assert rate.difference.value == pytest.approx(-rate.before.estimate.value / 2)
    assert latency.before.trial_id == latency.after.trial_id
    said = capsys.readouterr().out
    worse = len(found.changed(Change.WORSE))
    assert f"✕ Something got worse: {worse} worse" in said
    (table,) = re.findall(r"^Change .*?\n\n", said, re.DOTALL | re.MULTILINE)
    assert table.count("✕ worse") == worse
    same = len(found.changed(Change.SAME))
    assert f"topics: {same} of {len(found.metrics)} show no difference" in said
    # The other way round it is better, and nothing is worse
    back = compared(later, earlier)
    assert row(back, "p95").change is Change.BETTER
    assert run_command(["compare", str(later), str(earlier)]) == 0


def test_tolerance_decides_by_the_interval(earlier, tmp_path):
    later = write_topics(tmp_path / "later", change=slower(1.1))
    only = ["--metric", "throughput"]
    paths = [str(earlier), str(later)]
    # 9.1% less with about 1.4% of chance on either side
    assert run_command(["compare", *paths, *only]) == 3
    assert run_command(["compare", *paths, *only, "--tolerate", "5%"]) == 3
    assert run_command(["compare", *paths, *only, "--tolerate", "9%"]) == 4
    assert run_command(["compare", *paths, *only, "--tolerate", "15%"]) == 0
    assert run_command(["compare", *paths, *only, "--tolerate", "throughput=15%"]) == 0


def test_quality_is_paired_by_sample_where_samples_are_kept(tmp_path):
    known = manifest(data__topics={"digest": "77ab", "samples": ROWS})
    before = np.arange(ROWS) % 5 != 0  # 80% right
    after = before.copy()
    after[:150] = False  # 120 of these were right: 8 points less
    paths = [
        write_topics(tmp_path / name, manifest=known, right={STUDENT: mask})
        for name, mask in (("earlier", before), ("later", after))
    ]
    found = row(compared(*paths), "accuracy")
    assert found.difference.value == pytest.approx(-0.08)
    assert found.reason == "paired on 1,500 rows"
    assert found.change is Change.WORSE
    expected = paired_loss(before, after, seed=20)
    assert found.difference.low == pytest.approx(-expected.high)
    assert found.difference.high == pytest.approx(-expected.low)
    # Bonett and Price (2012) have 0.0675 to 0.0950 for 120 rows lost and none gained
    assert expected.low == pytest.approx(0.0675, abs=0.003)
    assert expected.high == pytest.approx(0.0950, abs=0.003)
    # By the two intervals alone it would be wider, and macro-F1 has nothing else
    assert row(compared(*paths), "macro_f1").reason == "from the two intervals"


def test_other_rows_are_not_compared_and_leave_it_undecided(earlier, tmp_path):
    known = manifest(data__topics={"digest": "cafe"})
    later = write_topics(tmp_path / "later", manifest=known, change=slower(1.0))
    found = row(compared(earlier, later), "accuracy")
    assert found.change is Change.NOT_COMPARABLE
    assert found.reason.startswith("other data rows")
    assert found.difference is None
    assert run_command(["compare", str(earlier), str(later)]) == 4
    assert run_command(["compare", str(earlier), str(later), "--metric", "p95"]) == 0


def test_another_machine_compares_quality_and_size_alone(earlier, tmp_path):
    later = write_topics(
        tmp_path / "later", manifest=manifest(environment__cpu="Another"), change=slower(3.0)
    )
    found = compared(earlier, later)
    for metric in ("p95", "throughput", "cold_start"):
        assert row(found, metric).change is Change.NOT_COMPARABLE
        assert row(found, metric).reason.startswith("other machine")
    assert row(found, "accuracy").change is Change.SAME
    assert row(found, "size").change is Change.SAME


def test_a_cold_start_on_another_machine_is_not_said_to_be_slower(earlier, tmp_path):
    def change(run):
        starts = tuple(replace(one, load_s=one.load_s * 10) for one in run.cold_starts)
        return slower(1.0)(replace(run, cold_starts=starts))

    other = manifest(environment__cpu="Another")
    later = write_topics(tmp_path / "later", manifest=other, change=change)
    assert not any("cold start" in note for note in compared(earlier, later).notes)


def test_what_the_later_run_did_not_score_is_not_passed_over(earlier, tmp_path):
    """A student that could not be scored any more has not stayed as good as it was."""

    def change(run):
        scores = tuple(one for one in run.scores if one.variant != STUDENT)
        return slower(1.0)(replace(run, scores=scores))

    later = write_topics(tmp_path / "later", change=change)
    found = row(compared(earlier, later), "accuracy")
    assert found.change is Change.NOT_COMPARABLE
    assert found.reason == "the later run did not score it"
    assert (found.before is not None, found.after) == (True, None)
    assert run_command(["compare", str(earlier), str(later), "--metric", "accuracy"]) == 4
    # What only the later run scored is new, and nothing that got worse
    assert run_command(["compare", str(later), str(earlier), "--metric", "accuracy"]) == 0


def test_another_objective_compares_points_but_not_recommendations(earlier, tmp_path):
    later = write_topics(
        tmp_path / "later",
        manifest=manifest(study__objective="p95 < 20 ms, accuracy >= 90% of teacher"),
        change=slower(1.0),
    )
    found = compared(earlier, later)
    recommended = row(found, "throughput", variant="")
    assert recommended.change is Change.NOT_COMPARABLE
    assert recommended.reason.startswith("other objective")
    assert row(found, "p95").change is Change.SAME


def test_an_objective_that_is_written_otherwise_is_the_same(earlier, tmp_path):
    later = write_topics(
        tmp_path / "later",
        manifest=manifest(study__objective="accuracy>=0.9x teacher, p95<50ms"),
        change=slower(1.0),
    )
    assert row(compared(earlier, later), "throughput", variant="").change is Change.SAME
    assert run_command(["compare", str(earlier), str(later)]) == 0


@pytest.mark.parametrize(
    "other", [Pricing("four", 1.0), Pricing("two", 2.0), Pricing("two", 1.0, rule="estimate"), None]
)
def test_costs_at_other_prices_are_not_compared(tmp_path, other):
    """A dearer machine makes no release slower."""
    asked = manifest(study__objective="p95 < 50 ms, accuracy >= 90% of teacher, cost < 9/1M")

    def priced(pricing):
        def change(run):
            trials = tuple(replace(one, pricing=pricing) for one in slower(1.0)(run).trials)
            return replace(run, trials=trials)

        return change

    two = Pricing("two", 1.0)
    folders = [
        write_topics(tmp_path / name, manifest=asked, change=priced(pricing))
        for name, pricing in (("before", two), ("same", two), ("after", other))
    ]
    assert row(compared(*folders[:2]), "cost").change is Change.SAME
    found = row(compared(folders[0], folders[2]), "cost")
    assert found.change is Change.NOT_COMPARABLE
    if other is not None:
        assert found.reason.startswith("other price: two at 1 USD/h before, ")


def test_another_study_has_nothing_to_compare(earlier, tmp_path):
    other = manifest(study__families=[{"name": "mails", "task": {"kind": "regression"}}])

    def renamed(run):
        return replace(
            run,
            variants=(),
            scores=run.scores[:2],
            trials=(),
            verdicts=(),
            cold_starts=(),
        )

    later = write_topics(tmp_path / "later", manifest=other, change=renamed)
    found = compared(earlier, later)
    assert [one.change for one in found.metrics] == [Change.NOT_COMPARABLE]
    assert found.metrics[0].reason.startswith("another study")
    assert run_command(["compare", str(earlier), str(later)]) == 4


def test_a_larger_file_is_worse_and_a_few_bytes_are_not(earlier, tmp_path):
    def grown(factor):
        def change(run):
            variants = tuple(
                replace(one, size_bytes=int(one.size_bytes * factor)) for one in run.variants
            )
            return slower(1.0)(replace(run, variants=variants))

        return change

    few = write_topics(tmp_path / "few", change=grown(1.0005))
    many = write_topics(tmp_path / "many", change=grown(1.1))
    assert row(compared(earlier, few), "size").change is Change.SAME
    assert row(compared(earlier, many), "size").change is Change.WORSE
    tolerated = compared(earlier, many, parse_tolerance(["size=20%"]))
    assert row(tolerated, "size").change is Change.TOLERATED


def test_a_slow_cold_start_decides_nothing_but_is_said(earlier, tmp_path):
    def change(run):
        starts = tuple(replace(one, load_s=one.load_s * 10) for one in run.cold_starts)
        return slower(1.0)(replace(run, cold_starts=starts))

    later = write_topics(tmp_path / "later", change=change)
    found = compared(earlier, later)
    assert row(found, "cold_start").change is Change.SAME
    assert any(f"the cold start of {STUDENT} took" in note for note in found.notes)
    assert run_command(["compare", str(earlier), str(later)]) == 0


def test_the_page_says_how_many_would_read_worse_by_chance(earlier, tmp_path):
    later = write_topics(tmp_path / "later", change=slower(1.0))
    found = compared(earlier, later)
    told = [one for one in found.metrics if one.difference and one.difference.low is not None]
    by_chance = [one for one in told if one.metric != "size"]
    assert len(by_chance) < len(told)  # a size is no estimate
    (note,) = (note for note in found.notes if "by chance alone" in note)
    assert note.startswith(f"{len(by_chance)} differences have an interval at 95%: about ")
    assert float(re.search(r"about ([\d.]+) of", note)[1]) == pytest.approx(
        0.025 * len(by_chance), rel=0.01
    )


def test_json_holds_the_decision_and_every_metric(earlier, tmp_path, capsys):
    later = write_topics(tmp_path / "later", change=slower(2.0))
    capsys.readouterr()
    assert run_command(["compare", str(earlier), str(later), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["decision"] == "fail"
    assert {"metric", "before", "after", "difference", "change"} <= document["metrics"][0].keys()


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (["--tolerate", "5"], "not a percentage"),
        (["--metric", "speed"], "no such metric"),
    ],
)
def test_bad_options_are_exit_2(earlier, tmp_path, capsys, extra, problem):
    later = write_topics(tmp_path / "later")
    assert run_command(["compare", str(earlier), str(later), *extra]) == 2
    assert problem in " ".join(capsys.readouterr().err.split())


def test_a_page_that_cannot_be_written_says_so(earlier, tmp_path, capsys):
    later = write_topics(tmp_path / "later")
    (tmp_path / "taken").write_text("a file")
    assert run_command(["compare", str(earlier), str(later), "--out", f"{tmp_path}/taken"]) == 5
    assert "cannot write to" in capsys.readouterr().err


def test_no_run_folder_or_the_same_twice_is_exit_2(earlier, tmp_path, capsys):
    assert run_command(["compare", str(earlier), str(earlier)]) == 2
    assert "with itself" in capsys.readouterr().err
    assert run_command(["compare", str(earlier), str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
