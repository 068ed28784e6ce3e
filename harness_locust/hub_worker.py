"""A worker's side of a load: it greets its master, shows its clock, and does what it is ordered.

`hub.py` is the other side, and names the messages.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from gevent.queue import Queue
from locust import argument_parser, runners
from locust.exception import RPCError
from locust.runners import WorkerRunner

from harness import __version__
from harness.errors import HarnessError, UsageError
from harness.load.generators.clocks import this_machine
from harness.load.generators.messages import (
    ANSWERS,
    ORDERS,
    GeneratorAnswer,
    GeneratorFailed,
    LoadEnded,
    Measure,
    Prepare,
    Ready,
    StopLoad,
)
from harness.load.generators.notices import (
    GREETINGS,
    Greeting,
    SentFile,
    sent_file,
    with_paths,
)
from harness.load.transports.address import Target
from harness.system.storage import cache_root
from harness_locust.load_part import LoadPart
from harness_locust.pieces import PATIENCE_S, FileExchange
from harness_locust.triton_users import TritonUser

MASTER_SILENT_S = 4.0
"""A worker that hears nothing of its master for so long while it sends stops: nobody can stop it. A
master that is killed is noticed at once, by its connection."""
BEATS_MISSED = 3
"""It is that many of the master's words later where there are so many workers that these are far
apart (`hub.py`)."""
STATISTICS_EVERY_S = 1.0
USERS_WAIT_S = 60.0
"""Seconds that Locust's users wait for the load that they are to send."""
LOOK_EVERY_S = 0.1
MOST_LOOKS = 5
"""Of a process that is held up again and again: one that has too much to do always is."""
NEVER_S = 1e9
_NS = 1_000_000_000

logger = logging.getLogger("harness")


@dataclass(frozen=True)
class WorkerSettings:
    """What whoever starts a worker says of it."""

    allow: tuple[tuple[str, int | None], ...] = ()
    """Hosts, and their ports, that it may send load to; empty for all."""
    local: bool = False
    """It shares its master's files."""
    label: str = ""
    """What whoever started it calls it."""


class HubWorker:
    """Obeys the master that a runner has joined.

    Args:
        runner: over a `GuardedClient` that has joined.
        settings: of this worker.
    """

    def __init__(self, runner: WorkerRunner, settings: WorkerSettings) -> None:
        self._environment, self._runner, self._settings = runner.environment, runner, settings
        self._files = FileExchange(runner.send_message)
        self._part: LoadPart | None = None
        self._load = ""
        self._silent_s = MASTER_SILENT_S
        self._sends = False
        """Whether the load has begun, and not ended."""
        self._ended = False
        """Whether it has begun, and ended."""
        self._users_by_locust = False
        """Whether the load's users are Locust's, which its master counts."""
        self._scratch: Path | None = None
        """The records of the load, until the master has them."""
        self._offered_records: SentFile | None = None
        """The same, as the master knows them."""
        self._owed_until_s = 0.0
        self._orders: Queue[dict[str, Any]] = Queue()
        self._obeys = False
        """Whether an order is being carried out: files may have to come first."""
        for name, take in {
            "clock": self._on_clock,
            "order": self._orders.put,
            "dismiss": self._on_dismiss,
            "need": self._files.on_need,
            "piece": self._files.on_piece,
        }.items():
            runner.register_message(f"harness_{name}", partial(_pass_on, take))
        TritonUser.patience_s = USERS_WAIT_S
        events: Any = self._environment.events  # Locust's hooks are untyped
        events.test_stopping.add_listener(self._on_test_stopping)
        self._obeying = gevent.spawn(self._obey)
        self._watching = gevent.spawn(self._watch)
        greeting = {"greeting": GREETINGS.dump_json(self._greeting())}
        self._runner.send_message("harness_greeting", greeting)

    @property
    def idle(self) -> bool:
        """Whether it has no part in a load, nor an order for one, and owes no records of one."""
        if self._obeys or not self._orders.empty():
            return False
        return self._part is None or (self._ended and not self._owes_records())

    def _owes_records(self) -> bool:
        """Whether the master may still ask for more of the records that it was offered."""
        if self._scratch is None or time.monotonic() > self._owed_until_s:
            return False
        whole = self._offered_records
        return whole is None or self._files.sent_bytes(whole.sha256) < whole.size

    def leave(self) -> None:
        """End what it does, tell the master if there is one, and let go."""
        self._obeying.kill()
        self._watching.kill()
        self._end_part()
        with suppress(Exception):
            self._runner.send_message("harness_bye", {})

    def _greeting(self) -> Greeting:
        return Greeting(
            host=socket.gethostname(),
            pid=os.getpid(),
            cores=len(os.sched_getaffinity(0)),
            release=__version__,
            machine=this_machine(),
            label=self._settings.label,
        )

    def _on_clock(self, data: dict[str, Any]) -> None:
        self._silent_s = max(MASTER_SILENT_S, BEATS_MISSED * float(data["again_s"]))
        shown = {"asked_ns": data["asked_ns"], "shown_ns": time.monotonic_ns()}
        self._runner.send_message("harness_clock", shown)

    def _on_dismiss(self, data: dict[str, Any]) -> None:
        load = data["load"]
        waiting = [self._orders.get_nowait() for _ in range(self._orders.qsize())]
        for one in waiting:
            if one["load"] != load:
                self._orders.put(one)
        if load != self._load:
            return
        self._obeying.kill()
        self._end_part()
        self._obeying = gevent.spawn(self._obey)

    def _on_test_stopping(self, **_: Any) -> None:
        """Locust stops the users; the master has asked for it before, unless it is gone."""
        if self._part is not None and self._users_by_locust:
            self._part.stop(StopLoad(0))
            self._part.join()

    def _obey(self) -> None:
        """Do one order after the other; whatever goes wrong is the answer."""
        while True:
            data = self._orders.get()
            load = str(data["load"])
            self._obeys = True
            try:
                self._do(load, data)
            except Exception as error:
                logger.error("an order failed", exc_info=error)
                self._say(load, _failed(error))
                self._end_part()
            finally:
                self._obeys = False

    def _do(self, load: str, data: dict[str, Any]) -> None:
        order = ORDERS.validate_json(data["order"])
        if isinstance(order, Prepare):
            self._load = load  # what ends it from now on ends this one
            self._end_part()
            self._check_allowed(order.target)
            if not self._settings.local:
                order = self._with_own_files(order, data["files"])
            self._users_by_locust = order.users_by_locust
            self._part = LoadPart(self._environment, order, partial(self._deliver, load))
            self._part.prepare()
            self._say(load, Ready())
            return
        if self._part is None or load != self._load:
            raise RuntimeError("nothing is prepared")
        if isinstance(order, Measure):
            self._sends, self._ended = True, False
            self._part.begin(order)
        elif isinstance(order, StopLoad):
            begun = self._sends or self._ended
            self._part.stop(order)
            if not begun:
                self._deliver(load, LoadEnded(load))

    def _check_allowed(self, target: Target) -> None:
        allowed = self._settings.allow
        if allowed and not any(
            target.host.lower() == host.lower() and port in {None, target.port}
            for host, port in allowed
        ):
            raise UsageError(f"this worker may not send load to {target.authority} (--allow)")

    def _with_own_files(self, order: Prepare, named: Sequence[dict[str, Any]]) -> Prepare:
        """The order with files of this machine; what lacks is asked for."""
        sent = [SentFile(Path(one["path"]), one["sha256"], one["size"]) for one in named]
        own = {one.path: self._own(one) for one in sent}
        order = with_paths(order, own.__getitem__)
        if order.records is None:
            return order
        self._scratch = Path(tempfile.mkdtemp(prefix="harness-worker-")) / order.records.name
        return replace(order, records=self._scratch)

    def _own(self, file: SentFile) -> Path:
        if len(file.sha256) != 64 or not file.sha256.isalnum():  # noqa: PLR2004  (hex of SHA-256)
            raise ValueError("no digest")
        # The suffix says how it is read.
        path = cache_root() / "worker" / f"{file.sha256}{file.path.suffix}"
        if not path.is_file() or sent_file(path).sha256 != file.sha256:
            self._files.fetch(file, path)
        return path

    def _deliver(self, load: str, answer: GeneratorAnswer) -> None:
        over = isinstance(answer, LoadEnded | GeneratorFailed)
        if over:
            self._sends, self._ended = False, True
            self._owed_until_s = time.monotonic() + PATIENCE_S
            if self._users_by_locust:
                self._send_statistics()
        self._say(load, answer)
        if isinstance(answer, LoadEnded) and self._scratch is not None:
            self._offer_records(load, self._scratch)
        if over and self._users_by_locust:
            gevent.spawn(self._let_go, self._part)

    def _let_go(self, part: LoadPart | None) -> None:
        """Locust's users come and go as it likes: a load that is over has none of them."""
        if part is not None:
            part.join()
            part.end()

    def _send_statistics(self) -> None:
        """Locust's own, for its master's tables."""
        runner: Any = self._runner
        with suppress(RPCError):
            runner._send_stats()

    def _offer_records(self, load: str, path: Path) -> None:
        whole = sent_file(path) if path.is_file() else SentFile(path, "", 0)
        if whole.size:
            self._files.offer(whole.sha256, path)
        self._offered_records = whole
        said = {"load": load, "sha256": whole.sha256, "size": whole.size}
        self._runner.send_message("harness_records", said)

    def _say(self, load: str, answer: GeneratorAnswer) -> None:
        data = {"load": load, "answer": ANSWERS.dump_json(answer)}
        self._runner.send_message("harness_answer", data)

    def _end_part(self) -> None:
        # All of it is let go first: while it ends, the next load may be prepared.
        self._sends = self._ended = False
        part, self._part = self._part, None
        scratch, self._scratch = self._scratch, None
        self._offered_records = None
        try:
            if part is not None:
                part.end()
        finally:
            if scratch is not None:
                scratch.unlink(missing_ok=True)
                with suppress(OSError):
                    scratch.parent.rmdir()

    def _watch(self) -> None:
        """Stop a load that nobody can stop any more."""
        for look in count(1):
            gevent.sleep(LOOK_EVERY_S)
            if self._users_by_locust and look % round(STATISTICS_EVERY_S / LOOK_EVERY_S) == 0:
                self._send_statistics()
            if not self._sends or self._settings.local or not self._master_is_silent():
                continue
            self._catch_up()
            if self._sends and self._master_is_silent():
                logger.error("the master is not heard any more: the load is stopped")
                load = self._load
                self._end_part()
                problem = f"it did not hear its master for {self._silent_s:.1f} s and stopped"
                with suppress(Exception):
                    self._say(load, GeneratorFailed(problem))

    def _catch_up(self) -> None:
        """Read what has come while this process was held up, if it was."""
        for _ in range(MOST_LOOKS):
            began_s = time.monotonic()
            gevent.sleep(2 * LOOK_EVERY_S)
            if time.monotonic() - began_s < 3 * LOOK_EVERY_S:
                return

    def _master_is_silent(self) -> bool:
        client: Any = self._runner.client  # a GuardedClient
        if not client.connected:
            return True
        return bool(time.monotonic_ns() - client.heard_ns > self._silent_s * _NS)


def _failed(error: Exception) -> GeneratorFailed:
    if isinstance(error, HarnessError):
        return GeneratorFailed(str(error), error.next_step, error.exit_code)
    return GeneratorFailed(f"{type(error).__name__}: {error}")


def _pass_on(take: Any, msg: Any, **_: Any) -> None:
    """Locust's way to call listeners."""
    take(msg.data)


def spare_the_users() -> None:
    """Have Locust spare the users of this process what it does often and slowly.

    For each of its hundred options a worker makes Locust's whole parser again, whenever it is told
    of users: half a second in which no user runs. Its statistics go to the master every three
    seconds, wanted or not; here they are sent when there is a load of Locust's.
    """
    module: Any = argument_parser
    module.default_args_dict = cache(module.default_args_dict)
    module = runners
    module.WORKER_REPORT_INTERVAL = NEVER_S
