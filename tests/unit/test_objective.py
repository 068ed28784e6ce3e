import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_study import write_local_study

from harness.errors import ObjectiveError, StudyError
from harness.metrics import METRICS, quality_metrics
from harness.study import objective
from harness.study.file import load_study
from harness.study.objective import parse_objective
from harness.tasks.registry import FAMILIES
from harness.types import Constraint
from harness.types.metrics import MetricKind


def only_clause(text):
    (clause,) = parse_objective(text).constraints
    return clause


def test_the_readme_objective():
    text = (
        "p95 < 50ms, accuracy >= 90% of teacher, error_rate < 0.1%, throughput >= 200/s, "
        "perplexity <= 1.10x teacher"
    )
    slo = parse_objective(text)
    assert slo.text == text
    assert slo.constraints == (
        Constraint("p95", "<", 50.0, False, "p95 < 50ms"),
        Constraint("accuracy", ">=", 0.9, True, "accuracy >= 90% of teacher"),
        Constraint("error_rate", "<", 0.001, False, "error_rate < 0.1%"),
        Constraint("throughput", ">=", 200.0, False, "throughput >= 200/s"),
        Constraint("perplexity", "<=", 1.1, True, "perplexity <= 1.10x teacher"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "p95 < 50 ms at >= 90% of the teacher's accuracy",
        "p95 < 50 ms at >= 90% of teacher accuracy",
        "p95 < 0.05 s, and accuracy ≥ 0.9x teacher",
        "P95 < 50000 µs and Accuracy >= 0.90 \u00d7 the teacher\u2019s accuracy",
        "p95<50ms,accuracy>=90%teacher",
    ],
)
def test_ways_to_say_the_same(text):
    clauses = [(c.metric, c.operator, c.value) for c in parse_objective(text).constraints]
    assert clauses == [("p95", "<", 50.0), ("accuracy", ">=", 0.9)]


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ("mean < 500us", "mean", 0.5),
        ("p99 <= 1.5s", "p99", 1500.0),
        ("error_rate <= 0.001", "error_rate", 0.001),
        ("macro_f1 > 80%", "macro_f1", 0.8),
        ("accuracy > 0.8", "accuracy", 0.8),
        ("perplexity < 20", "perplexity", 20.0),
        ("bits_per_byte <= 1.25", "bits_per_byte", 1.25),
        ("throughput > 1e3 / s", "throughput", 1000.0),
        ("rougeL >= 25%", "rouge_l", 0.25),
        ("rouge1 >= 25%", "rouge_1", 0.25),
    ],
)
def test_units(text, metric, value):
    clause = only_clause(text)
    assert (clause.metric, clause.value, clause.relative_to_teacher) == (metric, value, False)


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("p59 < 50ms", "p59", "unknown metric 'p59'"),
        ("p95 < 50ms, acuracy > 80%", "acuracy", "did you mean accuracy?"),
        ("p95 < 50", "50", "p95 needs a unit"),
        ("p95 < 50 sec", "sec", "p95 is not measured in 'sec'"),
        ("throughput >= 200 req/s", "req", "throughput is not measured in 'req'"),
        ("p95 < 50 accuracy >= 80%", "50", "p95 needs a unit"),
        ("error_rate < 1", "1", "is 1% meant?"),
        ("p95 < 50%", "50", "p95 is not measured in '%'"),
        ("p95 > 50ms", ">", "needs an upper bound"),
        ("accuracy < 90%", "<", "needs a lower bound"),
        ("accuracy >= 90", "90", "no model can meet this: accuracy is never above 100%"),
        ("accuracy >= 0.9 of teacher", "of", "expected 90% of teacher"),
        ("accuracy >= 90% of student", "student", "expected 'teacher'"),
        ("accuracy >= 90% of teacher perplexity", "perplexity", "began with accuracy"),
        (">= 90% of teacher acuracy", "acuracy", "did you mean accuracy?"),
        ("p95 < 50ms accuracy > 1%", "accuracy", "clause should have ended"),
        ("p95 == 50ms", "=", "expected <, <=, > or >="),
        ("p95 < fast", "fast", "a number is missing"),
        ("p95 < 90% of teacher", "90", "cannot be relative"),
        ("perplexity <= 2x", "", "expected 'teacher'"),
        ("p95 < -5 ms", "-5", "expected more than 0 ms, as in 50 ms"),
        ("p95 < 1e999 ms", "1e999", "expected a finite amount, as in 50 ms"),
        ("p95 < 50ms,", "", "a metric is missing"),
        ("", "", "a metric is missing"),
        ("p95 < 50ms, p95 < 40ms", "p95", "bounded twice"),
        (">= 5 ms", "", "names no metric"),
        ("throughput >= 1,000/s", "1", "throughput needs a unit"),
    ],
)
def test_an_error_points_at_the_place(text, place, told):
    with pytest.raises(ObjectiveError) as caught:
        parse_objective(text)
    _, shown, caret, _ = str(caught.value).splitlines()
    assert told in str(caught.value)
    assert shown == f"  {text}"
    start = caret.index("^")
    assert shown[start:][: len(place)] == place
    assert caret.count("^") == max(1, len(place))
    assert caught.value.next_step


NONE, SOME, EVERY = "no model can meet", "no measurement can show", "every model meets"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("perplexity < 0.9", f"{NONE} this: perplexity is never below 1"),
        ("perplexity < 1", NONE),
        ("perplexity <= 1", f"{SOME} this: perplexity would have to be 1 without any doubt"),
        ("label_perplexity < 1", NONE),
        ("byte_perplexity < 1", NONE),
        ("word_perplexity < 1", NONE),
        ("bits_per_byte < 0", NONE),
        ("bits_per_byte <= 0", SOME),
        ("mae < 0", NONE),
        ("mae < -0.1", NONE),
        ("accuracy > 100%", f"{NONE} this: accuracy is never above 100%"),
        ("accuracy >= 1", SOME),
        ("accuracy >= 101%", NONE),
        ("accuracy >= 0%", f"{EVERY} this: accuracy is never below 0%"),
        ("accuracy >= -3%", EVERY),
        ("pearson > 1", f"{NONE} this: Pearson correlation is never above 1"),
        ("pearson > 1.2", NONE),
        ("pearson >= 1", SOME),
        ("pearson >= -1", f"{EVERY} this: Pearson correlation is never below -1"),
        ("p95 < 0 ms", f"{NONE} this: p95 is never below 0 ms"),
        ("p95 < -1 s", NONE),
        ("p95 <= 0 us", SOME),
        ("error_rate < 0", NONE),
        ("error_rate <= 0%", f"{SOME} this: error rate would have to be 0% without any doubt"),
        ("error_rate <= 100%", f"{EVERY} this: error rate is never above 100%"),
        ("error_rate < 101%", EVERY),
        ("throughput >= 0/s", EVERY),
        ("throughput > -1/s", EVERY),
        ("accuracy >= 0% of teacher", EVERY),
        ("perplexity < 0x teacher", NONE),
    ],
)
def test_a_bound_that_decides_nothing_is_refused(text, told):
    """Each outside of what its metric can be, by the registry's range."""
    with pytest.raises(ObjectiveError, match=re.escape(told)):
        parse_objective(text)
    assert parse_objective(text, judged=False).constraints[0].text == text


@pytest.mark.parametrize(
    "text",
    [
        "perplexity < 1.01", "accuracy > 0%", "accuracy >= 99.9%", "accuracy >= 0.999",
        "pearson > 0", "pearson >= -0.2", "spearman > 0.99", "error_rate < 100%",
        "throughput > 0/s", "p95 < 0.001 ms", "bits_per_byte < 0.1", "accuracy >= 120% of teacher",
        "perplexity < 0.9x teacher",
    ],
)  # fmt: skip
def test_a_bound_that_can_decide_is_taken(text):
    assert only_clause(text).text == text


def test_no_metric_has_an_empty_range_or_an_example_that_is_refused():
    for metric in METRICS.values():
        low, high = metric.possible
        assert low < high
        assert only_clause(metric.clause).metric == metric.name


def test_each_task_has_its_own_metrics():
    names = {
        task: [metric.name for metric in quality_metrics(task)]
        for task in (f.kind for f in FAMILIES)
    }
    assert names["sequence-classification"][:2] == ["accuracy", "macro_f1"]
    assert names["question-answering"] == ["exact_match", "f1"]
    assert names["causal-lm"] == [
        "perplexity", "bits_per_byte", "word_perplexity", "byte_perplexity",
    ]  # fmt: skip
    assert all(names.values()), "a task without a metric of quality"


@st.composite
def clauses(draw):
    """A clause as somebody might write it, beside what it means: of every metric there is."""
    metric = METRICS[draw(st.sampled_from(list(METRICS)))]
    operator = draw(st.sampled_from(["<", "<="] if metric.lower_is_better else [">", ">="]))
    space = draw(st.sampled_from(["", " "]))
    lowest, highest = metric.possible
    number = round(draw(st.floats(0.001 + max(lowest, 0), min(highest, 100) - 0.001)), 3)
    if metric.kind is MetricKind.QUALITY and draw(st.booleans()):
        end = draw(st.sampled_from([" teacher", " of teacher", " of the teacher's"]))
        text = f"{metric.name} {operator}{space}{number}x{end}"
        return text, (metric.name, operator, number, True)
    unit = draw(st.sampled_from(list(metric.unit.scales)))
    text = f"{metric.name}{space}{operator} {number}{space}{unit}"
    return text, (metric.name, operator, number * metric.unit.scales[unit], False)


@given(
    st.lists(clauses(), min_size=1, max_size=6, unique_by=lambda clause: clause[1][0]),
    st.sampled_from([", ", ",", " and ", ", and ", " at "]),
)
def test_what_is_written_is_what_is_read(written, separator):
    slo = parse_objective(separator.join(text for text, _ in written))
    assert [clause.text for clause in slo.constraints] == [text.strip() for text, _ in written]
    for clause, (_, (metric, operator, value, relative)) in zip(
        slo.constraints, written, strict=True
    ):
        assert (clause.metric, clause.operator) == (metric, operator)
        assert clause.relative_to_teacher is relative
        assert clause.value == pytest.approx(value, rel=1e-11)


FRAGMENTS = [
    *METRICS, "<", "<=", ">", ">=", "≤",
    "50", ".5", "1e3", "ms", "us", "s", "%", "x", "\u00d7", "/s", "of", "the", "teacher",
    "teacher's", ",", "and", "at", "\n", "\t", "'", "-", "é", "漢",
]  # fmt: skip


@given(
    st.one_of(
        st.text(), st.lists(st.sampled_from(FRAGMENTS)).map(" ".join), st.text("p95<m s,%x'/µ\n")
    )
)
def test_any_text_parses_or_says_why_not(text):
    try:
        assert parse_objective(text).constraints
    except ObjectiveError as error:
        *_, shown, caret, expected = str(error).splitlines()
        assert len(shown) == len(text) + 2
        assert set(caret) <= {" ", "^"}
        assert expected.strip()


def test_an_objective_is_parsed_once_when_its_study_is_read(monkeypatch, tmp_path):
    parsed = []

    class Counting(objective._Parser):
        def __init__(self, text, **options):
            parsed.append(text)
            super().__init__(text, **options)

    monkeypatch.setattr(objective, "_Parser", Counting)
    study = load_study(write_local_study(tmp_path))
    assert parsed == [study.objective.text]
    asked = parse_objective("p99 < 20 ms")
    changed = study.asked_otherwise(objective=asked)
    for one in (study, changed):
        for family in one.families:
            one.objective_of(family)
    assert {changed.objective_of(family) for family in changed.families} == {asked}
    assert parsed == [study.objective.text, "p99 < 20 ms"]
    assert study.model_dump(mode="json")["objective"] == study.objective.text


def test_an_objective_in_place_of_the_studys_is_held_against_its_tasks(tmp_path):
    study = load_study(write_local_study(tmp_path))
    with pytest.raises(StudyError, match="asks for perplexity, which a sequence-classification"):
        study.asked_otherwise(objective=parse_objective("perplexity < 20"))
