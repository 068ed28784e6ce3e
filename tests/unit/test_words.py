import ast
import json
import math
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.planning.routing.guarantee import THRESHOLDS
from harness.words import labels, numbers

EN_DASH, TIMES, MINUS = "\u2013", "\u00d7", "\u2212"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (0.9996, "1.00"),
        (9.876, "9.88"),
        (9.999, "10.0"),
        (99.96, "100"),
        (123.4, "123"),
        (11552.3, "11,552"),
        (-2.345, f"{MINUS}2.35"),
        (2.94e-6, f"2.9{TIMES}10⁻⁶"),
        (None, EN_DASH),
        (math.nan, EN_DASH),
        (math.inf, "unbounded"),
    ],
)
def test_numbers_have_three_digits_and_missing_is_never_zero(value, text):
    assert numbers.number(value) == text


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_a_number_reads_back_to_within_half_a_unit_of_its_third_digit(value):
    assert float(numbers.number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_a_number_never_shows_more_than_four_decimals_nor_false_digits(value):
    text = numbers.number(value).replace(",", "")
    if value < 999:
        assert len(text.replace(".", "").lstrip("0")) <= 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"),
        (0.95257, "0.9526"),
        (0.99963, "0.99963"),
        (0.99996, "0.99996"),
        (0.9999938558, "0.9999939"),
        (1.0, "1"),
        (0.0024726, "0.002473"),
    ],
)
def test_a_threshold_below_1_never_reads_1(value, text):
    assert numbers.threshold(value) == text


def test_thresholds_of_a_router_are_told_apart():
    assert len({numbers.threshold(one) for one in THRESHOLDS}) == len(THRESHOLDS)


@pytest.mark.parametrize("measure", ["cosine_mean", "pearson_with_teacher"])
def test_what_is_nearly_1_is_not_1(measure):
    assert labels.measure_words(measure, 0.9987) == "0.9987"
    assert labels.measure_span(measure, 0.9961, 0.9987) == f"0.9961{EN_DASH}0.9987"


def test_nothing_has_no_sign():
    assert {numbers.percent(one) for one in (0.0, -0.0, 2e-16, -2e-16)} == {"0.0%"}


def test_an_upper_bound_that_could_not_be_given_reads_unbounded():
    assert numbers.milliseconds(3_600_000.0) == "unbounded"
    assert numbers.milliseconds(None) == EN_DASH
    assert numbers.latency(3_600_000.0) == "unbounded: the queue never drained"
    assert numbers.latency(12.5) == "12.5 ms"
    assert numbers.latency(None) == EN_DASH


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        ("28.6", "30.6", f"28.6{EN_DASH}30.6"),
        ("95.1%", "99.4%", f"95.1{EN_DASH}99.4%"),
        (f"1.55{TIMES}", f"1.68{TIMES}", f"1.55{EN_DASH}1.68{TIMES}"),
        (EN_DASH, EN_DASH, ""),
        ("unbounded", "unbounded", ""),
        ("3.33", "unbounded", "at least 3.33"),
        (EN_DASH, "3.33", "at most 3.33"),
        ("92.1%", EN_DASH, "at least 92.1%"),
        ("0", "unbounded", "interval unknown"),
        ("0", "3.33", f"0{EN_DASH}3.33"),
    ],
)
def test_a_span_writes_its_unit_once_and_says_what_is_known(low, high, text):
    assert numbers.span(low, high) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-2.34, f"{MINUS}2.3 points"), (3.7, "+3.7 points"), (0.01, "0 points")]
)
def test_a_difference_shows_its_sign(value, text):
    assert numbers.signed(value, " points") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.0000"), (0.99876, "0.9988"), (-1.0, "\u22121.0000"), (None, "\u2013")],
)
def test_cosines_near_one_are_told_apart(value, text):
    assert numbers.cosine(value) == text


def test_a_short_time_is_not_nothing():
    times = [numbers.seconds(one) for one in (0.0, 0.004, 0.0049, 0.006, 0.45, 12.0, 1234.5)]
    assert times == ["0", "0.004", "0.0049", "0.01", "0.45", "12", "1,234.5"]


def test_one_of_a_thing_is_one():
    assert [numbers.things(n, "trial") for n in (0, 1, 1200)] == [
        "0 trials", "1 trial", "1,200 trials",
    ]  # fmt: skip


def test_no_measure_is_named_by_what_stands_beside_it():
    assert len(set(labels.MEASURES.values())) == len(labels.MEASURES)
    fragments = ("of ", "worst", "least", "2nd", "3rd", "4th", "1st")
    assert not [one for one in labels.MEASURES.values() if one.startswith(fragments)]


def test_p_values_below_a_thousandth_say_only_that():
    assert [numbers.p_value(p) for p in (0.0004, 0.0118, None)] == ["<0.001", "0.012", EN_DASH]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.972, "97.2%"),
        (0.94, "94.0%"),
        (0.0144, "1.4%"),
        (0.00312, "0.31%"),
        (0.00031, "0.031%"),
        (2e-7, f"2.0{TIMES}10⁻⁵%"),
        (0.9996, "99.96%"),
        (1.0003, "100.03%"),
        (1.032, "103.2%"),
        (12.345, "1,234.5%"),
        (-1.455, f"{MINUS}145.5%"),
        (0.0, "0.0%"),
        (1.0, "100.0%"),
        (1 - 1e-12, "100.0%"),
        (None, EN_DASH),
        (math.nan, EN_DASH),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(share, text):
    assert numbers.percent(share) == text


def test_a_title_with_capitals_of_its_own_keeps_them_at_the_head_of_a_column():
    heads = [numbers.heading(one) for one in ("ndcg_at_10", "chrf", "macro_f1", "mae", "accuracy")]
    assert heads == ["nDCG@10", "chrF", "Macro-F1", "MAE", "Accuracy"]


def test_a_protocol_has_one_spelling_in_every_table():
    assert [labels.protocol_name(one) for one in ("grpc", "http")] == ["gRPC", "HTTP"]
    report = Path(labels.__file__).parents[1] / "report"
    assert not [one for one in report.rglob("*.py") if "protocol.upper" in one.read_text()]


@given(st.floats(min_value=1e-6, max_value=1 - 1e-6))
def test_only_nothing_reads_nothing_and_only_all_reads_all(share):
    assert numbers.percent(share) not in {"0.0%", "100.0%"}


@pytest.mark.parametrize(
    ("value", "text"), [(50.0, "50"), (0.25, "0.25"), (1200.0, "1,200"), (0.1 + 0.2, "0.3")]
)
def test_what_somebody_chose_is_as_exact_as_it_was_chosen(value, text):
    assert numbers.asked(value) == text
    assert numbers.asked_percent(value / 100) == f"{text}%"


def test_a_span_of_changes_has_the_word_between():
    low, high = numbers.points(-0.0231), numbers.points(0.004)
    assert (low, high) == (f"{MINUS}2.31 points", "+0.40 points")
    assert numbers.span(numbers.signed(-2.31), numbers.signed(0.4)) == f"{MINUS}2.3 to +0.4"


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the page's script")
def test_locusts_page_spells_numbers_as_everything_else_does(tmp_path):
    static = Path(__file__).parents[2] / "harness_locust" / "static"
    shutil.copy(static / "charts.js", tmp_path / "charts.mjs")
    values = [0, 0.01234, 0.9996, 9.876, 9.999, 99.96, 123.4, 11552.3, -2.345, 2.94e-6, None]
    script = (
        "import { number, count, latency } from './charts.mjs';"
        f"console.log(JSON.stringify([{json.dumps(values)}.map(number), count(1234567),"
        "latency(3600000)]))"
    )
    answer = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    page, counted, unbounded = json.loads(answer.stdout)
    assert page == [numbers.number(value) for value in values]
    assert (counted, unbounded) == (numbers.count(1234567), numbers.milliseconds(3_600_000.0))


NOT_SHOWN = {
    "types",  # lies below the words; its errors repeat what somebody asked for
    "flow/live_scaling.py",  # a file of stamps
    "planning/autoscaling/candidates.py",  # a target that is tried
    "planning/autoscaling/manifests.py",  # fields of Kubernetes' objects
    "planning/autoscaling/queries.py",  # PromQL
    "planning/rollout/asked.py",  # a bound that a study's file repeats
    "planning/saturation.py",  # rates that will be asked for
    "planning/space.py",  # a rate that will be asked for
    "report/tables/provenance.py",  # options of a command, to be typed again
    "study/objective.py",  # a bound read back from its text
    "telemetry/exposition/families.py",  # a label of Prometheus
    "telemetry/prometheus/client.py",  # a time in a query
}
ROUNDS = re.compile(r",|,?g|[,+]?\.\d+[fge%]|,?\.?\d*[fge%]")


def spelled_outside_the_words():
    root = Path(numbers.__file__).parents[1]
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        if name.startswith("words/"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FormattedValue) and isinstance(node.format_spec, ast.JoinedStr):
                spec = "".join(str(getattr(one, "value", "?")) for one in node.format_spec.values)
                if ROUNDS.fullmatch(spec):
                    yield name, node.lineno, spec


def test_numbers_that_are_shown_are_spelled_by_the_words_alone():
    found = list(spelled_outside_the_words())
    kept = {one: {one[0], *map(str, PurePosixPath(one[0]).parents)} & NOT_SHOWN for one in found}
    shown = [one for one, by in kept.items() if not by]
    assert not shown, f"use harness.words.numbers: {shown}"
    unused = NOT_SHOWN.difference(*kept.values())
    assert not unused, f"nothing to except any more: {sorted(unused)}"
