"""What a transport is: the only plug-in point between a user and the wire.

A request is encoded once, before the load starts, and sent many times, each time under another id
(below): what a transport does for each request is what the generator costs. Answers are
likewise recognised rather than parsed: those of one form share their header byte for byte, but for
that id, so its layout is worked out once.

Transports use the plain `socket` and `threading` modules and never import gevent: in a Locust
process, where these are patched, they wait cooperatively; anywhere else they block.

An id for every request, by which a server's log and trace find the one that was measured. A request
is encoded once with a mark where its id goes (KServe v2's `id`, before the tensors), and the mark
gives way to another id each time it is sent. Ids are all of one width, so that lengths stay as
encoded. A server that knows `id` repeats it in its answer: then it must be the one that was sent,
as an answer to another request is a wrong answer.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol

import ml_dtypes  # noqa: F401  (tells numpy of bfloat16)
import numpy as np
from numpy.typing import NDArray

MARK = b"<the-id-of-this-request>"
"""Stands in an encoded request for its id; as wide as one."""
WIDTH = len(MARK)
_DIGITS = 12
_ANY_ID = re.compile(rf"\b[0-9a-f]{{{WIDTH - _DIGITS}}}\d{{{_DIGITS}}}\b")


def _ids_of_this_process() -> tuple[bytes, itertools.count[int]]:
    return secrets.token_hex((WIDTH - _DIGITS) // 2).encode(), itertools.count(1)


_prefix, _numbers = _ids_of_this_process()


def _renew() -> None:
    global _prefix, _numbers  # a forked process must not go on with its parent's
    _prefix, _numbers = _ids_of_this_process()


os.register_at_fork(after_in_child=_renew)


def next_id() -> bytes:
    """An id that no other request has: a random part of the process, then a number."""
    return b"%b%012d" % (_prefix, next(_numbers))


def stamped(request: bytes) -> tuple[bytes, bytes]:
    """A request as it is sent, and its id; without a mark it stays as it is, and the id is empty.

    The mark stands before all content, so only an unmarked request is searched to its end.
    """
    identity = next_id()
    marked = request.replace(MARK, identity, 1)
    # Compared up to the id at most; a `StreamRequest` is copied even where nothing is replaced.
    return (request, b"") if marked == request else (marked, identity)


def holes_of(prefix: bytes, identity: bytes) -> tuple[bytes, ...]:
    """What precedes an answer's tensors, cut where it repeats its request's id."""
    return tuple(prefix.split(identity)) if identity else (prefix,)


def without_ids(text: str) -> str:
    """A text in which every id stands as `ID`: the same for all requests that ended alike."""
    return _ANY_ID.sub("ID", text)


DATATYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
}
"""KServe v2 datatype by numpy's name (bfloat16 is of ml_dtypes); texts are BYTES."""
ELEMENTS = {datatype: np.dtype(name).newbyteorder("<") for name, datatype in DATATYPES.items()}
"""One element on the wire, by KServe v2 datatype; those of BYTES have no fixed size."""

TEXT_KINDS = "SUO"
"""Numpy's kinds of texts: fixed-width bytes, fixed-width text, objects (of bytes or text)."""

_LENGTH = struct.Struct("<I")
_LONGEST_QUOTED_ID = 80


def datatype_of(array: NDArray[Any]) -> str | None:
    """KServe v2 datatype of an array's elements; None where no tensor has such."""
    return "BYTES" if array.dtype.kind in TEXT_KINDS else DATATYPES.get(array.dtype.name)


def tensor_bytes(array: NDArray[Any]) -> bytes:
    """An array as it goes over the wire: raw little-endian, row by row.

    Elements of BYTES have four bytes of length before each (KServe v2's binary tensor extension).
    """
    if array.dtype.kind not in TEXT_KINDS:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    elements = (one.encode() if isinstance(one, str) else one for one in array.reshape(-1).tolist())
    return b"".join(_LENGTH.pack(len(one)) + one for one in elements)


class RequestFailure(Exception):  # noqa: N818  (the term of serving: a failed request)
    """A request that was not answered as it should have been.

    A datum of the measurement, counted by `kind`, and never a reason to stop the harness: so it
    stands outside the tree of `harness.errors`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind

    pauses: ClassVar[bool] = True
    """Whether a slot of a closed loop rests after it: a dead server refuses at once."""

    def __repr__(self) -> str:
        """Alike for failures that differ only in their request's id: Locust counts them by it."""
        return without_ids(super().__repr__())


LEFT = "left"
"""The kind of a request whose client went away in the middle of its answer, on purpose."""


class ClientLeft(RequestFailure):
    """The client went away because the workload said so: neither a success nor a failure."""

    pauses = False

    def __init__(self, tokens: int) -> None:
        super().__init__(LEFT, f"the client went away after {tokens} tokens, as it was to")


class StreamTokens(NamedTuple):
    """The tokens of an answer that came token by token."""

    input_tokens: int = 0
    """Tokens of the prompt, as the server counts them; else as the workload does; 0 where neither
    does."""
    output_tokens: int = 0
    """Tokens of the answer, as far as it came."""
    reported_tokens: int | None = None
    """Tokens of the answer by the server's usage; None where it gave none."""
    irregular: tuple[str, ...] = ()
    """By kind, what was not as it should be though the answer counts as a success."""
    closing_ns: int = 0
    """From the last token to the end of the stream; 0 where it did not come to its end."""
    queue_us: int | None = None
    """Microseconds that the request waited in the server for its turn; None: it does not say."""


NO_TOKENS = StreamTokens()
"""Tokens of an answer that is no stream."""


class AnotherAnswer(RequestFailure):
    """An answer that belongs to another request: `malformed`, like all that breaks the protocol."""

    def __init__(self, message: str) -> None:
        super().__init__("malformed", message)


def check_echo(echoed: object, sent: bytes) -> None:
    """Refuse an answer that bears an id other than its request's; one without an id is fine.

    Args:
        echoed: the answer's id.
        sent: the request's; empty if it had none, and then nothing is compared with it.

    Raises:
        AnotherAnswer: it answers another request.
    """
    if sent and echoed and echoed != sent.decode():
        answered = str(echoed)[:_LONGEST_QUOTED_ID]
        raise AnotherAnswer(f"the answer to {answered!r} came to the request {sent.decode()!r}")


class OutputTensor(NamedTuple):
    """One output of an answer, and where its bytes lie."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """Shape, with the batch dimension."""
    start: int
    """Offset of its raw little-endian elements in the answer's data."""
    end: int
    """`start` if the server sent none."""


class Layout:
    """The form of an answer: the same object for all answers of one form; made by `layout_of`.

    Compared by identity, so that a check made once of a form need not be made again.
    """

    __slots__ = ("outputs",)

    def __init__(self, outputs: tuple[OutputTensor, ...]) -> None:
        self.outputs = outputs


@lru_cache(maxsize=1024)
def layout_of(outputs: tuple[OutputTensor, ...]) -> Layout:
    """The layout of these outputs: one object, however often it is asked for.

    Only the latest are kept, so that answers which all differ cannot fill the memory; the
    identity of one that was dropped is lost, which costs a check and nothing else.
    """
    return Layout(outputs)


class WireAnswer(NamedTuple):
    """An accepted request's answer, as it came."""

    layout: Layout
    data: bytes
    """Holds every output's bytes at the offsets that the layout says."""

    def bytes_of(self, output: OutputTensor) -> bytes:
        """The raw elements of one output."""
        return self.data[output.start : output.end]


class Transport(Protocol):
    """One connection to one server, for one request at a time."""

    received_ns: int
    """CLOCK_MONOTONIC when the answer that `send` last returned had come, as near as this
    transport can tell: by the kernel's stamp (`sockets.py`), or when it was read."""
    identity: bytes
    """The id of the request that was last sent; empty where it bore none, or never went out."""

    def connect(self) -> None:
        """Connect now; without it `send` connects when it needs to.

        Raises:
            RequestFailure: the server cannot be reached.
        """

    def send(self, request: bytes) -> WireAnswer:
        """Send an encoded request under its own id, and wait for its answer.

        Raises:
            RequestFailure: no answer, or one that says no. The next `send` starts again.
        """

    def close(self) -> None:
        """Give the connection up; closing twice is fine."""


class TensorTransport(Transport, Protocol):
    """A transport of requests whose inputs and outputs are tensors."""

    def encode(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> bytes:
        """The whole request as it goes over the wire, but for a mark where its id will stand.

        Every array has the batch dimension.
        """
