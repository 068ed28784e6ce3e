"""What gRPC's header fields and HTTP/2's error codes say of a call that did not go well.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, under Responses and under Errors.
"""

from __future__ import annotations

from urllib.parse import unquote

from harness.load.transports.contract import RequestFailure
from harness.load.transports.frames import ErrorCode, name_of
from harness.load.transports.hpack_headers import Headers

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
