"""An id for every request, by which a server's log and trace find the one that was measured.

A request is encoded once with a mark where its id goes (KServe v2's `id`, before the tensors), and
the mark gives way to another id each time it is sent. Ids are all of one width, so that lengths
stay as encoded. A server that knows `id` repeats it in its answer: then it must be the one that was
sent, as an answer to another request is a wrong answer.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets

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
    return (request, b"") if marked is request else (marked, identity)


def holes_of(prefix: bytes, identity: bytes) -> tuple[bytes, ...]:
    """What precedes an answer's tensors, cut where it repeats its request's id."""
    return tuple(prefix.split(identity)) if identity else (prefix,)


def without_ids(text: str) -> str:
    """A text in which every id stands as `ID`: the same for all requests that ended alike."""
    return _ANY_ID.sub("ID", text)
