"""What was left out and what is mixed up stands in the terminal and in both reports, whole."""

import io
from dataclasses import replace

from rich.console import Console
from sample_run import sample_run

from harness.report.build import build_report
from harness.report.cautions import warnings_of
from harness.report.family_results import families_of
from harness.report.page import page_of
from harness.report.selection import lost_its_students
from harness.report.terminal.run import has_warnings, verdict_summary, verdict_table, warning_lines
from harness.types import FailedVariant, Generation, Role, StreamApi
from harness.types.losses import Relabelling

FAILED = FailedVariant(
    "topics-other-int8", "topics", Role.STUDENT, "export",
    "it disagrees with its checkpoint:\n  - relative error 0.9, allowed 0.25", "drop int8",
)  # fmt: skip
MIXED_UP = Relabelling(
    "topics-student-fp32", "topics", ("LABEL_0", "LABEL_1", "rest"), ("law", "arts", "rest"),
    0.02, 0.91, 300,
)  # fmt: skip
LEFT_OUT_WORDS = (
    "topics-other-int8 is left out, because it could not be exported: it disagrees with its "
    "checkpoint: - relative error 0.9, allowed 0.25 (drop int8)"
)
MIXED_UP_WORDS = "its outputs stand 'LABEL_0' for 'law', 'LABEL_1' for 'arts'."


def warned():
    return replace(sample_run(), failed=(FAILED,), relabellings=(MIXED_UP,))


def printed(renderable):
    stream = io.StringIO()
    Console(file=stream, width=1000, color_system=None).print(renderable)
    return " ".join(stream.getvalue().split())


def test_a_run_without_trouble_has_no_warnings():
    assert not has_warnings(sample_run())


def test_the_terminal_says_both_at_the_verdict_and_after_scores():
    for shown in (verdict_summary(warned()), warning_lines(warned())):
        assert LEFT_OUT_WORDS in printed(shown)
        assert MIXED_UP_WORDS in printed(shown)
    assert "accuracy would be 91.0% instead of 2.0%" in printed(warning_lines(warned()))
    assert "topics-other-int8" in printed(verdict_table(warned()))
    assert "✕ Left out" in printed(verdict_table(warned()))


def test_what_was_exported_and_not_served_is_not_counted_as_served():
    run = sample_run()
    name = run.variants[-1].name
    lost = replace(FAILED, name=name, family="prose", cause="serving")
    for failed, served in (((), 8), ((FAILED,), 8), ((lost,), 7)):
        facts = {one.name: one.value for one in page_of(replace(run, failed=failed)).facts}
        assert facts["Variants served"] == str(served)


def test_the_table_of_models_says_what_was_left_out_as_the_terminal_does():
    tested, untested = "topics-student-fp32", "topics-tiny-fp32"
    lost = tuple(replace(FAILED, name=one, cause="serving") for one in (tested, untested))
    table = page_of(replace(sample_run(), failed=lost)).families[0].models
    place = [column.title for column in table.columns].index("Decision")
    decisions = {row[0].text: row[place].plain for row in table.rows}
    assert decisions[tested] == decisions[untested] == "✕ Left out (serving)"


def test_both_reports_say_them(tmp_path):
    html, markdown = build_report(warned(), tmp_path)
    page = " ".join(html.read_text().replace("&#39;", "'").split())
    assert LEFT_OUT_WORDS in page
    assert MIXED_UP_WORDS in page
    text = markdown.read_text().replace("\\", "")
    assert LEFT_OUT_WORDS in text
    assert MIXED_UP_WORDS in text


def test_a_family_has_lost_its_students_where_none_is_left_to_be_judged():
    (topics, *_) = families_of(warned())
    assert not lost_its_students(topics)
    alone = tuple(one for one in topics.variants if one.role is not Role.STUDENT)
    assert lost_its_students(replace(topics, variants=alone))
    assert not lost_its_students(replace(topics, variants=alone, failed=()))


def test_prompts_that_a_prefix_cache_answered_are_said_of_an_external_server():
    """8,663 requests of the 1,500 prompts that were scored."""
    run = sample_run()
    chosen = next(one for one in run.trials if one.trial.trial_id == run.verdicts[0].recommended)
    streams = replace(chosen.trial.workload, generation=Generation(StreamApi.CHAT))
    trial = replace(chosen.trial, workload=streams)
    again = replace(chosen, trial=trial)
    run = replace(
        run,
        manifest={**run.manifest, "server": {"url": "http://vllm:8000", "models": {}}},
        trials=tuple(again if one is chosen else one for one in run.trials),
        verdicts=(replace(run.verdicts[0], recommended=trial.trial_id),),
    )
    (said,) = warnings_of(families_of(run)[0])
    scored = next(one.samples for one in run.scores if one.variant == trial.variant)
    assert f"{again.requests + again.failures:,} requests of {scored:,} different prompts" in said
    assert scored < again.requests
    of_own_server = replace(run, manifest={**run.manifest, "server": None})
    assert warnings_of(families_of(of_own_server)[0]) == ()
    told = replace(streams, generation=Generation(StreamApi.CHAT, prompts=10**6))
    enough = replace(again, trial=replace(trial, workload=told))
    run = replace(run, trials=tuple(enough if one is again else one for one in run.trials))
    assert warnings_of(families_of(run)[0]) == ()
