"""Quality under the load of the verdict, as the report shows it and the journal keeps it."""

from __future__ import annotations

from dataclasses import replace

from sample_run import sample_run

from harness.report.family_results import families_of
from harness.report.tables.loaded_quality import loaded_quality_table
from harness.runs.journal import Journal
from harness.types.loaded_quality import LoadedQuality


def loaded(run, **changes):
    (score,) = [
        one
        for one in run.scores
        if (one.variant, one.metric) == ("topics-student-fp32", "accuracy")
    ]
    under = replace(score, value=0.75, low=0.70, high=0.80, relative_to_teacher=0.9131)
    made = LoadedQuality(
        "topics-student-fp32", "ab", "cd", "trial-1", 200, 3, 41.5, (under,), (score,)
    )
    return replace(made, **changes)


def table_of(run, *entries):
    return loaded_quality_table(families_of(run)[0], entries)


def test_both_values_stand_side_by_side_and_the_note_says_what_changed():
    run = sample_run()
    table = table_of(run, loaded(run))
    ((variant, metric, before, under, relative),) = table.rows
    assert (variant.text, metric.text) == ("topics-student-fp32", "Accuracy")
    assert (before.text, under.text, relative.text) == ("79.9%", "75.0%", "91.3%")
    assert "200 rows of the test split" in table.note
    assert "trial-1 completed 41.5 requests/s: 3 answers changed" in table.note
    assert "no answer changed" in table_of(run, loaded(run, changed=0)).note
    assert "changed" not in table_of(run, loaded(run, changed=None)).note


def test_why_there_is_no_score_is_said_and_without_any_there_is_no_table():
    run = sample_run()
    table = table_of(run, loaded(run, scores=(), alone=(), problem="the load ended"))
    assert [cell.text for cell in table.rows[0][:2]] == ["topics-student-fp32", "the load ended"]
    assert table_of(run) is None
    assert table_of(run, loaded(run, variant="another-family")) is None


def test_the_journal_keeps_it(tmp_path):
    run = sample_run()
    entry = loaded(run)
    path = tmp_path / "journal.jsonl"
    Journal.read(path).add(entry)
    assert Journal.read(path).loaded == {"topics-student-fp32": entry}
