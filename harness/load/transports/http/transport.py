"""KServe v2 over HTTP/1.1, on one kept-alive socket: requests encoded once, answers recognised.

Bodies are binary, or JSON for a target whose server takes no other; those answers are parsed.

A general client (requests, tritonclient) costs several times the CPU per request, which would be
taken from the server under test wherever both share a machine.

Nothing is ever sent twice: a request whose connection breaks has failed, and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from harness.load.transports.contract import (
    AnotherAnswer,
    Layout,
    RequestFailure,
    WireAnswer,
    stamped,
)
from harness.load.transports.http.connections import KeptTransport
from harness.load.transports.http.http1 import (
    OK,
    WORDS_OF_A_REFUSAL,
    Message,
    ProtocolViolation,
    post,
    read_message,
)
from harness.load.transports.http.tensors import encode_body, encode_json, read_json, read_layout
from harness.load.transports.recognition import KnownForms

_forms = KnownForms()


class HttpTransport(KeptTransport):
    """A `Transport` over one kept-alive connection."""

    def encode(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> bytes:
        """Head and body, ready for the socket."""
        if self._target.binary:
            split, body = encode_body(inputs)
            kind = (
                ("Content-Type", "application/octet-stream"),
                ("Inference-Header-Content-Length", str(split)),
            )
        else:
            body = encode_json(inputs)
            kind = (("Content-Type", "application/json"), ("Accept", "application/json"))
        return post(self._target, f"/v2/models/{quote(model, safe='')}/infer", body, kind)

    def send(self, request: bytes) -> WireAnswer:
        """Send a request under its own id, and recognise its answer, or read it."""
        self.identity = b""
        connection = self._ready()
        request, identity = stamped(request)
        self.identity = identity
        try:
            received = connection.ask(request, self._timeout_s)
            found = _forms.recall(received, identity) or read_message(received, connection.receive)
        except (OSError, ProtocolViolation) as error:
            raise self._broken(connection, error) from error
        except BaseException:  # a killed greenlet, Ctrl-C: an answer may still be under way
            self.close()
            raise
        connection.guard.clear()
        if connection.guard.expired:
            self.close()
            raise self._too_late()
        self.received_ns = connection.inbox.received_ns
        if isinstance(found, Layout):
            return WireAnswer(found, received)
        try:
            return self._read(found, identity)
        except AnotherAnswer:  # and so may be all that this connection brings from now on
            self.close()
            raise

    def _read(self, message: Message, identity: bytes) -> WireAnswer:
        """Take an answer of an unknown form apart, and recognise its form from now on."""
        head = message.head
        if not head.keep_alive:
            self.close()
        if head.status != OK:
            words = message.body[:WORDS_OF_A_REFUSAL].decode(errors="replace")
            raise RequestFailure(f"http_{head.status}", words or "(no message)")
        if not self._target.binary:
            return read_json(message.body, identity)
        size = len(message.data)
        tensors_start = size
        if head.header_length is not None:
            tensors_start = message.body_start + head.header_length
        layout = read_layout(
            message.data,
            body_start=message.body_start,
            tensors_start=tensors_start,
            identity=identity,
        )
        if head.keep_alive and message.body_start:
            _forms.remember(message.data, tensors_start, layout, identity)
        return WireAnswer(layout, message.data)
