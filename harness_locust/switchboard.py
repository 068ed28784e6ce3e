"""The process between the harness, which never imports Locust, and the workers of its loads.

Commands come as lines on standard input, what is known of the workers goes as lines to standard
output (`harness.load.generators.notices`); whatever else is printed goes to standard error, the
log. The process ends when its input ends, and the kernel kills it when its parent dies.
"""

from __future__ import annotations

import harness_locust.patched  # noqa: F401  (before Locust)

# isort: split
import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

import gevent
from gevent.fileobject import FileObjectPosix
from gevent.queue import Queue
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message
from locust.runners import MasterRunner

from harness.load.generators.clocks import ClockOffset
from harness.load.generators.master_endpoint import MasterEndpoint, join_token, parse_endpoint
from harness.load.generators.notices import (
    Back,
    ClockKnown,
    Dismiss,
    Gone,
    Joined,
    Listening,
    RecordsKept,
    Told,
    decode_command,
    encode_notice,
    relay_answer,
)
from harness.system.parents import die_with
from harness_locust.guarded_sockets import guard_sockets
from harness_locust.hub import HubMember, LoadHub
from harness_locust.resident import log_to_standard_error, reserve_standard_output, stay_on

CLOCK_NEWS_NS = 100_000
"""The harness is told anew of a clock that reads so much otherwise."""

logger = logging.getLogger("harness")


class HubRunner(MasterRunner):
    """Locust's master, which survives a message that it cannot understand."""

    def handle_message(self, client_id: str, msg: Message) -> None:
        """Take in a message of a worker."""
        try:
            super().handle_message(client_id, msg)
        except Exception as error:  # noqa: BLE001  (whatever a worker sends must not end the others)
            server: Any = self.server
            server.tell(f"a message of {client_id} is not understood: {error!r}")


class SwitchboardServer:
    """Passes commands on to the hub, and what the hub knows to the harness.

    Args:
        answers: where lines go.
        endpoint: where workers find it.
        token: by which they join.
    """

    def __init__(self, answers: BinaryIO, endpoint: MasterEndpoint, token: bytes) -> None:
        self._lines: Queue[bytes] = Queue()
        self._clocks: dict[str, ClockOffset] = {}
        guard_sockets(token)
        runner = Environment()._create_runner(HubRunner, endpoint.host, endpoint.port)
        server: Any = runner.server  # a GuardedServer
        server.tell = self._tell
        self._hub = LoadHub(runner, self)
        gevent.spawn(_write, answers, self._lines)
        self._say(Listening(os.getpid()))

    def obey(self, line: bytes) -> None:
        """Do what a command of the harness says."""
        command = decode_command(line)
        if isinstance(command, Dismiss):
            self._hub.dismiss(command.worker, command.load)
            return
        order = json.dumps(command.order).encode()
        self._hub.give(command.worker, command.load, order, command.files, command.records)

    def joined(self, worker: HubMember) -> None:
        """A worker has come, and its clock is known."""
        self._say(Joined(worker.key, worker.greeting))

    def gone(self, worker: HubMember, why: str) -> None:
        """It is not heard of any more."""
        self._say(Gone(worker.key, why))

    def back(self, worker: HubMember) -> None:
        """It is heard again."""
        self._say(Back(worker.key))

    def clock_known(self, worker: HubMember) -> None:
        """Its clock was asked again: the harness is told what is new."""
        now = worker.clock.at(time.monotonic_ns())
        known = self._clocks.get(worker.key)
        if (
            known is None
            or abs(now.offset_ns - known.offset_ns) > CLOCK_NEWS_NS
            or abs(now.error_ns - known.error_ns) > CLOCK_NEWS_NS
        ):
            self._clocks[worker.key] = now
            self._say(
                ClockKnown(worker.key, now.offset_ns, now.error_ns, worker.clock.round_trip_ns)
            )

    def answered(self, worker: HubMember, load: str, answer: bytes) -> None:
        """An answer as it came."""
        self._lines.put(relay_answer(worker.key, load, answer))

    def records_kept(self, worker: HubMember, load: str, problem: str) -> None:
        """Its records of a load are where they should be, or why not."""
        self._say(RecordsKept(worker.key, load, problem))

    def _tell(self, line: str) -> None:
        logger.warning("%s", line)
        self._say(Told(line))

    def _say(
        self, notice: Back | ClockKnown | Gone | Joined | Listening | RecordsKept | Told
    ) -> None:
        self._lines.put(encode_notice(notice))


def _write(answers: BinaryIO, lines: Queue[bytes]) -> None:
    while True:
        line = lines.get()
        while line:  # a pipe takes what it has room for
            line = line[answers.write(line) or 0 :]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process that gives commands")
    parser.add_argument("--listen", required=True, help="where workers find it")
    parser.add_argument("--cpus", help="comma-separated CPUs to run on")
    options = parser.parse_args(arguments)
    answers = reserve_standard_output()
    log_to_standard_error()
    die_with(options.parent)
    if options.cpus:
        stay_on(options.cpus)
    endpoint = parse_endpoint(options.listen, "--listen")
    try:
        switchboard = SwitchboardServer(answers, endpoint, join_token([endpoint]))
    except RPCError as error:
        sys.exit(f"cannot listen at {endpoint}: {error}")
    with FileObjectPosix(sys.stdin.fileno(), "rb") as lines:
        for line in lines:
            switchboard.obey(line)
    os._exit(0)


if __name__ == "__main__":
    main()
