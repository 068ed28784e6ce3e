"""`cost < 0.20/1M` is a metric of the objective: read, priced, judged by its interval, stored."""

import dataclasses
from datetime import date

import pytest
from cost_samples import STUDENT, result
from planning_samples import judge_trial
from pydantic import TypeAdapter

from harness.errors import ObjectiveError, StudyError, UsageError
from harness.flow.external.study import narrowed
from harness.flow.results import BegunTrial, ClientSide, assess_trial
from harness.planning.assessment import assess
from harness.planning.cost.pricing import priced
from harness.study import study_schema
from harness.study.clauses import check_priced
from harness.study.file import parse_study
from harness.study.objective import parse_objective
from harness.types import Decision, StreamCounts, StreamFigures, TrialResult, WireProtocol
from harness.types.estimates import Interval, Pricing
from harness.words.numbers import amount
from tests.samples import sample_study

DAY = date(2026, 11, 29)
ONE_DOLLAR = Pricing("two", 1.0)
ESTIMATE = Pricing("two", 1.0, Interval(1.0, 0.5, 2.0), "estimate from a machine with 2 vCPUs")
TWO_CORES = {"usable_cores": 2, "gpus": []}


@pytest.mark.parametrize(
    "text", ["cost < 0.20/1M", "cost < 0.2 / 1m", "COST < .2/1M", "cost < 0.0002/1k"]
)
def test_a_clause_on_cost_is_read(text):
    (clause,) = parse_objective(text).constraints
    assert (clause.metric, clause.value, amount(clause)) == ("cost", 0.2, "0.2 USD/1M")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cost < 0.2", "expected /1m, /1k, as in 0.20/1M"),
        ("cost < 0.2 ms", "cost is not measured in 'ms'"),
        ("cost > 0.2/1M", "cost needs an upper bound"),
        ("cost < 0/1M", "no model can meet this: cost is never below 0 USD/1M"),
        ("cost < 90% of teacher", "cost cannot be relative to the teacher"),
        ("costs < 0.2/1M", "did you mean cost?"),
    ],
)
def test_a_clause_on_cost_that_cannot_be_is_told(text, told):
    with pytest.raises(ObjectiveError) as caught:
        parse_objective(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["cost < 2/1M tokens", "cost < 2/1M output tokens", "output_token_cost < 2/1M",
     "output_token_cost < 0.002/1k"],
)  # fmt: skip
def test_a_cost_per_million_tokens_is_read(text):
    (clause,) = parse_objective(text).constraints
    assert (clause.metric, clause.value, clause.text) == ("output_token_cost", 2.0, text)


def test_two_costs_may_be_asked_for_together():
    both = parse_objective("cost < 0.2/1M, cost < 2/1M tokens and p95 < 50 ms").constraints
    assert [one.metric for one in both] == ["cost", "output_token_cost", "p95"]


def test_output_of_what_is_asked():
    with pytest.raises(ObjectiveError, match="output of what"):
        parse_objective("cost < 2/1M output cows")


def writing(**changes):
    """1,000 tokens/s (900 to 1,100) at 1 USD/h: 0.278 (0.253 to 0.309) USD per million."""
    figures = StreamFigures(StreamCounts(5000, 20_000), 1000.0, Interval(1000.0, 900.0, 1100.0))
    return {"streams": figures, **changes}


@pytest.mark.parametrize(
    ("bound", "decision"),
    [("0.31", Decision.PASS), ("0.25", Decision.FAIL), ("0.3", Decision.UNDECIDED)],
)
def test_a_cost_per_token_is_judged_by_the_interval_of_the_tokens(bound, decision):
    assert judged(f"cost < {bound}/1M tokens", **writing())[0] is decision


def test_a_cost_per_token_needs_tokens_and_a_machine():
    assert judged("cost < 2/1M tokens")[0] is Decision.UNDECIDED
    assert "no machine was named" in judged("cost < 2/1M tokens", None, **writing())[1]
    with pytest.raises(UsageError, match="no machine is named to price it on"):
        check_priced(parse_objective("cost < 2/1M tokens"))


def judged(text, pricing=ONE_DOLLAR, **changes):
    """1,000 (900 to 1,100) inferences/s at 1 USD/h: 0.278 (0.253 to 0.309) per million."""
    return judge_trial(
        parse_objective(text),
        dataclasses.replace(result(STUDENT, 1000.0), pricing=pricing, **changes),
    )


@pytest.mark.parametrize(
    ("text", "decision", "reason"),
    [
        ("cost < 0.309/1M", Decision.PASS, ""),
        ("cost < 0.252/1M", Decision.FAIL,
         ("cost 0.278 USD/1M (on two at 1 USD/h, 95% interval 0.253\u20130.309 USD/1M) is over "
          "0.252 USD/1M")),
        ("cost < 0.308/1M", Decision.UNDECIDED,
         ("cost 0.278 USD/1M (on two at 1 USD/h, 95% interval 0.253\u20130.309 USD/1M) cannot yet "
          "be told from 0.308 USD/1M: about 2 times as many requests would tell")),
    ],
)  # fmt: skip
def test_a_cost_is_judged_by_its_interval(text, decision, reason):
    assert judged(text) == (decision, reason)


def test_an_estimate_is_judged_with_its_bounds_and_says_so():
    """0.278 (0.126 to 0.617) USD per million."""
    assert judged("cost < 0.618/1M", ESTIMATE) == (Decision.PASS, "")
    decision, reason = judged("cost < 0.3/1M", ESTIMATE)
    assert decision is Decision.UNDECIDED
    assert reason == (
        "cost 0.278 USD/1M (estimate for two at 1 USD/h, 95% interval 0.126\u20130.617 USD/1M) "
        "cannot yet be told from 0.3 USD/1M: a run on two would tell"
    )
    assert judged("cost < 0.126/1M", ESTIMATE)[0] is Decision.FAIL


def test_without_a_machine_or_an_interval_nothing_is_decided():
    decision, reason = judged("cost < 0.3/1M", None)
    assert decision is Decision.UNDECIDED
    assert reason.startswith("no machine was named to price it on")
    short = {"throughput_low_inferences_per_s": None, "throughput_high_inferences_per_s": None}
    decision, reason = judged("cost < 0.3/1M", **short)
    assert decision is Decision.UNDECIDED
    assert "has no interval" in reason


def test_a_cost_that_more_load_may_lower_does_not_rule_a_cell_out():
    one = dataclasses.replace(result(STUDENT, 1000.0), pricing=ONE_DOLLAR)
    dear = assess(parse_objective("p95 < 50 ms, cost < 0.1/1M"), one)
    assert (dear.decision, dear.cause) == (Decision.FAIL, "cost")
    assert (dear.feasible, dear.promising, dear.overloaded) == (True, False, False)


def test_a_trial_keeps_what_it_was_priced_on():
    slo = dataclasses.replace(parse_objective("cost < 0.3/1M"), pricing=ESTIMATE)
    one = result(STUDENT, 1000.0)
    clients = ClientSide(2.0, 2000, {}, 0, 1000.0, 1000.0, 900.0, 1100.0, one.latencies, 1.0)
    made = assess_trial(BegunTrial(one.trial, "", ""), slo, clients).result
    assert made.pricing == ESTIMATE
    adapter = TypeAdapter(TrialResult)
    assert adapter.validate_json(adapter.dump_json(made)).pricing == ESTIMATE
    former = adapter.dump_python(made, mode="json")
    del former["pricing"]
    assert adapter.validate_python(former).pricing is None


def study_with(objective="cost < 0.3/1M", **cost):
    changes = {"cost": {"instance": "c7i.large", **cost}} if cost != {"none": True} else {}
    return parse_study(sample_study(objective=objective, **changes), source="study")


def pricing_of(study, environment=None, *, external=False):
    found = priced(study, environment or TWO_CORES, today=DAY, external=external)
    (slo,) = {found.objective_of(family) for family in found.families}
    return slo.pricing


def test_an_objective_on_cost_needs_a_machine():
    with pytest.raises(StudyError) as caught:
        study_with(none=True)
    assert (
        "the objective asks for cost < 0.3/1M, and no machine is named to price it on: "
        "write cost: {instance: g5.xlarge} in the study"
    ) in str(caught.value)
    plain = study_with("p95 < 50 ms", none=True)
    with pytest.raises(StudyError, match="no machine is named"):
        plain.asked_otherwise(objective=parse_objective("cost < 1/1M"))
    with pytest.raises(UsageError, match="no machine is named"):
        check_priced(parse_objective("cost < 1/1M"))
    check_priced(parse_objective("p95 < 50 ms"))


def test_a_study_is_priced_on_the_machine_that_it_names():
    assert pricing_of(study_with(measured_on="c7i.large")) == Pricing("c7i.large", 0.08925)
    detected = {**TWO_CORES, "instance": "c7i.large"}
    assert pricing_of(study_with(), detected) == Pricing("c7i.large", 0.08925)
    unknown = pricing_of(study_with())
    assert unknown.is_estimate
    assert unknown.scaling.value == 1.0
    own = study_with(instance="rack-1", measured_on="rack-1", usd_per_hour=0.3)
    assert pricing_of(own) == Pricing("rack-1", 0.3)


@pytest.mark.parametrize("machine", ["g5.xlarge", "c7i.large"])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_study_on_an_external_server_is_priced_whatever_kind_is_found_there(machine, kind):
    found = priced(
        study_with(instance=machine, measured_on=machine), TWO_CORES, today=DAY, external=True
    )
    there = narrowed(found, WireProtocol.GRPC, kind)
    pricing = there.objective_of(there.families[0]).pricing
    assert (pricing.instance, pricing.is_estimate) == (machine, False)
    assert there.cost.pricing == {kind: pricing}
    other = {"c7i.large": "c7i.xlarge", "g5.xlarge": "g6.xlarge"}[machine]
    scaled = priced(
        study_with(instance=other, measured_on=machine), TWO_CORES, today=DAY, external=True
    )
    there = narrowed(scaled, WireProtocol.GRPC, kind)
    assert there.objective_of(there.families[0]).pricing.is_estimate


def test_an_unpriced_study_stays_as_it_is():
    study = study_with("p95 < 50 ms", none=True)
    assert priced(study, TWO_CORES, today=DAY) is study
    assert study.objective_of(study.families[0]).pricing is None


@pytest.mark.parametrize(
    ("cost", "external", "told"),
    [
        ({"instance": "c7i.lrge"}, False, "did you mean c7i.large"),
        ({"instance": "g5.xlarge"}, False, "cannot be estimated"),
        ({"spot": True}, False, "the spot price of c7i.large is not known"),
        ({}, True, "the machine of an external server is not known here"),
    ],
)
def test_what_cannot_be_priced_is_told_before_anything_starts(cost, external, told):
    with pytest.raises(UsageError, match=told) as caught:
        pricing_of(study_with(**cost), external=external)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        ({"usd_per_hour": 0.0}, "usd_per_hour: Input should be greater than 0"),
        ({"prices": "none.csv"}, "no such file"),
        ({"instanz": "x"}, "instanz: unknown key"),
    ],
)
def test_a_section_that_cannot_be_is_told(cost, told):
    with pytest.raises(StudyError) as caught:
        study_with(**cost)
    assert told in str(caught.value)


def test_a_priced_study_is_stored_and_read_back():
    study = priced(study_with(measured_on="c7i.large"), TWO_CORES, today=DAY)
    again = parse_study(study.model_dump(mode="json"), source="stored")
    assert again == study
    assert again.objective_of(again.families[0]).pricing == Pricing("c7i.large", 0.08925)


def test_the_schema_has_what_a_user_writes_alone():
    assert sorted(study_schema()["$defs"]["CostBasis"]["properties"]) == [
        "instance", "measured_on", "prices", "spot", "usd_per_hour",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "times"),
    [
        # 1,000/s at 1 USD/h cost 0.278 USD per million; 0.4 are 694/s, 306 less than measured
        (0.0, 2000.0, 11),
        (600.0, 1400.0, 2),
    ],
)
def test_how_much_longer_a_cost_takes_follows_from_its_rate(low, high, times):
    """A rate that may be nothing yet has no upper bound of its cost: that is no bound at it."""
    found = dataclasses.replace(
        result(STUDENT, 1000.0),
        pricing=ONE_DOLLAR,
        throughput_low_inferences_per_s=low,
        throughput_high_inferences_per_s=high,
    )
    decision, reason = judge_trial(parse_objective("p95 < 50 ms, cost < 0.4/1M"), found)
    assert decision is Decision.UNDECIDED
    assert reason.endswith(f"about {times} times as many requests would tell")
