"""What a client of OpenAI's API is told when its request cannot be answered."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

INVALID, OVERLOADED, FAILED = "invalid_request_error", "rate_limit_error", "server_error"
"""Kinds of errors, as OpenAI's `type` names them."""
RETRY_AFTER_S = 1
"""Seconds after which a client that found the queue full should ask again."""


class ApiError(Exception):
    """An answer that is an error: its status, and the fields of OpenAI's error object."""

    def __init__(
        self,
        message: str,
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """`param` is the field that is wrong; `code` says which error it is, for programs."""
        super().__init__(message)
        self.message, self.status, self.kind = message, status, kind
        self.param, self.code = param, code

    @property
    def body(self) -> dict[str, Any]:
        """The error as OpenAI's JSON."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After`, where it is worth trying again."""
        if self.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            return {"Retry-After": str(RETRY_AFTER_S)}
        return {}


def failed(message: str) -> ApiError:
    """The server's fault, not the client's."""
    return ApiError(message, status=HTTPStatus.INTERNAL_SERVER_ERROR, kind=FAILED)
