"""What the terms derive: where a request's milliseconds went, what a trial is called."""

import dataclasses

import pytest

from harness.types import ServerMetrics
from tests.samples import sample_trial_result


def test_client_queue_and_compute_add_up_to_the_client_s_mean():
    result = sample_trial_result()
    parts = result.client_ms + result.server.queue_ms + result.server.compute_ms
    assert result.server.compute_ms == pytest.approx(5.2)
    assert parts == pytest.approx(result.latency.mean_ms)


def test_the_client_s_part_is_never_negative():
    result = sample_trial_result()
    slow = dataclasses.replace(result.server, queue_ms=20.0)
    assert dataclasses.replace(result, server=slow).client_ms == 0.0


def test_what_either_side_does_not_offer_is_none_and_never_zero():
    result = sample_trial_result()
    blind = ServerMetrics()
    assert dataclasses.replace(result, server=blind).client_ms is None
    assert dataclasses.replace(result, latencies={}).client_ms is None
    assert (blind.batch_mean, blind.compute_ms) == (None, None)


def test_a_trial_is_named_by_all_that_distinguishes_it():
    trial = sample_trial_result().trial
    again = dataclasses.replace(trial, repeat=1)
    wider = dataclasses.replace(trial, serving=dataclasses.replace(trial.serving, instance_count=2))
    assert trial.trial_id == "teacher-fp32--mb16-qd0-i1-t1--grpc-b4-c1"
    assert len({trial.trial_id, again.trial_id, wider.trial_id}) == 3
