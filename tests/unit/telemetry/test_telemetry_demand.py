"""Demand by a range query: what a Prometheus answers, and what is wrong with it."""

import pytest

from harness.errors import UsageError
from harness.telemetry.prometheus.client import Prometheus, QueryFailure, Series
from harness.telemetry.prometheus.demand import demand_of_query


class Answers(Prometheus):
    """Gives fixed series to any range query, and keeps what it was asked."""

    def values(self, query, *, start_s, end_s, step_s):
        self.__dict__["asked"] = (query, start_s, end_s, step_s)
        answer = self.__dict__["answer"]
        if isinstance(answer, Exception):
            raise answer
        return answer


def asking(answer):
    source = Answers("http://prometheus:9090")
    source.__dict__["answer"] = answer
    return source


def demand(answer, query="sum(rate(http_requests_total[1m]))", **more):
    asked = {"end_s": 1240.0, "length_s": 240.0, "step_s": 60.0} | more
    return demand_of_query(asking(answer), query, **asked)


def series(*values, start_s=1000.0):
    return Series({}, tuple(start_s + 60.0 * n for n in range(len(values))), values)


def test_the_values_are_the_rates():
    found = demand([series(1.0, 2.0, 3.0, 2.0, 1.0)])
    assert (found.step_s, found.rates_per_s) == (60.0, (1.0, 2.0, 3.0, 2.0, 1.0))
    assert "1970-01-01T00:16:40Z" in found.notes[0]


def test_the_time_of_day_at_which_the_values_begin_is_known():
    """14:30 UTC, three days on."""
    start_s = 3 * 86400.0 + 14.5 * 3600
    found = demand([series(*[1.0] * 5, start_s=start_s)], end_s=start_s + 240.0)
    assert found.begins_s == 14.5 * 3600


def test_counted_answers_are_said_to_hide_demand():
    """While servers are saturated their own counters say what they can, not what was asked."""
    found = demand([series(*[1.0] * 5)], "sum(rate(nv_inference_request_success[1m]))")
    assert "more was asked of them" in found.notes[1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([], "has no data"),
        ([series(1.0)], "has no data"),
        ([series(*[1.0] * 5), series(*[1.0] * 5)], "gives 2 series"),
        ([series(1.0, 1.0, 1.0, 1.0)], "no value from 1970-01-01T00:20:40Z on"),
        ([series(1.0, 1.0, 1.0, start_s=1120.0)], "no value from 1970-01-01T00:16:40Z on"),
        ([Series({}, (1000.0, 1060.0, 1240.0), (1.0,) * 3)], "no value from 1970-01-01T00:18:40Z"),
        ([series(1.0, -2.0, 1.0, 1.0, 1.0)], "never below 0"),
        (QueryFailure("it refuses the query (400): parse error"), "parse error"),
    ],
)
def test_what_is_no_demand_is_refused(answer, words):
    with pytest.raises(UsageError) as raised:
        demand(answer)
    assert words in str(raised.value)
    assert raised.value.next_step


def test_more_values_than_prometheus_gives_are_not_asked_for():
    with pytest.raises(UsageError, match="11,000"):
        demand([], length_s=86400.0 * 30, step_s=15.0)
