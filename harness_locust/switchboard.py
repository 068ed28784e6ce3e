"""The process between the harness, which never imports Locust, and the workers of its loads.

Commands come as lines on standard input, what is known of the workers goes as lines to standard
output (`harness.load.generators.notices`); whatever else is printed goes to standard error, the
log. The process ends when its input ends, and the kernel kills it when its parent dies.
"""

from __future__ import annotations

import harness_locust.patched  # noqa: F401  (before Locust)

# isort: split
import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

import gevent
from gevent.fileobject import FileObjectPosix
from gevent.queue import Queue
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message
from locust.runners import MasterRunner

from harness.load.generators.master_endpoint import MasterEndpoint, join_token, parse_endpoint
from harness.load.generators.notices import (
    COMMANDS,
    Dismiss,
    Known,
    Told,
    encode_notice,
    relay_answer,
)
from harness.system.parents import die_with
from harness_locust.guarded_sockets import guard_sockets
from harness_locust.hub import LoadHub
from harness_locust.resident import log_to_standard_error, reserve_standard_output, stay_on

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
        guard_sockets(token)
        runner = Environment()._create_runner(HubRunner, endpoint.host, endpoint.port)
        server: Any = runner.server  # a GuardedServer
        server.tell = self._tell
        self._hub = LoadHub(runner, self)
        gevent.spawn(_write, answers, self._lines)

    def obey(self, line: bytes) -> None:
        """Do what a command of the harness says."""
        command = COMMANDS.validate_json(line)
        if isinstance(command, Dismiss):
            self._hub.dismiss(command.worker, command.load)
        else:
            self._hub.give(command.worker, command.load, command.order, command.files)

    def told(self, notice: Known) -> None:
        """What the hub knows goes to the harness."""
        self._lines.put(encode_notice(notice))

    def answered(self, worker: str, load: str, answer: bytes) -> None:
        """An answer goes there unread."""
        self._lines.put(relay_answer(worker, load, answer))

    def _tell(self, line: str) -> None:
        logger.warning("%s", line)
        self.told(Told(line))


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
