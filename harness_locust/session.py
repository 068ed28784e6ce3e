"""A resident Locust process: the harness starts it and gives it one trial after another.

Orders come as JSON lines on standard input, answers go as lines to standard output
(`harness.load.generators.messages`); whatever else is printed goes to standard error, which is the
log. The process ends when its input ends, and the kernel kills it when its parent dies.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import gevent
from gevent.fileobject import FileObjectPosix
from gevent.queue import Queue
from locust.env import Environment

from harness.load.generators.messages import (
    GeneratorAnswer,
    GeneratorFailed,
    Order,
    Prepare,
    Ready,
    StopLoad,
    decode_order,
    encode_answer,
)
from harness.system.parents import die_with
from harness_locust.load_part import LoadPart

logger = logging.getLogger("harness.session")


class Session:
    """Answers orders one by one; a load runs beside, so that it can be stopped."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._part: LoadPart | None = None

    def obey(self, line: bytes) -> None:
        """Do what an order says; whatever goes wrong is the answer."""
        try:
            self._obey(decode_order(line))
        except Exception as error:
            logger.error("an order failed", exc_info=error)
            self._say(GeneratorFailed(f"{type(error).__name__}: {error}"))

    def _obey(self, order: Order) -> None:
        if isinstance(order, Prepare):
            self._end_part()
            self._part = LoadPart(Environment(), order, self._say)
            self._part.prepare()
            self._say(Ready())
        elif self._part is None:
            raise RuntimeError("nothing is prepared")
        elif isinstance(order, StopLoad):
            self._part.stop(order)
        else:
            self._part.begin(order)

    def _say(self, answer: GeneratorAnswer) -> None:
        line = encode_answer(answer)
        while line:  # a pipe takes what it has room for
            line = line[self._answers.write(line) or 0 :]
        if isinstance(answer, GeneratorFailed):
            self._end_part()

    def _end_part(self) -> None:
        if self._part is not None:
            self._part.end()
            self._part = None


def read_orders(orders: Queue[bytes]) -> None:
    """Take orders in while the users run; leave at once when the harness has gone."""
    with FileObjectPosix(sys.stdin.fileno(), "rb") as lines:
        for line in lines:
            orders.put(line)
    os._exit(0)  # not sys.exit: grpcio's threads must not hold up the leaving


def reserve_standard_output() -> BinaryIO:
    """Keep standard output for answers: what anything else prints goes to the log.

    Cooperative, because a parent that is slow to read must not stop the users.
    """
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answers: BinaryIO = FileObjectPosix(own, "wb", buffering=0)
    return answers


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
    session = Session(answers)
    while True:
        session.obey(orders.get())


if __name__ == "__main__":
    main()
