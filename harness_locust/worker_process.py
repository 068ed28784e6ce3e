"""A load generator: it joins a master, does what that orders, and looks for one again afterwards.

The harness starts it on its own machine; `harness worker` is the same on another.
"""

from __future__ import annotations

import harness_locust.patched  # noqa: F401  (before Locust)

# isort: split
import argparse
import logging
import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import gevent
from locust import User
from locust.env import Environment
from locust.rpc import rpc
from locust.runners import WorkerRunner

from harness.errors import EXIT_INTERRUPTED, EXIT_OK, HarnessError, UsageError
from harness.load.generators.master_endpoint import (
    MasterEndpoint,
    join_token,
    parse_allowed,
    parse_endpoint,
)
from harness.system.parents import die_with
from harness_locust.guarded_sockets import GuardedClient
from harness_locust.hub_worker import HubWorker, WorkerSettings, spare_the_users
from harness_locust.resident import log_to_standard_error, stay_on
from harness_locust.triton_users import TritonGrpcUser, TritonHttpUser, TritonOpenLoopUser

KNOCK_S = 3.0
"""How long one address is tried before the next, or again."""
LOOK_EVERY_S = 1.0
"""Between two rounds over all addresses."""
ACKNOWLEDGED_WITHIN_S = 10.0
LOST_AFTER_S = 20.0
"""Without a word of its master, a worker looks for one again."""

logger = logging.getLogger("harness")


class WorkerProcess:
    """One worker over its life: master after master.

    Args:
        endpoints: of masters; the first that answers is joined. While one of the others has nothing
            to do for this worker, it looks for those before.
        token: by which it joins.
        settings: of the worker.
    """

    def __init__(
        self, endpoints: Sequence[MasterEndpoint], token: bytes, settings: WorkerSettings
    ) -> None:
        self._endpoints, self._token, self._settings = endpoints, token, settings
        self._found: tuple[GuardedClient, MasterEndpoint] | None = None
        """A master that was named before the one that was served, and that is there now."""

    def serve_one(self) -> None:
        """Find a master, and serve it until it is gone, or a preferred one is there.

        Raises:
            UsageError: one is there and will not have this worker, or must not be joined.
        """
        client, endpoint = self._found or self._find()
        self._found = None
        runner = make_runner(client)
        if runner is not None:
            logger.info("joined the master at %s", endpoint)
            worker = HubWorker(runner, self._settings)
            try:
                self._serve(client, endpoint, runner, worker)
            finally:
                worker.leave()
                runner.quit()
                client.close(linger=100)
        if self._found is None:
            logger.info("the master at %s is gone", endpoint)

    def _serve(
        self,
        client: GuardedClient,
        endpoint: MasterEndpoint,
        runner: WorkerRunner,
        worker: HubWorker,
    ) -> None:
        """Return when the master has gone, or lets go, or one that was named before it is there."""
        preferred = self._endpoints[: self._endpoints.index(endpoint)]
        silent = False
        while runner.greenlet and not client.disconnected.wait(LOOK_EVERY_S):
            known_silent, silent = silent, _is_silent(client)
            if silent and known_silent:  # held up itself, it had not read what had come meanwhile
                return
            if preferred and worker.idle and self._prefers(preferred, worker):
                return

    def _prefers(self, preferred: Sequence[MasterEndpoint], worker: HubWorker) -> bool:
        """Whether one of these is there, and the present master has still nothing to do."""
        found = self._first_of(preferred)
        if found is not None and not worker.idle:
            found[0].close(linger=0)
            return False
        self._found = found
        return found is not None

    def _find(self) -> tuple[GuardedClient, MasterEndpoint]:
        logger.info("looking for a master at %s", ", ".join(map(str, self._endpoints)))
        while True:
            found = self._first_of(self._endpoints)
            if found is not None:
                return found
            gevent.sleep(LOOK_EVERY_S)

    def _first_of(
        self, endpoints: Sequence[MasterEndpoint]
    ) -> tuple[GuardedClient, MasterEndpoint] | None:
        """The first that has a master which lets this worker in."""
        for endpoint in endpoints:
            client = self._knock(endpoint, f"{socket.gethostname()}_{uuid4().hex}")
            if client is not None:
                return client, endpoint
        return None

    def _knock(self, endpoint: MasterEndpoint, identity: str) -> GuardedClient | None:
        where = endpoint.resolved()
        if where is None:
            return None
        client = GuardedClient(where.host, where.port, identity, token=self._token)
        if client.enter(KNOCK_S):
            return client
        client.close(linger=0)
        if client.refused:
            raise UsageError(f"the master at {endpoint} is not joined: {client.refused}")
        return None


def _is_silent(client: GuardedClient) -> bool:
    return time.monotonic_ns() - client.heard_ns > LOST_AFTER_S * 1e9


def make_runner(client: GuardedClient) -> WorkerRunner | None:
    """Locust's runner over a socket that has joined; None where the master is gone meanwhile."""
    module: Any = rpc
    module.Client = lambda *_: client
    try:
        with gevent.Timeout(ACKNOWLEDGED_WITHIN_S):
            users: list[type[User]] = [TritonHttpUser, TritonGrpcUser, TritonOpenLoopUser]
            return Environment(user_classes=users).create_worker_runner("", 0)
    except gevent.Timeout:
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve masters until it is told to end; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--join", action="append", required=True, help="where a master listens")
    parser.add_argument("--allow", action="append", default=[], help="an address to send load to")
    parser.add_argument("--once", action="store_true", help="leave with the first master")
    parser.add_argument("--parent", type=int, help="process that it must not outlive")
    parser.add_argument("--label", default="", help="what whoever starts it calls it")
    parser.add_argument("--cpus", help="comma-separated CPUs to run on")
    options = parser.parse_args(arguments)
    log_to_standard_error()
    if options.parent is not None:
        die_with(options.parent)
    else:  # nobody's child: it says that it leaves
        for one in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(one, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    if options.cpus:
        stay_on(options.cpus)
    spare_the_users()
    try:
        endpoints = [parse_endpoint(one, "--join") for one in options.join]
        settings = WorkerSettings(
            allow=tuple(map(parse_allowed, options.allow)),
            local=options.parent is not None,
            label=options.label,
        )
        process = WorkerProcess(endpoints, join_token(endpoints), settings)
        process.serve_one()
        while not options.once:
            process.serve_one()
    except HarnessError as error:
        logger.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_OK


if __name__ == "__main__":
    # Not sys.exit: threads of grpcio must not hold up the leaving.
    code = main()
    logging.shutdown()
    os._exit(code)
