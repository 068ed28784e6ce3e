"""Locust's sockets behind a door: only who has proven to know the token gets a message through.

Every message, Locust's and ours, goes in a frame of `harness.load.generators.handshake`, so that
Locust's runners see none that the other side has not sent. `guard_sockets` puts these sockets in
the place of Locust's own, before a runner is made.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
import zmq.green as zmq
from gevent.event import Event
from locust.exception import RPCError
from locust.rpc import Message, rpc
from zmq.utils.monitor import parse_monitor_message

from harness import __version__
from harness.errors import EXIT_USAGE
from harness.load.generators.handshake import (
    MAX_MESSAGE_BYTES,
    BadFrameError,
    Doorkeeper,
    RefusedError,
    Visitor,
)
from harness.load.generators.master_endpoint import TOKEN_VARIABLE, MasterEndpoint

SILENT_ENDED = 4096
"""Peers whose connection was ended and who are remembered, so that nothing more is read of them."""
SAY_EVERY_S = 10.0
_LIMIT_BYTES = MAX_MESSAGE_BYTES + 1024

logger = logging.getLogger("harness")


def guard_sockets(token: bytes) -> None:
    """Have Locust's runners in this process speak through the door from now on.

    Args:
        token: the secret; empty where everybody may join who can reach this process.
    """
    module: Any = rpc
    module.Server = partial(GuardedServer, token=token)
    module.Client = partial(GuardedClient, token=token, leaves=True)


class _GuardedSocket(rpc.BaseSocket):
    """What both sides' sockets have in common: bounded messages, and an eye on the connections."""

    def __init__(self, kind: int, endpoint: MasterEndpoint, events: int) -> None:
        super().__init__(kind, ":" not in endpoint.host)  # type: ignore[no-untyped-call]  # Locust's
        self.socket.setsockopt(zmq.MAXMSGSIZE, _LIMIT_BYTES)
        self._monitor: Any = self.socket.get_monitor_socket(events)
        self._watcher = gevent.spawn(self._watch)

    def close(self, linger: int | None = None) -> None:
        """Close it."""
        self._watcher.kill(block=False)
        self.socket.disable_monitor()
        super().close(linger)  # type: ignore[no-untyped-call]  # Locust's

    def _watch(self) -> None:
        while True:
            self._note(parse_monitor_message(self._monitor.recv_multipart()))

    def _unread(self) -> Iterator[Mapping[str, Any]]:
        """What became of the connections before the message that was read last.

        Messages and events come by ways of their own: without this a connection that ended long ago
        can be taken for the one that a message has just come through.
        """
        with suppress(zmq.Again):
            while True:
                yield parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))

    def _note(self, event: Mapping[str, Any]) -> None:
        """Take in what became of a connection."""
        raise NotImplementedError


class GuardedServer(_GuardedSocket):
    """The master's socket.

    Args:
        host: where it listens; an `MasterEndpoint`'s host.
        port: likewise.
        token: the secret.

    Raises:
        RPCError: it cannot listen there.
    """

    def __init__(self, host: str, port: int, *, token: bytes) -> None:
        endpoint = _guarded(host, port, token)
        super().__init__(zmq.ROUTER, endpoint, zmq.EVENT_DISCONNECTED | zmq.EVENT_ACCEPTED)
        self._doorkeeper = Doorkeeper(token, __version__)
        self._connections: dict[int, str] = {}
        """Identity of who speaks through a connection, by its file descriptor."""
        self._silent: set[int] = set()
        """File descriptors of connections whose other side has said nothing yet."""
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._said: dict[str, float] = {}
        self.tell: Callable[[str], None] = logger.warning
        """Takes a line that a person should read."""
        self.on_end: Callable[[str], None] = lambda _: None
        """Called with the identity of one that had joined, and whose connection has ended."""
        try:
            self.socket.bind(endpoint.address)
        except zmq.ZMQError as error:
            self.close(linger=0)
            raise RPCError(f"Socket bind failure: {error.strerror}") from error
        self.port = port

    def send_to_client(self, msg: Message) -> None:
        """Send to one that has joined; to others nothing is sent."""
        frame = self._doorkeeper.wrap(msg.node_id, packed(msg))
        if frame is not None:
            self._send(msg.node_id, frame)

    def recv_from_client(self) -> tuple[str, Message]:
        """The next message of one that has joined."""
        while True:
            try:
                parts = self.socket.recv_multipart(copy=False)
            except zmq.ZMQError as error:
                raise RPCError("ZMQ network broken") from error
            peer = parts[0].bytes.decode(errors="backslashreplace")
            if peer in self._ended:
                continue
            self._note_speaker(parts[0].get(zmq.SRCFD), peer)
            try:
                message = self._take(peer, parts)
            except BadFrameError as error:
                self._end(peer, parts, str(error))
                continue
            if message is not None:
                return peer, message

    def forget(self, peer: str) -> None:
        """A worker that has left; should it come again it proves itself again."""
        self._doorkeeper.forget(peer)

    def _take(self, peer: str, parts: list[Any]) -> Message | None:
        if len(parts) != 2:  # noqa: PLR2004  (who it is from, and a frame)
            raise BadFrameError(f"a message of {len(parts)} parts")
        received = self._doorkeeper.take(peer, parts[1].bytes)
        if received.reply is not None:
            self._send(peer, received.reply)
        if received.refused:
            self._say(f"a worker at {_address(parts[1])} is refused: {received.refused}")
        if received.payload is None:
            return None
        message = unpacked(received.payload)
        if message.node_id != peer:
            raise BadFrameError("a message in another's name")
        return message

    def _send(self, peer: str, frame: bytes) -> None:
        with suppress(zmq.ZMQError):  # it has gone: whoever waits for it notices
            self.socket.send_multipart([peer.encode(errors="replace"), frame], zmq.NOBLOCK)

    def _end(self, peer: str, parts: list[Any], why: str) -> None:
        """Hang up on one that sends what no worker sends."""
        self._say(f"the connection of {_address(parts[-1])} is ended: it sent {why}")
        known = self._doorkeeper.knows(peer)
        self._doorkeeper.forget(peer)
        self._ended[peer] = None
        if len(self._ended) > SILENT_ENDED:
            self._ended.popitem(last=False)
        if self._connections.get(parts[0].get(zmq.SRCFD)) == peer:
            _hang_up(parts[0])
        if known:
            self.on_end(peer)

    def _say(self, line: str) -> None:
        """Once in a while: what others send must not fill a log."""
        now_s = time.monotonic()
        if now_s - self._said.get(line, -SAY_EVERY_S) < SAY_EVERY_S:
            return
        self._said = {one: at_s for one, at_s in self._said.items() if now_s - at_s < SAY_EVERY_S}
        self._said[line] = now_s
        self.tell(line)

    def _note_speaker(self, descriptor: int, peer: str) -> None:
        """Who speaks through a connection; the kernel gives the number of one that ended again."""
        if self._connections.get(descriptor) == peer:
            return
        there = True
        for event in self._unread():
            if event["value"] == descriptor:
                there = event["event"] == zmq.EVENT_ACCEPTED
                self._silent.discard(descriptor)  # it has just been heard
            self._note(event)
        if there:
            self._connections[descriptor] = peer

    def _note(self, event: Mapping[str, Any]) -> None:
        descriptor = event["value"]
        if event["event"] == zmq.EVENT_ACCEPTED:
            self._silent.add(descriptor)
            return
        peer = self._connections.pop(descriptor, "")
        if peer and self._doorkeeper.knows(peer):
            self.on_end(peer)
        elif not peer and descriptor in self._silent:
            self._say(
                "a connection ended without a greeting: it was no worker, or sent a message "
                "that is too large"
            )
        self._silent.discard(descriptor)


class GuardedClient(_GuardedSocket):
    """A worker's socket.

    Args:
        host: of its master; an `MasterEndpoint`'s host.
        port: likewise.
        identity: by which the master addresses it.
        token: the secret.
        leaves: whether the process ends where the master does not let it in.
    """

    def __init__(
        self, host: str, port: int, identity: str, *, token: bytes, leaves: bool = False
    ) -> None:
        endpoint = MasterEndpoint(host, port)
        super().__init__(zmq.DEALER, endpoint, zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
        self.socket.setsockopt(zmq.IDENTITY, identity.encode())
        self._identity, self._leaves = identity, leaves
        self._visitor = Visitor(token, __version__, identity)
        self._unsent: deque[bytes] = deque(maxlen=1000)
        """Messages of Locust that come before the door is open."""
        self.refused = ""
        """Why the master does not let this worker in, or must not be joined."""
        self.heard_ns = time.monotonic_ns()
        """When the master was heard last."""
        self._in_session = False
        """Whether the master has let this worker in."""
        self.connected = False
        """Whether there is a connection, to whomever."""
        self.disconnected = Event()
        """Set once a connection has ended through which the master had let this worker in."""
        self.socket.connect(endpoint.address)
        self._put(self._visitor.hello())

    def enter(self, longest_s: float) -> bool:
        """Join before a runner has this socket.

        Returns:
            Whether it has; `refused` says why not, where the master said so.
        """
        with gevent.Timeout(longest_s, exception=False):
            while not self._visitor.joined and not self.refused:
                self._receive()
        return self._visitor.joined

    def send(self, msg: Message) -> None:
        """Send; what comes before the door is open is sent when it is."""
        msg.node_id = self._identity
        payload = packed(msg)
        frame = self._visitor.wrap(payload)
        if frame is None:
            self._unsent.append(payload)
        else:
            self._put(frame)

    def recv(self) -> Message:
        """The master's next message."""
        while True:
            payload = self._receive()
            if payload is None:
                continue
            try:
                return unpacked(payload)
            except BadFrameError as error:
                logger.error("the master sent %s", error)

    def close(self, linger: int | None = None) -> None:
        """Close it."""
        self.disconnected.set()
        super().close(linger)

    def _receive(self) -> bytes | None:
        """Take in a frame; what a forger sends is dropped."""
        try:
            received = self._visitor.take(self.socket.recv())
        except zmq.ZMQError as error:
            raise RPCError("ZMQ network broken") from error
        except BadFrameError as error:
            logger.warning("from the master's address came %s: not obeyed", error)
            return None
        except RefusedError as error:
            self.refused = str(error)
            logger.error("the master does not let this worker join: %s", self.refused)
            if self._leaves:
                os._exit(EXIT_USAGE)  # Locust would knock for minutes
            return None
        if received.reply is not None:
            self._put(received.reply)
        if received.joined:
            self._begin()
        self.heard_ns = time.monotonic_ns()
        while received.joined and self._unsent:
            frame = self._visitor.wrap(self._unsent.popleft())
            if frame is not None:
                self._put(frame)
        return received.payload

    def _put(self, frame: bytes) -> None:
        try:
            self.socket.send(frame, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise RPCError("ZMQ sent failure") from error

    def _begin(self) -> None:
        """A session begins.

        A connection that ended before it, to a master that was just leaving, was not its own.
        """
        for event in self._unread():
            self._note(event)
        self._in_session = True
        if not self.connected:
            self.disconnected.set()

    def _note(self, event: Mapping[str, Any]) -> None:
        self.connected = event["event"] == zmq.EVENT_CONNECTED
        if self._in_session and not self.connected:
            self.disconnected.set()


def _guarded(host: str, port: int, token: bytes) -> MasterEndpoint:
    """Where a master listens: without a token nobody from another machine gets to knock."""
    endpoint = MasterEndpoint("0.0.0.0" if host == "*" else host, port)  # noqa: S104
    if token or endpoint.local:
        return endpoint
    if host == "*":  # Locust's own choice, not a person's
        logger.warning("%s is not set: only workers of this machine can join", TOKEN_VARIABLE)
        return MasterEndpoint("127.0.0.1", port)
    logger.error("%s is reached by other machines, and %s is not set", endpoint, TOKEN_VARIABLE)
    raise SystemExit(EXIT_USAGE)


def packed(message: Message) -> bytes:
    """A message of Locust as it travels."""
    payload: bytes = message.serialize()  # type: ignore[no-untyped-call]  # Locust's
    return payload


def unpacked(payload: bytes) -> Message:
    """A message of Locust.

    Raises:
        BadFrameError: it is none.
    """
    try:
        message: Message = Message.unserialize(payload)  # type: ignore[no-untyped-call]
    except Exception as error:
        # msgpack, Locust's own dates in it, a wrong number of fields: each raises its own.
        raise BadFrameError("a message that cannot be read") from error
    if not isinstance(message.type, str) or not isinstance(message.node_id, str):
        raise BadFrameError("a message that cannot be read")
    return message


def _address(part: Any) -> str:
    with suppress(zmq.ZMQError):
        address: str = part.get("Peer-Address")
        return address or "this machine"
    return "this machine"


def _hang_up(part: Any) -> None:
    """Shut the connection down that a part of a message came through.

    ZeroMQ has no way to end one of a socket's connections. Its descriptor may be another's by now:
    then it has another address at its end, or none.
    """
    with suppress(OSError, zmq.ZMQError):
        descriptor = part.get(zmq.SRCFD)
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            peer = connection.getpeername()
            if not isinstance(peer, tuple) or peer[0] == _address(part):
                connection.shutdown(socket.SHUT_RDWR)
