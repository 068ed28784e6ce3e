"""One load-generating process, as the harness sees it through its switchboard.

It is a child of this process (`process.py`) or runs elsewhere and has joined. Either way orders go
to it and answers come of it with all times on this machine's clock.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from harness.errors import GeneratorError
from harness.load.generators.clocks import SAME_CLOCK, ClockOffset
from harness.load.generators.messages import (
    GeneratorAnswer,
    GeneratorFailed,
    Measure,
    Order,
    Prepare,
    StopLoad,
)
from harness.load.generators.notices import Greeting


class OrderLine(Protocol):
    """What a generator is reached through: the switchboard."""

    def give(self, generator: Generator, order: Order) -> None:
        """Send an order; GeneratorError where nobody can be reached any more."""

    def dismiss(self, generator: Generator) -> None:
        """Have a generator end its load."""

    def receive(self, listening: Sequence[Generator] = (), *, timeout_s: float) -> None:
        """Take in what comes, until something has or the time is over.

        Raises:
            GeneratorError: one of those that are listened to is dead or gone.
        """


class Generator(ABC):
    """Whoever takes orders.

    Args:
        index: its number in the load.
        switchboard: that it is reached through.
        name: in words.
    """

    def __init__(self, index: int, switchboard: OrderLine, name: str) -> None:
        self.index = index
        self.switchboard = switchboard
        self.name = name
        self.key = ""
        """By which the switchboard knows it; empty until it has joined."""
        self.load = ""
        """The load that it was last told of."""
        self.clock = SAME_CLOCK
        self.round_trip_ns = 0
        """To it and back, at best."""
        self.clock_error_ns = 0
        """How far off its slices of this load may lie, at most."""
        self._clock_of_load = SAME_CLOCK
        self._came: deque[GeneratorAnswer] = deque()
        self._unsent: list[Order] = []

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether it is there, as far as is known."""

    @abstractmethod
    def failure(self, what: str) -> GeneratorError:
        """An error that names it."""

    @abstractmethod
    def kill(self) -> None:
        """End at once what it does."""

    def send(self, order: Order) -> None:
        """Give an order, in times of this machine; before it has joined it waits here.

        Raises:
            GeneratorError: the switchboard is dead.
        """
        if isinstance(order, Prepare):
            self.load = order.load
            self._came.clear()
            self._unsent.clear()
        if not self.key:
            self._unsent.append(order)
            return
        if isinstance(order, Measure):
            # One offset for a whole load: its slices are of one length, its ends where they belong.
            self._clock_of_load, self.clock_error_ns = self.clock, self.clock.error_ns
        self.switchboard.give(self, _in_time_of(self._clock_of_load, order))

    def joined(self, key: str) -> None:
        """It can be reached now."""
        self.key = key
        unsent, self._unsent = self._unsent, []
        for order in unsent:
            self.send(order)

    def clock_read(self, clock: ClockOffset, round_trip_ns: int) -> None:
        """Its clock was compared with ours."""
        self.clock, self.round_trip_ns = clock, round_trip_ns
        off_ns = abs(clock.offset_ns - self._clock_of_load.offset_ns) + clock.error_ns
        self.clock_error_ns = max(self.clock_error_ns, off_ns)

    def take(self, load: str, answer: GeneratorAnswer) -> None:
        """Keep an answer for `answers`; one to an earlier load is dropped."""
        if load == self.load:
            self._came.append(self._clock_of_load.told(answer))

    def answers(self) -> Iterator[GeneratorAnswer]:
        """The answers that have come, each of them once.

        Raises:
            GeneratorError: it says that it failed.
        """
        while self._came:
            answer = self._came.popleft()
            if isinstance(answer, GeneratorFailed):
                raise self.failure(f"failed: {answer.message}")
            yield answer


class JoinedWorker(Generator):
    """One that somebody has started elsewhere, and that has joined.

    Args:
        index: its number among those that have.
        switchboard: that it has joined.
        key: by which the switchboard knows it.
        greeting: what it is.
    """

    def __init__(self, index: int, switchboard: OrderLine, key: str, greeting: Greeting) -> None:
        super().__init__(index, switchboard, f"worker {index} on {greeting.host}")
        self.key, self.greeting = key, greeting
        self.gone = ""
        """Why it is not there any more; empty while it is."""

    @property
    def alive(self) -> bool:
        """Whether it is heard of."""
        return not self.gone

    def failure(self, what: str) -> GeneratorError:
        """An error that names it."""
        return GeneratorError(
            f"{self.name} (process {self.greeting.pid} there) {what}",
            next_step=f"the log of that worker on {self.greeting.host} may say more",
        )

    def kill(self) -> None:
        """Have it end the load; it stays joined."""
        self.switchboard.dismiss(self)


def gather(generators: Sequence[Generator], *, deadline_ns: int) -> None:
    """Wait until each is ready.

    Args:
        generators: those that were told to prepare.
        deadline_ns: CLOCK_MONOTONIC.

    Raises:
        GeneratorError: one died, failed, or had not answered by the deadline.
    """
    waiting = {one.index: one for one in generators}
    while waiting:
        listening = list(waiting.values())
        if time.monotonic_ns() >= deadline_ns:
            raise listening[0].failure("hangs: it does not answer")
        for index, _ in take_answers(listening, until_ns=deadline_ns):
            waiting.pop(index, None)


def take_answers(
    generators: Sequence[Generator], *, until_ns: int
) -> list[tuple[int, GeneratorAnswer]]:
    """What has come of these, by their index; waits until something has, or the time.

    Args:
        generators: those that are listened to, all of one switchboard.
        until_ns: CLOCK_MONOTONIC.

    Raises:
        GeneratorError: one died or failed.
    """
    while True:
        taken = [(one.index, answer) for one in generators for answer in one.answers()]
        remaining_ns = until_ns - time.monotonic_ns()
        if taken or remaining_ns <= 0:
            return taken
        generators[0].switchboard.receive(generators, timeout_s=remaining_ns / 1e9)


def _in_time_of(clock: ClockOffset, order: Order) -> Order:
    if isinstance(order, Measure):
        return replace(
            order, start_ns=clock.there(order.start_ns), end_ns=clock.there(order.end_ns)
        )
    if isinstance(order, StopLoad):
        return replace(order, end_ns=clock.there(order.end_ns))
    return order
