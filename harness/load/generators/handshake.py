"""How a worker and its master prove to each other that they know one secret, and stay sure of it.

Both sides as plain state machines: frames in, frames out. The worker says who it is and picks a
nonce, the master picks another, the worker proves that it knows the secret, the master proves it
too. The proofs, and the keys of all that follows, are HMAC-SHA256 over both nonces, the worker's
identity and the release. After that every message carries a number and a MAC, each way by a key of
its own, so that none can be forged, changed, sent back or played again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

MAX_MESSAGE_BYTES = 16 << 20
"""Most bytes of one message. A report of a worker that was held up for a minute has a hundredth
of it."""
MAX_GREETING_BYTES = 1024
"""Most bytes of a frame that nobody has vouched for yet."""
KNOCKING_AT_ONCE = 4096
"""Most workers that have said hello and proven nothing yet; the oldest are forgotten."""
WRONG_TOKEN = "wrong token"  # noqa: S105  (what is said of one)
_NONCE_BYTES = 32
_MAC_BYTES = hashlib.sha256().digest_size
_NUMBER_BYTES = 8


class Frame(Enum):
    """What a frame is, by its first byte."""

    HELLO = b"H"
    CHALLENGE = b"C"
    PROOF = b"P"
    WELCOME = b"W"
    REFUSED = b"R"
    UNKNOWN = b"U"
    """The master has no session with the sender: it is another master, or was started again."""
    MESSAGE = b"M"


class BadFrameError(Exception):
    """A frame that nobody who speaks this protocol sends; the message says what is wrong."""


class RefusedError(Exception):
    """The other side does not let this one join, or must not be joined; says why."""


@dataclass(frozen=True)
class Received:
    """What comes of a frame."""

    payload: bytes | None = None
    """A verified message of a peer that has joined; None for any other frame."""
    reply: bytes | None = None
    """A frame to send back."""
    joined: bool = False
    """Whether with this frame the other side has proven itself."""
    refused: str = ""
    """Why the other side may not join."""


class Session:
    """Messages between two who know each other.

    Args:
        key: of this session.
        master: whether this is the master's side.
    """

    def __init__(self, key: bytes, *, master: bool) -> None:
        to_master, to_worker = _mac(key, b"to the master"), _mac(key, b"to the worker")
        self._out, self._in = (to_worker, to_master) if master else (to_master, to_worker)
        self._sent = self._taken = 0

    def wrap(self, payload: bytes) -> bytes:
        """A message's frame."""
        self._sent += 1
        number = self._sent.to_bytes(_NUMBER_BYTES)
        return Frame.MESSAGE.value + number + _mac(self._out, number, payload) + payload

    def unwrap(self, frame: bytes) -> bytes:
        """The message in a frame.

        Raises:
            BadFrameError: not from the other side of this session, changed, or played again.
        """
        number, mac, payload = _message_parts(frame)
        if not hmac.compare_digest(mac, _mac(self._in, number, payload)):
            raise BadFrameError("a message whose MAC is wrong")
        place = int.from_bytes(number)
        if place <= self._taken:
            raise BadFrameError("a message that was sent before")
        self._taken = place
        return payload


class Doorkeeper:
    """The master's side, with all who come.

    Args:
        token: the secret; empty where everybody may join who can reach this master.
        release: of the harness; workers of another are refused.
    """

    def __init__(self, token: bytes, release: str) -> None:
        self._token, self._release = token, release
        self._knocking: OrderedDict[str, tuple[str, str]] = OrderedDict()
        """Both nonces of those who have not proven anything yet."""
        self._sessions: dict[str, Session] = {}

    def knows(self, peer: str) -> bool:
        """Whether a peer has joined."""
        return peer in self._sessions

    def forget(self, peer: str) -> None:
        """End a session: what the peer sends from now on is nobody's."""
        self._sessions.pop(peer, None)
        self._knocking.pop(peer, None)

    def wrap(self, peer: str, payload: bytes) -> bytes | None:
        """A message to one that has joined; None for anybody else."""
        session = self._sessions.get(peer)
        return session.wrap(payload) if session else None

    def take(self, peer: str, frame: bytes) -> Received:
        """Take in a frame.

        Raises:
            BadFrameError: nothing that a worker would send; its connection should end.
        """
        kind = _kind(frame)
        if kind is Frame.MESSAGE:
            session = self._sessions.get(peer)
            if session is None:
                return Received(reply=Frame.UNKNOWN.value)
            return Received(payload=session.unwrap(frame))
        if kind is Frame.HELLO:
            return self._greet(peer, _fields(frame, "nonce", "release"))
        if kind is Frame.PROOF:
            return self._check(peer, _fields(frame, "mac"))
        raise BadFrameError(f"a frame that only a master sends ({kind.name.lower()})")

    def _greet(self, peer: str, hello: Mapping[str, str]) -> Received:
        if hello["release"] != self._release:
            why = (
                f"it is release {hello['release']} of the harness, and the master is release "
                f"{self._release}"
            )
            return Received(reply=_frame(Frame.REFUSED, why=why), refused=why)
        nonce = secrets.token_hex(_NONCE_BYTES)
        self._knocking[peer] = (hello["nonce"], nonce)
        self._knocking.move_to_end(peer)
        if len(self._knocking) > KNOCKING_AT_ONCE:
            self._knocking.popitem(last=False)
        return Received(reply=_frame(Frame.CHALLENGE, nonce=nonce, release=self._release))

    def _check(self, peer: str, proof: Mapping[str, str]) -> Received:
        nonces = self._knocking.pop(peer, None)
        if nonces is None:
            raise BadFrameError("a proof that nobody asked for")
        transcript = _transcript(peer, *nonces, self._release)
        if not _same(proof["mac"], _mac(self._token, b"worker", transcript)):
            return Received(reply=_frame(Frame.REFUSED, why=WRONG_TOKEN), refused=WRONG_TOKEN)
        key = _mac(self._token, b"session", transcript)
        self._sessions[peer] = Session(key, master=True)
        mac = _mac(self._token, b"master", transcript).hex()
        return Received(reply=_frame(Frame.WELCOME, mac=mac), joined=True)


class Visitor:
    """The worker's side, with its one master.

    Args:
        token: the secret.
        release: of the harness; a master of another is not joined.
        identity: by which the master addresses this worker.
    """

    def __init__(self, token: bytes, release: str, identity: str) -> None:
        self._token, self._release, self._identity = token, release, identity
        self._nonce = ""
        self._transcript = b""
        self._session: Session | None = None

    @property
    def joined(self) -> bool:
        """Whether each has proven itself to the other."""
        return self._session is not None

    def hello(self) -> bytes:
        """The frame that begins it, anew where there was a session."""
        self._nonce, self._transcript, self._session = secrets.token_hex(_NONCE_BYTES), b"", None
        return _frame(Frame.HELLO, nonce=self._nonce, release=self._release)

    def wrap(self, payload: bytes) -> bytes | None:
        """A message to the master; None as long as there is none."""
        return self._session.wrap(payload) if self._session else None

    def take(self, frame: bytes) -> Received:
        """Take in a frame.

        Raises:
            RefusedError: this master cannot be joined; says why.
            BadFrameError: nothing that a master would send.
        """
        kind = _kind(frame)
        if kind is Frame.MESSAGE:
            if self._session is None:
                raise BadFrameError("a message before the master has proven itself")
            return Received(payload=self._session.unwrap(frame))
        if kind is Frame.UNKNOWN:
            # Whoever says so: the worst that can come of it is that both prove themselves again.
            # Each message that was on its way is answered so; one hello is the answer to them all.
            return Received(reply=self.hello()) if self._session is not None else Received()
        if kind is Frame.REFUSED and self._session is None:
            raise RefusedError(_fields(frame, "why")["why"])
        if kind is Frame.CHALLENGE and self._nonce and not self._transcript:
            return self._prove(_fields(frame, "nonce", "release"))
        if kind is Frame.WELCOME and self._transcript and self._session is None:
            return self._enter(_fields(frame, "mac"))
        raise BadFrameError(f"a frame out of turn ({kind.name.lower()})")

    def _prove(self, challenge: Mapping[str, str]) -> Received:
        if challenge["release"] != self._release:
            raise RefusedError(
                f"the master is release {challenge['release']} of the harness, and this worker is "
                f"release {self._release}"
            )
        nonces = self._nonce, challenge["nonce"]
        self._transcript = _transcript(self._identity, *nonces, self._release)
        mac = _mac(self._token, b"worker", self._transcript).hex()
        return Received(reply=_frame(Frame.PROOF, mac=mac))

    def _enter(self, welcome: Mapping[str, str]) -> Received:
        if not _same(welcome["mac"], _mac(self._token, b"master", self._transcript)):
            raise RefusedError("the master does not know the token")
        self._session = Session(_mac(self._token, b"session", self._transcript), master=False)
        return Received(joined=True)


def _mac(key: bytes, *parts: bytes) -> bytes:
    # The parts before the last have one length each, or end themselves: no two lists read alike.
    whole = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        whole.update(part)
    return whole.digest()


def _same(shown: str, right: bytes) -> bool:
    return hmac.compare_digest(shown.encode(), right.hex().encode())


def _transcript(identity: str, worker_nonce: str, master_nonce: str, release: str) -> bytes:
    return json.dumps([identity, worker_nonce, master_nonce, release]).encode()


def _frame(kind: Frame, **fields: str) -> bytes:
    return kind.value + json.dumps(fields).encode()


def _kind(frame: bytes) -> Frame:
    if len(frame) > MAX_MESSAGE_BYTES:
        raise BadFrameError(f"a message of {len(frame)} bytes")
    try:
        return Frame(frame[:1])
    except ValueError:
        raise BadFrameError("a frame of no known kind") from None


def _fields(frame: bytes, *names: str) -> dict[str, str]:
    """A frame's fields: texts, and just these."""
    if len(frame) > MAX_GREETING_BYTES:
        raise BadFrameError(f"a greeting of {len(frame)} bytes")
    try:
        fields = json.loads(frame[1:])
    except (ValueError, RecursionError):
        raise BadFrameError("a greeting that cannot be read") from None
    if not isinstance(fields, dict) or sorted(fields) != sorted(names):
        raise BadFrameError("a greeting with other fields than it should have")
    if not all(isinstance(one, str) and one.isascii() for one in fields.values()):
        raise BadFrameError("a greeting whose fields are not texts")
    return fields


def _message_parts(frame: bytes) -> tuple[bytes, bytes, bytes]:
    begin = 1 + _NUMBER_BYTES
    end = begin + _MAC_BYTES
    if len(frame) < end:
        raise BadFrameError("a message that is cut short")
    return frame[1:begin], frame[begin:end], frame[end:]
