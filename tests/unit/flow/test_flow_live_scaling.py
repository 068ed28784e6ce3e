"""What a live scaler counts, and what is told of it; the servers are another test's."""

from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
from sample_scaling import sample_scaling
from samples import sample_variant

from harness.errors import GeneratorError, RunFolderError, ServerError
from harness.flow import live_scaling
from harness.flow.live_machine import MEASURED_S, SETTLE_S, Phases
from harness.flow.live_scaling import arrivals_of, squeezed
from harness.flow.live_session import LiveSession
from harness.load.generators.driver import SLICE_S
from harness.planning.autoscaling.outcome import outcome_of
from harness.planning.autoscaling.rules import FleetReading, recommend
from harness.runs.documents import write_document
from harness.serving.replicas.replica_set import ReplicaSet, RunningReplica
from harness.telemetry.fleet import FleetHistory, ReplicaCounters
from harness.types import ServingConfig, TimeSlice
from harness.types.autoscaling import LiveState, LiveStep, RateTrace, UtilizationRule


def test_a_squeezed_trace_has_the_same_rates_in_less_time():
    found = squeezed(RateTrace("day", 3600.0, (1.0, 5.0, 2.0, 2.0)), 120.0)
    assert (found.duration_s, found.rates_per_s) == (120.0, (1.0, 5.0, 2.0, 2.0))
    assert "14,400 s squeezed into 120 s" in found.notes[-1]


def test_arrivals_are_poisson_at_the_traces_rates_and_the_seeds_own():
    trace = RateTrace("steps", 10.0, (100.0, 0.0, 400.0))
    times = arrivals_of(trace, 3)
    assert np.array_equal(times, arrivals_of(trace, 3))
    assert not np.array_equal(times, arrivals_of(trace, 4))
    counts, _ = np.histogram(times, [0, 10, 20, 30])
    assert counts[1] == 0
    # Four deviations of a Poisson count either way.
    assert counts[0] == pytest.approx(1000, abs=4 * 1000**0.5)
    assert counts[2] == pytest.approx(4000, abs=4 * 4000**0.5)


def state(*steps):
    plan = sample_scaling()
    policy = next(one.policy for one in plan.outcomes if one.policy.name == plan.chosen)
    return LiveState(plan, policy, 60.0, tuple(steps), start_times_s=(2.0, 4.0))


def test_measured_and_predicted_stand_side_by_side():
    """1 replica for 10 s, 2 for 10 s, 3 for 20 s: 90 replica seconds; 950 of 1,000 in time."""
    found = outcome_of(
        state(
            LiveStep(0.0, 1, 1, 0, 0, 0),
            LiveStep(10.0, 2, 1, 300, 300, 0),
            LiveStep(20.0, 3, 2, 600, 580, 5),
            LiveStep(40.0, 2, 3, 1000, 950, 8),
        )
    )
    assert found.attained.value == 0.95
    # Clopper-Pearson, 950 of 1,000 at 95%.
    assert (found.attained.low, found.attained.high) == pytest.approx((0.9346, 0.9627), abs=1e-4)
    assert found.replica_hours == pytest.approx((10 * 1 + 10 * 2 + 20 * 3) / 3600)
    assert (found.scalings, found.most_replicas, found.failed) == (3, 3, 8)
    assert (found.course.ordered, found.course.ready) == ((1.0, 2.0, 3.0), (1.0, 1.0, 2.0))
    assert (found.start_s.value, found.start_s.low, found.start_s.high) == (3.0, 2.0, 4.0)
    predicted = next(one for one in sample_scaling().outcomes if one.policy.name == found.policy)
    assert found.predicted == predicted.attained
    assert found.course.attained == (1.0, 280 / 300, 370 / 400)


def test_a_live_run_without_a_request_says_nothing():
    with pytest.raises(GeneratorError, match="sent nothing"):
        outcome_of(state())
    with pytest.raises(GeneratorError, match="sent nothing"):
        outcome_of(replace(state(), steps=(LiveStep(5.0, 1, 1, 0, 0, 0),)))


class Fleet:
    """Replicas that serve when the test says so."""

    def __init__(self):
        self.ordered = 1
        self.running = ["one"]

    def resize(self, number):
        self.ordered = number


def test_a_live_run_says_with_how_many_replicas_it_begins(tmp_path):
    """Its first stretch, before any decision, is one of those; a resumed run has said it."""

    def begun(kept):
        session = LiveSession(
            kept, tmp_path / "live.json", Replicas(), lambda: 0, 0.25, lambda _: None
        )
        session.on_window_start()
        session.stop()
        return session.state.steps

    (first,) = begun(state())
    assert (first.at_s, first.ordered, first.ready, first.requests) == (0.0, 2, 2, 0)
    assert first.counted_s == 0.25  # the first request is still to be sent
    decided = LiveStep(5.0, 3, 2, 100, 100, 0, 5.0)
    assert begun(state(first, decided)) == (first, decided)


def test_what_is_written_down_while_the_load_is_counted_is_of_one_moment(tmp_path):
    """Or a run that is killed then would count again, going on, what it had counted."""
    session = LiveSession(
        state(), tmp_path / "live.json", Replicas(), lambda: 0, 0.0, lambda _: None
    )

    class Watched(list):
        """A window in which the scaler's thread writes after every slice that is counted."""

        def __getitem__(self, asked):
            return Watched(super().__getitem__(asked))

        def __iter__(self):
            for one in super().__iter__():
                yield one
                session._record(0.0)

    window = Watched(TimeSlice(index, dropped=1) for index in range(4))
    session.decided(window)
    session.decided(Watched([*window, TimeSlice(4, dropped=1)]))
    session._record(0.0)
    told = {(one.requests, round(one.counted_s / SLICE_S)) for one in session.state.steps}
    assert told == {(0, 0), (4, 4), (5, 5)}
    session.count_rest(Watched([*window, TimeSlice(4, dropped=1), TimeSlice(5, dropped=2)]))
    last = session.state.steps[-1]
    assert (last.requests, last.failed, round(last.counted_s / SLICE_S)) == (7, 7, 6)


def test_a_live_run_that_does_not_say_how_it_began_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(live_scaling, "read_run", lambda _: None)
    write_document(tmp_path, live_scaling.LIVE, state(LiveStep(5.0, 3, 2, 100, 100, 0, 5.0)))
    with pytest.raises(RunFolderError, match="does not say with how many replicas it began"):
        live_scaling.resume_live(tmp_path, tmp_path, lambda _: None)


class Replicas(ReplicaSet):
    """Two that serve, and are nowhere."""

    ordered, running, start_times_s = 2, [RunningReplica("", "", lambda: None)] * 2, []

    def __init__(self):
        pass


def test_a_replica_is_watched_by_its_own_server(monkeypatch, tmp_path):
    class Triton(MagicMock):
        def check(self):
            raise ServerError("Triton ended by SIGKILL")

    monkeypatch.setattr(live_scaling, "EmbeddedTriton", Triton)
    monkeypatch.setattr(live_scaling, "TritonClient", MagicMock())
    launch = live_scaling._Launch(None, sample_variant("student"), ServingConfig(8), tmp_path)
    with launch(0) as running, pytest.raises(ServerError, match="SIGKILL"):
        running.check()


def slices(*completed):
    return [TimeSlice(index, completed=one) for index, one in enumerate(completed)]


def test_a_machine_is_measured_with_one_replica_then_one_beside_a_start_then_two():
    """1,000, 600 and 1,200 requests/s; the first second of a load that is new does not count."""
    second, last = round(1 / SLICE_S), round((SETTLE_S + MEASURED_S) / SLICE_S)
    fleet = Fleet()
    phases = Phases(fleet)
    per_slice = [round(rate * SLICE_S) for rate in (1000, 600, 1200)]
    done = [0] * second + [per_slice[0]] * (last - second)
    assert not phases.decided(slices(*done[:-1]))
    assert fleet.ordered == 1
    assert not phases.decided(slices(*done))
    assert fleet.ordered == 2
    done += [per_slice[1]] * 10
    assert not phases.decided(slices(*done))
    fleet.running.append("two")
    assert not phases.decided(slices(*done))
    done += [0] * second + [per_slice[2]] * (last - second)
    assert not phases.decided(slices(*done[:-1]))
    assert phases.decided(slices(*done))
    machine = phases.machine()
    assert (machine.alone_per_s, machine.pair_per_s) == (1000.0, 1200.0)
    assert machine.starting_share == pytest.approx(0.6)


def test_replicas_that_answer_nothing_are_no_measurement():
    with pytest.raises(GeneratorError, match="answered nothing"):
        Phases(Fleet()).machine()


def waiting_demand(in_flight):
    """What a rule at 70% of 100/s makes of 100 answers per second, by what is in flight."""
    history = FleetHistory(10.0)
    history.add(0.0, {"a": ReplicaCounters(0.0, 0.0, 0.0, 0.0)})
    history.add(10.0, {"a": ReplicaCounters(1000.0, 1.0, 11.0, 2.0)})
    seen = history.rates()
    reading = FleetReading(
        10.0, 1, 1, seen.completed_per_s, seen.waiting_of(in_flight), seen.executing, seen.queue_ms
    )
    return recommend(UtilizationRule(0.7, 70.0, drain_s=10.0), reading, (), 0.1)


def test_an_overload_that_waits_before_the_replicas_is_seen():
    """One replica answers its 100/s whatever comes; 900 requests wait at the balancer."""
    assert waiting_demand(in_flight=3) == 2
    assert waiting_demand(in_flight=901) == 3
