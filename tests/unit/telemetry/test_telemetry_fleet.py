"""Counters of replicas that come and go, added up over a window."""

import pytest

from harness.telemetry.fleet import FleetHistory, ReplicaCounters

PAGE = """\
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="m",version="1"} 100
nv_inference_request_success{model="other",version="1"} 900
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="m",version="1",reason="REJECTED"} 5
nv_inference_request_failure{model="m",version="1",reason="OTHER"} 2
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="m",version="1"} 400000
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="m",version="1"} 1500000
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="m",version="1"} 3
"""


def test_a_page_is_read_for_one_model_alone():
    assert ReplicaCounters.of_page(PAGE, "m") == ReplicaCounters(107.0, 0.4, 1.5, 3.0)
    assert ReplicaCounters.of_page(PAGE, "nobody") == ReplicaCounters(0.0, 0.0, 0.0, 0.0)


def at(completed, queued_s=0.0, spent_s=0.0, waiting=0.0):
    return ReplicaCounters(completed, queued_s, spent_s, waiting)


def test_rates_are_increases_over_the_window_and_queues_those_of_now():
    """In 10 s 200 requests that waited 2 s in all and took 12 s: 20/s, 1 executing, 10 ms."""
    history = FleetHistory(10.0)
    history.add(0.0, {"a": at(1000, 5.0, 50.0, 9.0), "b": at(0)})
    history.add(10.0, {"a": at(1150, 6.0, 58.0, 2.0), "b": at(50, 1.0, 4.0, 1.0)})
    found = history.rates()
    assert (found.completed_per_s, found.waiting) == (20.0, 3.0)
    assert found.executing == pytest.approx(1.0)
    assert found.queue_ms == pytest.approx(10.0)


def test_what_waits_on_the_way_to_the_replicas_waits_too():
    """3 in their queues and 1 executing: of 40 in flight 39 wait, of 2 still the 3."""
    history = FleetHistory(10.0)
    history.add(0.0, {"a": at(1000, 5.0, 50.0, 9.0)})
    history.add(10.0, {"a": at(1200, 7.0, 62.0, 3.0)})
    found = history.rates()
    assert found.waiting_of(40) == pytest.approx(39.0)
    assert found.waiting_of(2) == 3.0


def test_a_replica_that_comes_or_goes_is_no_jump_of_the_sum():
    history = FleetHistory(10.0)
    history.add(0.0, {"a": at(5000)})
    history.add(5.0, {"a": at(5050), "new": at(0)})
    history.add(10.0, {"new": at(50)})
    assert history.rates().completed_per_s == 10.0


def test_what_left_the_window_does_not_count():
    history = FleetHistory(10.0)
    for second in range(31):
        history.add(float(second), {"a": at(10.0 * second if second <= 20 else 200.0)})
    assert history.rates().completed_per_s == 0.0
    assert FleetHistory(10.0).rates().queue_ms == 0.0
