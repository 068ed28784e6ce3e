"""gRPC metadata: headers that go with every call, and what the status of an answer says.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, under Custom-Metadata.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from urllib.parse import unquote

from harness.errors import UsageError
from harness.load.transports.contract import RequestFailure
from harness.load.transports.grpc.frames import ErrorCode, name_of
from harness.load.transports.grpc.headers import Headers

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
                f"'{given}' is not a name of gRPC metadata",
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


_STATUS_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_OK = 0
_STATUS_OF_RESET = {
    ErrorCode.REFUSED_STREAM: "UNAVAILABLE",
    ErrorCode.CANCEL: "CANCELLED",
    ErrorCode.ENHANCE_YOUR_CALM: "RESOURCE_EXHAUSTED",
    ErrorCode.INADEQUATE_SECURITY: "PERMISSION_DENIED",
}
_DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
_CONTENT_TYPE = "application/grpc"


def check_headers(headers: Headers) -> None:
    """Pass if they begin a gRPC answer.

    Raises:
        RequestFailure: `http_STATUS` of what is not a gRPC server, or `malformed`.
    """
    status, content_type = headers.get(":status", "(none)"), headers.get("content-type", "(none)")
    if status != "200":
        raise RequestFailure(f"http_{status}", f"HTTP status {status}, content type {content_type}")
    # A serialisation (+proto) or a parameter (;) may follow.
    kind, rest = content_type[: len(_CONTENT_TYPE)], content_type[len(_CONTENT_TYPE) :]
    if kind != _CONTENT_TYPE or rest[:1] not in {"", "+", ";"}:
        raise RequestFailure("malformed", f"an answer of content type {content_type}, not gRPC")


def check_trailers(trailers: Headers, timeout_s: float) -> None:
    """Pass if they say that the call went well.

    Raises:
        RequestFailure: `grpc_STATUS` in the server's words; `timeout` if the server kept the
            deadline itself; `malformed` without a status.
    """
    status = trailers.get("grpc-status")
    if status is None:
        raise RequestFailure("malformed", "the answer ends without a grpc-status")
    if status.isdecimal() and int(status) == _OK:
        return
    known = status.isdecimal() and int(status) < len(_STATUS_NAMES)
    name = _STATUS_NAMES[int(status)] if known else "UNKNOWN"
    words = unquote(trailers.get("grpc-message", ""), errors="replace") or "(no message)"
    if name == _DEADLINE_EXCEEDED:
        raise RequestFailure("timeout", f"no answer in {timeout_s:g} s, says the server: {words}")
    raise RequestFailure(f"grpc_{name}", words)


def reset_failure(code: int) -> RequestFailure:
    """The failure that a stream ends in which the server broke off."""
    known = code in {int(one) for one in _STATUS_OF_RESET}
    name = _STATUS_OF_RESET[ErrorCode(code)] if known else "INTERNAL"
    return RequestFailure(f"grpc_{name}", f"the server reset the stream: {name_of(code)}")
