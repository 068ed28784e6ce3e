"""A resident Locust process: the harness starts it and gives it one trial after another.

Orders come as JSON lines on standard input, each is answered by one line on standard output
(`harness.load.wire`); whatever else is printed goes to standard error, which is the log. The
process ends when its input ends, and the kernel kills it when its parent dies.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import gevent
from gevent.event import AsyncResult, Event
from gevent.fileobject import FileObjectPosix
from gevent.queue import Queue
from locust.env import Environment
from locust.exception import StopUser

from harness.load.answers import AnswerCheck
from harness.load.payloads import draw_payloads, read_payloads
from harness.load.recorder import WindowRecorder
from harness.load.transports.contract import RequestFailure
from harness.load.wire import (
    Failed,
    Measure,
    Measured,
    Prepare,
    Ready,
    decode_order,
    encode_answer,
)
from harness.types import WireProtocol
from triton import Traffic, TritonGrpcUser, TritonHttpUser, TritonUser

USERS: dict[WireProtocol, type[TritonUser]] = {
    WireProtocol.HTTP: TritonHttpUser,
    WireProtocol.GRPC: TritonGrpcUser,
}
PR_SET_PDEATHSIG = 1
"""From <sys/prctl.h>."""

logger = logging.getLogger("harness.session")


class Trial:
    """One trial as this process lives it: users connect, run the window together, and leave.

    The users are those of `triton.py`; only their task is replaced, by one that stays in a tight
    loop for the whole trial. A task a request would cost as much again as the request itself.
    """

    def __init__(self, order: Prepare) -> None:
        self._order = order
        self._connected = 0
        self._all_connected = Event()
        self._begin = AsyncResult()
        """The window and its recorder, once the harness has named the instant."""
        self._problem = ""
        environment = Environment(user_classes=[self._user_class()], host=order.address)
        hook: Any = environment.events.user_error  # Locust's hooks are untyped
        hook.add_listener(self._note_problem)
        self._runner = environment.create_local_runner()

    def prepare(self) -> None:
        """Start the users; return when each has tried to connect."""
        self._runner.start(self._order.users, spawn_rate=self._order.users)
        self._all_connected.wait()
        self._raise_problem()

    def measure(self, window: Measure) -> Measured:
        """Run the window; return when every request in flight has ended.

        Every request has a timeout, so the drain ends; beyond that the harness keeps the clock.
        """
        recorder = WindowRecorder(window.window_start_ns, window.window_end_ns)
        self._begin.set((window, recorder))
        sleep_until(window.window_start_ns)
        cpu_s, clock_s = time.process_time(), time.monotonic()
        sleep_until(window.window_end_ns)
        cpu_cores = (time.process_time() - cpu_s) / (time.monotonic() - clock_s)
        self._runner.user_greenlets.join()
        self._raise_problem()
        return Measured(recorder.counts(), cpu_cores)

    def end(self) -> None:
        """Stop what still runs, in order, and drop Locust's greenlets of this trial."""
        self._runner.quit()

    def _user_class(self) -> type[TritonUser]:
        order = self._order
        base = USERS[order.protocol]
        payloads = draw_payloads(
            read_payloads(order.payloads), batch_size=order.client_batch_size, seed=order.seed
        )
        requests = base.encode(order.model, payloads, order.address)
        traffic = Traffic(
            order.model, requests, AnswerCheck(order.outputs), next_user=order.first_user
        )
        name = f"Measured{base.__name__}"
        user: type[TritonUser] = type(
            name, (base,), {"traffic": traffic, "timeout_s": order.request_timeout_s}
        )
        user.tasks = [self._drive]
        return user

    def _drive(self, user: TritonUser) -> None:
        """The task of every user: once, from the connection to the window's end."""
        if self._problem:
            raise StopUser
        self._connect(user)
        begin: tuple[Measure, WindowRecorder] = self._begin.get()
        window, recorder = begin
        sleep_until(window.start_ns)
        loop = user.loop
        loop.free_ns = time.monotonic_ns()
        while loop.free_ns < window.window_end_ns:
            recorder.add(loop.step())
        raise StopUser

    def _connect(self, user: TritonUser) -> None:
        try:
            user.transport.connect()
        except RequestFailure as failure:
            # Its first request tries again and is counted, so this is for the log only.
            logger.warning("a user cannot connect yet: %s", failure)
        self._connected += 1
        if self._connected == self._order.users:
            self._all_connected.set()

    def _note_problem(self, exception: Exception, **_: Any) -> None:
        """A user raised what no user should: the trial is worth nothing, say why."""
        self._problem = self._problem or "".join(traceback.format_exception(exception))
        self._all_connected.set()

    def _raise_problem(self) -> None:
        if self._problem:
            raise RuntimeError(f"a user failed:\n{self._problem}")


class Session:
    """Answers orders one by one."""

    def __init__(self) -> None:
        self._trial: Trial | None = None

    def answer(self, line: bytes) -> Ready | Measured | Failed:
        """Do what an order says; whatever goes wrong is the answer."""
        try:
            return self._obey(decode_order(line))
        except Exception as error:
            logger.exception("an order failed")
            self._end_trial()
            return Failed(f"{type(error).__name__}: {error}")

    def _obey(self, order: Prepare | Measure) -> Ready | Measured:
        if isinstance(order, Prepare):
            self._end_trial()
            self._trial = Trial(order)
            self._trial.prepare()
            return Ready()
        if self._trial is None:
            raise RuntimeError("nothing is prepared")
        measured = self._trial.measure(order)
        self._end_trial()
        return measured

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.end()
            self._trial = None


def sleep_until(instant_ns: int) -> None:
    """Let others run until CLOCK_MONOTONIC shows the instant."""
    while (remaining_ns := instant_ns - time.monotonic_ns()) > 0:
        gevent.sleep(remaining_ns / 1e9)


def read_orders(orders: Queue[bytes]) -> None:
    """Take orders in while the users run; leave at once when the harness has gone."""
    with FileObjectPosix(sys.stdin.fileno(), "rb") as lines:
        for line in lines:
            orders.put(line)
    os._exit(0)  # not sys.exit: grpcio's threads must not hold up the leaving


def reserve_standard_output() -> BinaryIO:
    """Keep standard output for answers: what anything else prints goes to the log."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the parent died before this process was up")


def stay_on(cpus: set[int]) -> None:
    """Run on these CPUs only: threads that are there already as well as those to come."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process that gives orders")
    parser.add_argument("--cpus", help="comma-separated CPUs to run on")
    options = parser.parse_args(arguments)
    answers = reserve_standard_output()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    die_with(options.parent)
    if options.cpus:
        stay_on({int(cpu) for cpu in options.cpus.split(",")})
    orders: Queue[bytes] = Queue()
    gevent.spawn(read_orders, orders)
    session = Session()
    while True:
        answers.write(encode_answer(session.answer(orders.get())))


if __name__ == "__main__":
    main()
