"""What was left out and what is mixed up stands in the terminal and in both reports, whole."""

import io
from dataclasses import replace

from rich.console import Console
from sample_run import sample_run

from harness.report.build import build_report
from harness.report.family_results import families_of
from harness.report.selection import lost_its_students
from harness.report.terminal.run import has_warnings, verdict_summary, verdict_table, warning_lines
from harness.types import FailedVariant, Role
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
