"""The master's side of a load: which workers there are, how their clocks go, what they are told.

Over a `MasterRunner` of Locust, behind `guarded_sockets`: whoever is heard here has proven to know
the token. Beside Locust's own messages there are these:

- `harness_greeting`, from a worker: what it is.
- `harness_clock`, to a worker and back: what its clock shows. It comes often enough to tell either
  side that the other is there.
- `harness_order`, to a worker: an order of a load; `harness_dismiss`: to leave it at once.
- `harness_answer`, from a worker: an answer to an order.
- `harness_records`, from a worker: the records of a load, which are elsewhere, are whole.
- `harness_need`, `harness_piece`: `pieces.py`.
- `harness_bye`, from a worker: it leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gevent
from locust.rpc import Message
from locust.runners import MasterRunner

from harness.errors import HarnessError
from harness.load.generators.clocks import ClockEstimate, ClockOffset, Exchange, this_machine
from harness.load.generators.messages import ORDERS, Order, Prepare
from harness.load.generators.notices import (
    GREETINGS,
    Back,
    ClockKnown,
    Gone,
    Joined,
    Known,
    RecordsKept,
    SentFile,
)
from harness_locust.pieces import FileExchange

BEAT_S = 0.5
"""Seconds between two words to each worker: one that does not hear its master for some of these
stops."""
WORKERS_PER_BEAT = 250
"""With more workers than that, beats are as much further apart."""
GONE_AFTER_S = 4.0
"""Seconds without any word from a worker, after which it counts as gone."""
FORGOTTEN_AFTER_S = 300.0
FAREWELL_S = 0.1
"""For what a worker sent before its connection ended."""
FIRST_QUESTIONS = 8
"""Questions to a worker's clock, one after the other, before it counts as joined: the fastest
answer tells most."""
FIRST_QUESTIONS_WITHIN_S = 3.0
LATE_ANSWER_EVERY_S = 0.05
"""Between two looks whether one that did not answer in that time has answered at last."""
CLOCK_NEWS_NS = 100_000
"""The listener is told anew of a clock whose offset changed by so much."""
_NS = 1_000_000_000


@dataclass
class HubMember:
    """One that has joined."""

    key: str
    """Its identity, by which messages are addressed."""
    clock: ClockEstimate
    files: FileExchange
    heard_ns: int
    gone: bool = False
    ready: bool = False
    """Whether the worker's clock is known, and the listener was told of the worker."""
    told_clock: ClockOffset | None = None
    """Clock offset last passed to the listener; None before the first."""
    records: dict[str, Path] = field(default_factory=dict)
    """Where the records of its loads are kept here."""


class HubListener(Protocol):
    """Whoever uses the hub; none of it may take long."""

    def told(self, notice: Known) -> None:
        """What is new of a worker that has joined."""

    def answered(self, worker: str, load: str, answer: bytes) -> None:
        """A worker's answer as it came; nobody has read it yet."""


class LoadHub:
    """Knows the workers of a master, and speaks with them.

    Args:
        runner: of Locust, behind a `GuardedServer`.
        listener: is told of everything.
    """

    def __init__(self, runner: MasterRunner, listener: HubListener) -> None:
        self._runner, self._listener = runner, listener
        self.workers: dict[str, HubMember] = {}
        """Those that have joined and were not forgotten, by their identity."""
        runner.register_message("harness_greeting", self._on_greeting)
        runner.register_message("harness_bye", self._on_bye)
        takers: dict[str, Callable[[HubMember, dict[str, Any]], None]] = {
            "clock": self._on_clock,
            "answer": self._on_answer,
            "records": self._on_records,
            "need": lambda worker, asked: worker.files.on_need(asked),
            "piece": lambda worker, came: worker.files.on_piece(came),
        }
        for name, take in takers.items():
            runner.register_message(f"harness_{name}", partial(self._hear, take))
        server: Any = runner.server  # a GuardedServer
        server.on_end = self._on_end
        gevent.spawn(self._beat)

    def give(self, key: str, load: str, order: Order, files: Sequence[SentFile] = ()) -> None:
        """Give a worker an order; one that is gone does not get it, and the listener knows.

        Args:
            key: the worker.
            load: what the order is about.
            order: its records, where it asks for some, are kept here where it says, after the load.
            files: what the worker may ask for, in place of the paths in the order.
        """
        worker = self.workers.get(key)
        if worker is None:
            return
        for one in files:
            worker.files.offer(one.sha256, one.path)
        if isinstance(order, Prepare) and order.records is not None:
            worker.records = {load: order.records}
        named = [{"path": str(one.path), "sha256": one.sha256, "size": one.size} for one in files]
        data = {"load": load, "order": ORDERS.dump_json(order), "files": named}
        self._send(key, "harness_order", data)

    def dismiss(self, key: str, load: str) -> None:
        """Have a worker end a load at once."""
        self._send(key, "harness_dismiss", {"load": load})

    def _send(self, key: str, kind: str, data: dict[str, Any]) -> None:
        self._runner.send_message(kind, data, key)

    def _on_greeting(self, msg: Any, **_: Any) -> None:
        key, greeting = msg.node_id, GREETINGS.validate_json(msg.data["greeting"])
        if key in self.workers:
            return
        same = bool(greeting.machine) and greeting.machine == this_machine()
        self.workers[key] = worker = HubMember(
            key,
            ClockEstimate(same_machine=same),
            FileExchange(lambda kind, data: self._send(key, kind, data)),
            time.monotonic_ns(),
        )
        gevent.spawn(self._meet, worker, Joined(key, greeting))

    def _meet(self, worker: HubMember, joined: Joined) -> None:
        """Ask a clock until it is known well; then its worker may take part."""
        deadline_s = time.monotonic() + FIRST_QUESTIONS_WITHIN_S
        while worker.clock.questions < FIRST_QUESTIONS and time.monotonic() < deadline_s:
            known = worker.clock.questions
            self._ask(worker)
            while worker.clock.questions == known and time.monotonic() < deadline_s:
                gevent.sleep(0.001)
        while worker.gone or not worker.clock.questions:  # asked at every beat, as long as it is
            if self.workers.get(worker.key) is not worker:
                return
            gevent.sleep(LATE_ANSWER_EVERY_S)
        worker.ready = True
        self._listener.told(joined)
        self._tell_clock(worker)

    def _ask(self, worker: HubMember) -> None:
        asked = {"asked_ns": time.monotonic_ns(), "again_s": self._beat_s}
        self._send(worker.key, "harness_clock", asked)

    @property
    def _beat_s(self) -> float:
        return BEAT_S * max(1.0, len(self.workers) / WORKERS_PER_BEAT)

    def _hear(self, take: Callable[[HubMember, dict[str, Any]], None], msg: Any, **_: Any) -> None:
        """Take in a message; not of one that has not greeted, or was forgotten."""
        worker = self.workers.get(msg.node_id)
        if worker is None:
            return
        worker.heard_ns = time.monotonic_ns()
        if worker.gone:
            worker.gone = False
            if worker.ready:
                self._listener.told(Back(worker.key))
        take(worker, msg.data)

    def _on_clock(self, worker: HubMember, said: dict[str, Any]) -> None:
        asked_ns, shown_ns, now_ns = said["asked_ns"], said["shown_ns"], worker.heard_ns
        if not isinstance(asked_ns, int) or not isinstance(shown_ns, int) or asked_ns > now_ns:
            raise ValueError("a clock that shows no time")
        worker.clock.add(Exchange(asked_ns, shown_ns, now_ns))
        if worker.ready:
            self._tell_clock(worker)

    def _tell_clock(self, worker: HubMember) -> None:
        now, known = worker.clock.at(time.monotonic_ns()), worker.told_clock
        if (
            known is None
            or abs(now.offset_ns - known.offset_ns) > CLOCK_NEWS_NS
            or abs(now.error_ns - known.error_ns) > CLOCK_NEWS_NS
        ):
            worker.told_clock = now
            news = (now.offset_ns, now.error_ns, worker.clock.round_trip_ns)
            self._listener.told(ClockKnown(worker.key, *news))

    def _on_answer(self, worker: HubMember, said: dict[str, Any]) -> None:
        self._listener.answered(worker.key, str(said["load"]), said["answer"])

    def _on_records(self, worker: HubMember, said: dict[str, Any]) -> None:
        gevent.spawn(self._keep_records, worker, said)

    def _keep_records(self, worker: HubMember, said: dict[str, Any]) -> None:
        load, problem = str(said["load"]), ""
        path = worker.records.pop(load, None)
        if path is None:
            return
        try:
            if said["size"]:
                worker.files.fetch(SentFile(path, str(said["sha256"]), int(said["size"])), path)
        except HarnessError as error:
            problem = str(error)
        self._listener.told(RecordsKept(worker.key, load, problem))

    def _on_bye(self, msg: Any, **_: Any) -> None:
        """A worker leaves, as Locust's own do: with the last one its master stops the test."""
        key = msg.node_id
        self._lose(key, "it has left")
        self.workers.pop(key, None)
        server: Any = self._runner.server
        server.forget(key)
        quits: Any = Message("quit", None, key)  # type: ignore[no-untyped-call]  # Locust's
        self._runner.handle_message(key, quits)

    def _on_end(self, key: str) -> None:
        """A connection ended: what came before, a farewell perhaps, is read first."""
        gevent.spawn_later(FAREWELL_S, self._lose, key, "its connection ended")

    def _lose(self, key: str, why: str) -> None:
        worker = self.workers.get(key)
        if worker is not None and not worker.gone:
            worker.gone = True
            if worker.ready:
                self._listener.told(Gone(worker.key, why))

    def _forget(self, key: str) -> None:
        self.workers.pop(key, None)
        server: Any = self._runner.server
        server.forget(key)
        with suppress(KeyError):
            del self._runner.clients[key]

    def _beat(self) -> None:
        """Ask every clock again and again, and see who does not answer."""
        while True:
            began_ns = time.monotonic_ns()
            for key, worker in list(self.workers.items()):
                silent_s = (began_ns - worker.heard_ns) / _NS
                if silent_s > FORGOTTEN_AFTER_S:
                    self._forget(key)
                    continue
                if silent_s > GONE_AFTER_S:
                    self._lose(key, f"nothing was heard of it for {silent_s:.0f} s")
                self._ask(worker)
            pause_s = self._beat_s
            gevent.sleep(pause_s)
            # Held up, by a machine that stalls: what has come meanwhile is read first.
            late_ns = time.monotonic_ns() - began_ns - int(pause_s * _NS)
            if late_ns > BEAT_S * _NS:
                gevent.sleep(BEAT_S)
