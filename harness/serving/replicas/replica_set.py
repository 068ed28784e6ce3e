"""A number of replicas that is changed while they serve: each has a thread that brings it up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from harness.errors import HarnessError


class Frontend(Protocol):
    """What replicas are announced to: a balancer."""

    def add(self, address: str) -> None:
        """A replica serves at an address."""

    def remove(self, address: str) -> None:
        """A replica gets no more requests; returns when it has none left."""


@dataclass(frozen=True)
class RunningReplica:
    """A replica that is up and serves."""

    address: str
    """Host and port of its HTTP side."""
    metrics: str
    """Address of its page of metrics."""
    check: Callable[[], None]
    """Raises an error where the replica has died."""


ReplicaLaunch = Callable[[int], AbstractContextManager[RunningReplica]]
"""Brings up the replica of a number, as a context manager that ends it."""


@dataclass(eq=False)
class _Member:
    retired: threading.Event = field(default_factory=threading.Event)
    ordered_s: float = field(default_factory=time.monotonic)
    ready_s: float | None = None
    running: RunningReplica | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None


class ReplicaSet:
    """Starts and ends replicas; a context manager that leaves none behind.

    Args:
        launch: brings up the replica of a number, as a context manager that ends it.
        frontend: is told of those that serve.
    """

    def __init__(self, launch: ReplicaLaunch, frontend: Frontend) -> None:
        self._launch, self._frontend = launch, frontend
        self._members: list[_Member] = []
        self._all: list[_Member] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every replica and wait until it is gone."""
        self.resize(0)
        for member in self._all:
            if member.thread is not None:
                member.thread.join()

    @property
    def ordered(self) -> int:
        """Replicas, serving or still coming up."""
        return len(self._members)

    @property
    def running(self) -> list[RunningReplica]:
        """The replicas that serve now."""
        return [one.running for one in self._members if one.running is not None]

    @property
    def start_times_s(self) -> list[float]:
        """Seconds from order to service, of every replica that ever served."""
        return [one.ready_s - one.ordered_s for one in self._all if one.ready_s is not None]

    def resize(self, number: int) -> None:
        """Order more replicas, or retire some: those that still come up first, the newest first."""
        while len(self._members) < number:
            member = _Member()
            member.thread = threading.Thread(
                target=self._keep, args=(member, len(self._all)), name="replica", daemon=True
            )
            self._members.append(member)
            self._all.append(member)
            member.thread.start()
        while len(self._members) > number:
            coming = [one for one in self._members if one.running is None]
            member = (coming or self._members)[-1]
            self._members.remove(member)
            member.retired.set()

    def check(self) -> None:
        """Raise what a replica ended with: one that did not come up, or died before it was retired.

        A dead replica refuses requests at once, so a balancer takes it for the least busy one and
        sends it nearly all of them: what is measured then says nothing.
        """
        for member in list(self._all):
            if member.error is not None:
                raise member.error
            if member.running is None or member.retired.is_set():
                continue
            try:
                member.running.check()
            except HarnessError:
                # Between the two lines before it may have been retired, and ended in order.
                if not member.retired.is_set():
                    raise

    def wait_for(self, number: int, poll_s: float = 0.05) -> None:
        """Return when so many serve; raises what one of them ended with."""
        while len(self.running) < number:
            self.check()
            time.sleep(poll_s)

    def _keep(self, member: _Member, number: int) -> None:
        """A replica's life: up, announced, kept until it is retired, drained, down."""
        try:
            with self._launch(number) as running:
                if member.retired.is_set():
                    return
                self._frontend.add(running.address)
                member.running, member.ready_s = running, time.monotonic()
                member.retired.wait()
                try:
                    running.check()  # it may have died since anybody asked
                finally:
                    self._frontend.remove(running.address)
        except BaseException as error:  # noqa: BLE001  (raised by `check`, in the caller's thread)
            member.error = error
