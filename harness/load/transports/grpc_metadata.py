"""gRPC metadata: the headers that a user sends with every call, checked before any is sent.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, under Custom-Metadata.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from harness.errors import UsageError

BINARY_SUFFIX = "-bin"

_NAME = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_RESERVED = frozenset({
    "connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection", "te",
    "transfer-encoding", "upgrade", "user-agent",
})  # fmt: skip
_RESERVED_PREFIX = "grpc-"


def read_metadata(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Metadata as it goes over the wire: names in lower case, values in ASCII.

    The value of a name that ends in `-bin` is bytes; it is given, and sent, in base64.

    Raises:
        UsageError: a name or a value that gRPC cannot carry, or a name that is gRPC's own.
    """
    metadata = []
    for given, value in headers:
        name = given.lower()
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"'{given}' is no name of gRPC metadata",
                next_step="use letters, digits, and the signs - _ .",
            )
        if name in _RESERVED or name.startswith(_RESERVED_PREFIX):
            raise UsageError(f"'{given}' cannot be sent as metadata: gRPC sets it itself")
        if not _VALUE.fullmatch(value):
            raise UsageError(
                f"the metadata '{given}' has a value with signs other than printable ASCII",
                next_step=f"name it '{given}{BINARY_SUFFIX}' and give the value in base64",
            )
        if name.endswith(BINARY_SUFFIX):
            decode_binary(name, value)
        metadata.append((name, value.strip()))
    return metadata


def decode_binary(name: str, value: str) -> bytes:
    """The bytes that a `-bin` value stands for; padding may be left out.

    Raises:
        UsageError: it is not base64.
    """
    text = value.strip().rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise UsageError(
            f"the metadata '{name}' has a value that is not base64: {error}",
            next_step="encode it: printf VALUE | base64 -w0",
        ) from error
