"""One load in made-up time: when its window opens and closes, and what is waited for after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from harness import hdr
from harness.errors import GeneratorError
from harness.load.generators import driver
from harness.load.generators.driver import LEAD_S, SLICE_S, LoadDriver
from harness.load.generators.messages import LoadEnded, LoadProgress, Measure, StopLoad
from harness.load.generators.pool import DRAIN_GRACE_S, drain_s
from harness.load.transports.streams.http import LONGEST_S
from harness.types import (
    RESPONSE,
    Generation,
    Latencies,
    StreamApi,
    TimeSlice,
    WireProtocol,
    Workload,
)
from tests.virtual_time import VirtualClock

NS = 1_000_000_000
SLICE_NS = round(SLICE_S * NS)
BEGAN_NS = 1_000 * NS
START_NS = BEGAN_NS + round(LEAD_S * NS)
REPORT_NS = NS // 10
ONE = Latencies({RESPONSE: hdr.of_nanoseconds(np.array([5_000_000]))})


@dataclass
class Generator:
    """A process that has one request a slice, and reports every 0.1 s what has ended."""

    clock: VirtualClock
    held_up_ns: int = 0
    """How much later than it should it makes its reports."""
    hangs: bool = False
    index: int = 0
    name: str = "load generator 0"
    round_trip_ns: int = 0
    clock_error_ns: int = 0
    orders: list[Measure | StopLoad] = field(default_factory=list)
    told: int = 0
    """Slices."""
    ended: bool = False
    reports: int = 0
    loses: int = -1
    """The number of a report that does not arrive."""
    former_load: bool = False
    """Whether all of its first report comes once more, as another load's."""

    def send(self, order: Measure | StopLoad) -> None:
        self.orders.append(order)

    def failure(self, what: str) -> GeneratorError:
        return GeneratorError(f"{self.name} {what}")

    @property
    def end_ns(self) -> int:
        return min(one.end_ns for one in self.orders)

    def answer(self, now_ns: int) -> list[LoadProgress | LoadEnded]:
        """What it has to say by now."""
        known_ns = min(now_ns - self.held_up_ns, self.end_ns)
        whole = max(0, (known_ns - START_NS) // SLICE_NS)
        slices = tuple(
            TimeSlice(index, ok=ONE, completed=1, inferences=1) for index in range(self.told, whole)
        )
        self.told = whole
        progress = LoadProgress(
            now_ns, START_NS + whole * SLICE_NS, slices, 0.0, ONE.response, 1,
            since_ns=now_ns - REPORT_NS, number=self.reports,
        )  # fmt: skip
        self.reports += 1
        told = [progress] if progress.number != self.loses else []
        if progress.number == 0 and self.former_load:
            told.append(replace(progress, load="former", slices=(TimeSlice(0, completed=9),)))
        if now_ns - self.held_up_ns < self.end_ns or self.hangs:
            return told
        self.ended = True
        return [*told, LoadEnded()]


@dataclass
class Watched:
    """What steers the load, by functions of what it is shown; when the window's ends were told."""

    clock: VirtualClock
    is_steady: Callable[[int], bool] = lambda count: False
    is_decided: Callable[[int], bool] = lambda count: False
    reading_s: float = 0.0
    """What reading the server takes."""
    told_ns: list[int] = field(default_factory=list)

    def steady(self, slices: Sequence[TimeSlice]) -> bool:
        return self.is_steady(len(slices))

    def decided(self, window: Sequence[TimeSlice]) -> bool:
        return self.is_decided(len(window))

    def on_window_start(self) -> None:
        self.told_ns.append(self.clock.now_ns())
        self.clock.sleep(self.reading_s)

    def on_window_end(self) -> None:
        self.told_ns.append(self.clock.now_ns())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """Time that passes while reports are waited for."""
    made = VirtualClock(BEGAN_NS)

    def take(listening: Sequence[Generator], *, until_ns: int) -> list:
        next_ns = (made.at_ns // REPORT_NS + 1) * REPORT_NS
        made.at_ns = max(made.at_ns, min(until_ns, next_ns))
        if made.at_ns < next_ns:
            return []
        return [(one.index, each) for one in listening for each in one.answer(made.at_ns)]

    monkeypatch.setattr(driver, "take_answers", take)
    return made


def drive(
    generator: Generator,
    watched: Watched,
    *,
    check: Callable[[], None] = lambda: None,
    **changes: float,
):
    settings = {"duration_s": 1.0, "warmup_s": 2.0, **changes}
    workload = Workload(WireProtocol.HTTP, 1, 1, seed=0, **settings)
    load = LoadDriver(
        [generator],
        workload,
        watched,
        check,
        lambda worker, report: None,
        clock=generator.clock,
    )
    return load.drive(drain_s=3.0)


def test_without_a_steady_state_the_window_opens_when_the_warm_up_is_over(clock):
    generator, watched = Generator(clock), Watched(clock)
    result = drive(generator, watched)
    assert result.start_ns == START_NS
    assert result.window_start_ns == START_NS + 2 * NS
    assert result.window_end_ns == START_NS + 3 * NS
    assert watched.told_ns == [result.window_start_ns, result.window_end_ns]
    assert [one.index for one in result.window] == list(range(40, 60))
    assert sum(one.completed for one in result.slices) == 60
    assert generator.orders[0].end_ns == START_NS + 3 * NS


def test_the_window_opens_at_the_first_edge_after_the_load_is_called_steady(clock):
    result = drive(Generator(clock), Watched(clock, is_steady=lambda count: count >= 10))
    # Ten slices have ended half a second after the start, and the next report says so.
    assert result.window_start_ns - START_NS == pytest.approx(0.55 * NS, abs=SLICE_NS)
    assert (result.window_start_ns - START_NS) % SLICE_NS == 0
    assert result.duration_s == 1.0


def test_a_decision_closes_the_window_at_an_edge_that_the_order_can_still_reach(clock):
    generator = Generator(clock)
    watched = Watched(clock, is_decided=lambda count: count >= 6)
    result = drive(generator, watched, duration_s=60.0, min_duration_s=0.2)
    assert 0.3 <= result.duration_s <= 0.5
    assert generator.orders[-1] == StopLoad(result.window_end_ns)
    assert (result.window_end_ns - START_NS) % SLICE_NS == 0
    assert len(result.window) == result.duration_s / SLICE_S


def test_nothing_is_decided_before_the_shortest_window(clock):
    watched = Watched(clock, is_decided=lambda count: True)
    result = drive(Generator(clock), watched, duration_s=60.0, min_duration_s=4.0)
    assert 4.0 <= result.duration_s <= 4.2


@pytest.mark.parametrize("reading_s", [0.7, 1.5])
def test_a_slow_look_at_the_server_does_not_move_the_window(clock, reading_s):
    """1.5 s are longer than the window: the generators have known its end from the start."""
    result = drive(Generator(clock), Watched(clock, reading_s=reading_s))
    assert result.window_end_ns == START_NS + 3 * NS
    assert [one.index for one in result.window] == list(range(40, 60))


def test_reports_that_come_late_lose_no_request(clock):
    result = drive(Generator(clock, held_up_ns=2 * NS), Watched(clock))
    assert sum(one.completed for one in result.slices) == 60
    assert result.window_end_ns == START_NS + 3 * NS
    assert clock.at_ns >= START_NS + 5 * NS


def test_what_has_not_ended_when_the_drain_is_over_hangs(clock):
    with pytest.raises(GeneratorError, match="generator 0 hangs: its load ended 3 s ago"):
        drive(Generator(clock, hangs=True), Watched(clock))
    assert clock.at_ns == START_NS + 6 * NS


def test_requests_of_streams_are_waited_for_as_long_as_an_answer_may_take():
    plain = Workload(WireProtocol.HTTP, 1, 1, seed=0, duration_s=1.0, warmup_s=0.0)
    streams = replace(plain, generation=Generation(StreamApi.CHAT))
    assert drain_s(plain, 30.0) == 2 * 30 + DRAIN_GRACE_S
    assert drain_s(streams, 30.0) == LONGEST_S + 3 * 30 + DRAIN_GRACE_S


def test_the_server_is_looked_at_every_second_and_may_end_the_load_at_once(clock):
    looked_ns = []

    def check() -> None:
        looked_ns.append(clock.at_ns)
        if len(looked_ns) == 3:
            raise GeneratorError("the server died")

    with pytest.raises(GeneratorError, match="the server died"):
        drive(Generator(clock), Watched(clock), check=check)
    assert np.diff(looked_ns) == pytest.approx([NS, NS])
    assert clock.at_ns == looked_ns[-1]


def test_a_report_that_does_not_arrive_makes_the_load_one_that_is_not_whole(clock):
    assert drive(Generator(clock), Watched(clock)).troubles == ()
    clock.at_ns = BEGAN_NS
    result = drive(Generator(clock, loses=7), Watched(clock))
    (said,) = result.troubles
    assert "1 of" in said
    assert "reports of load generator 0 did not arrive" in said
    assert sum(one.completed for one in result.slices) < 60


@pytest.mark.parametrize(("error_s", "named"), [(SLICE_S, False), (1.01 * SLICE_S, True)])
def test_a_clock_that_is_known_to_more_than_a_slice_makes_the_load_of_another_time(
    clock, error_s, named
):
    result = drive(Generator(clock, clock_error_ns=round(error_s * NS)), Watched(clock))
    said = [one for one in result.troubles if "the clock of load generator 0 is known to" in one]
    assert result.troubles == tuple(said)
    assert bool(said) == named


def test_what_another_load_tells_late_is_said_and_not_counted(clock, caplog):
    result = drive(Generator(clock, former_load=True), Watched(clock))
    assert sum(one.completed for one in result.slices) == 60
    assert result.troubles == ()
    (said,) = caplog.messages
    assert said == (
        "load generator 0 reports 9 answers and 0 failures of the load former, which is over: "
        "not counted"
    )
