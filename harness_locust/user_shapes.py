"""Load test shapes: how many users Locust keeps at any time of a test.

Locust takes any shape class it finds in a locustfile as the one to use, always. These are made
when they are asked for, and handed to the environment.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import ClassVar

import gevent
from locust import LoadTestShape
from locust.runners import MasterRunner, Runner

from harness.load.schedule.shapes import level
from harness_locust.plan import Plan
from harness_locust.results import SETTLING

SETTLE_SHARE = 0.2
"""Share of a sweep's step that is left out of its result: the queue of the step before has to
go."""
SHORTEST_SETTLE_S = 1.0
"""Locust looks at a shape once per second, and workers hear of a change a little later."""
ALL_AT_ONCE = 100.0
"""Users started per second: Locust warns above."""

BeginPhase = Callable[[str, float], float]
"""Name, and in how many seconds; gives in how many it does, at a slice's edge."""
Tick = tuple[int, float] | None


class PlannedShape(LoadTestShape):
    """Ends when the plan does, which Locust leaves to the shape.

    Args:
        runner: Locust's, which asks the shape.
        plan: the test.
        users_at: how many users at a time of it, in seconds, and how many to start per second.
    """

    use_common_options: ClassVar[bool] = True

    def __init__(
        self, runner: Runner | None, plan: Plan, users_at: Callable[[float], Tick]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Locust's
        self.runner = runner
        self._plan, self._users_at = plan, users_at

    def tick(self) -> Tick:
        """Users, and how many to start a second; None ends the test."""
        run_s: float = self.get_run_time()  # type: ignore[no-untyped-call]  # Locust's
        end_s = self._plan.end_s
        return None if end_s is not None and run_s >= end_s else self._users_at(run_s)


class UserSweep(PlannedShape):
    """One user count after another; each has its own result, without the time it settles in."""

    def __init__(self, runner: Runner | None, plan: Plan, begin_phase: BeginPhase) -> None:
        super().__init__(runner, plan, self._users_of_step)
        self._begin_phase = begin_phase
        self._step = -1

    def reset_time(self) -> None:
        """Begin with the first step again."""
        super().reset_time()  # type: ignore[no-untyped-call]  # Locust's
        self._step = -1

    def _users_of_step(self, run_s: float) -> Tick:
        """None when the last has ended."""
        step = int(run_s // self._plan.step_time_s)
        if step >= len(self._plan.sweep):
            return None
        users = self._plan.sweep[step]
        if step != self._step:
            self._step = step
            # The step before is measured until then, so its users stay until then.
            gevent.sleep(self._begin_phase(SETTLING, 0.0))
            settle_s = max(SHORTEST_SETTLE_S, SETTLE_SHARE * self._plan.step_time_s)
            self._begin_phase(step_name(users), settle_s)
        return users, max(ALL_AT_ONCE, users)


_STEP = " in flight"


def step_name(users: int) -> str:
    """Name of a sweep's phase."""
    return f"{users}{_STEP}"


def users_of_step(name: str) -> int | None:
    """The number of users in a phase's name; None where it is not a step of a sweep."""
    return int(name.removesuffix(_STEP)) if name.endswith(_STEP) else None


def shape_of(
    runner: Runner | None, options: Namespace, plan: Plan, begin_phase: BeginPhase
) -> PlannedShape | None:
    """The shape that a plan needs; None where Locust's own user count and spawn rate do.

    On the web page these do, because a test with a shape cannot be edited there.
    """
    if plan.sweep:
        return UserSweep(runner, plan, begin_phase)

    def users_at(run_s: float) -> Tick:
        if plan.is_open_loop:  # one dispatcher in each process, whatever the user count says
            workers = runner.worker_count if isinstance(runner, MasterRunner) else 1
            return workers, max(ALL_AT_ONCE, workers)
        users = options.num_users or 1  # as it is then: a form may have changed it
        if plan.users_shape is not None:
            return max(1, round(users * level(plan.users_shape, run_s))), ALL_AT_ONCE
        # As Locust does by itself, but that the run time starts when the workers are ready.
        return users, options.spawn_rate or 1.0

    timed = options.headless and plan.run_time_s is not None
    shaped = plan.is_open_loop or plan.users_shape is not None or timed
    return PlannedShape(runner, plan, users_at) if shaped else None
