"""Streams over HTTP/1.1: OpenAI's API and Triton's `/generate_stream`, on one kept-alive socket.

As the unary transport (`http/transport.py`): requests encoded once, bytes stamped by the kernel. A
request's time limit holds for each gap of its answer: until the first token it is a `timeout`,
after that the answer has `stalled`. What has no token (keep-alives, empty events) does not lengthen
it. The whole has `LONGEST_S`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.load.transports.address import Target
from harness.load.transports.contract import (
    ClientLeft,
    RequestFailure,
    WireAnswer,
    layout_of,
    stamped,
)
from harness.load.transports.http.connections import (
    KeptConnection,
    KeptTransport,
    too_late,
)
from harness.load.transports.http.http1 import (
    HEAD_END,
    OK,
    WORDS_OF_A_REFUSAL,
    Head,
    ProtocolViolation,
    StreamEnd,
    parse_head,
    read_message,
)
from harness.load.transports.sockets import ReadWaiter
from harness.load.transports.streams.answer import AnswerReader, Frames
from harness.load.transports.streams.body import ArrivingBody, body_of
from harness.load.transports.streams.events import EventReader, Parse
from harness.load.transports.streams.tokens import (
    ASKED_AGAIN,
    NOTHING_CAME,
    StreamRequest,
    TokenCounter,
    TokenStream,
)
from harness.words.numbers import asked

LONGEST_S = 600.0
"""Longest time of a whole answer, however steadily tokens come: a server that ignores `max_tokens`
may never end."""
HUNG_UP_WITHIN_S = 1.0
"""A kept connection that ends later than that after a request was sent had been waited on: what
ends it is the server's failure, not the end of a connection that it was done with."""
EVENT_STREAM = b"text/event-stream"
STREAMED = WireAnswer(layout_of(()), b"")
"""What `send` returns: all that is known of the answer is in `stream`."""


class HttpStreamTransport(KeptTransport):
    """A `StreamTransport` over one kept-alive connection.

    Args:
        target: the server.
        parse: reads an event (`events.py`).
        finish: holds a stream that has ended against what it should be.
        timeout_s: for the connection, and for each gap of an answer.
        waiter: of the process's event loop.
        counter: counts tokens where the server does not say how many an event carries.
    """

    def __init__(
        self,
        target: Target,
        parse: Parse,
        finish: Callable[[TokenStream], None],
        *,
        timeout_s: float,
        waiter: ReadWaiter | None = None,
        counter: TokenCounter | None = None,
    ) -> None:
        super().__init__(target, timeout_s=timeout_s, waiter=waiter)
        self._parse, self._finish = parse, finish
        self._counter = counter
        self._frames: Frames = {}
        self.stream = NOTHING_CAME

    def send(self, request: bytes) -> WireAnswer:
        """Send a request under its own id, and read its answer to the end into `stream`."""
        self.identity, self.stream = b"", NOTHING_CAME
        plan = request if isinstance(request, StreamRequest) else StreamRequest(request)
        marked, self.identity = stamped(request)
        connection = self._ready()
        stream = self.stream = TokenStream(plan.input_tokens)

        def heard_ns() -> int:
            return stream.completed_ns

        try:
            try:
                received = connection.ask(marked, self._timeout_s, heard_ns)
            except (OSError, StreamEnd):
                waited = connection.guard.expired or connection.asked_ago_s > HUNG_UP_WITHIN_S
                if connection.asked == 1 or waited:
                    raise
                connection = self._replaced(connection, stream)
                received = connection.ask(marked, self._timeout_s, heard_ns)
            head = self._read(connection, received, stream, plan)
        except (OSError, ProtocolViolation) as error:
            raise self._broken(connection, error) from error
        except BaseException:  # what was refused, or a killed greenlet: more may be under way
            self.close()
            raise
        connection.guard.clear()
        if connection.guard.expired:
            self.close()
            raise self._too_late()
        if not head.keep_alive:
            self.close()
        self._finish(stream)
        stream.settle(plan.max_tokens, self._counter)
        self.received_ns = stream.completed_ns
        return STREAMED

    def _replaced(self, connection: KeptConnection, stream: TokenStream) -> KeptConnection:
        """A new connection for a request whose kept one ended at once, without a byte of an answer.

        That is no answer of the server's (RFC 9112, 9.3.1): llama.cpp hangs up after answers
        without saying so. It is counted.
        """
        connection.guard.clear()
        self.close()
        stream.irregular.add(ASKED_AGAIN)
        return self._ready()

    def _read(
        self, connection: KeptConnection, received: bytes, stream: TokenStream, plan: StreamRequest
    ) -> Head:
        """Read an answer's events as they come, to its end."""
        head, piece = self._read_head(connection, received)
        body = body_of(head)
        reader, inbox = EventReader(stream, self._parse), connection.inbox
        answer = AnswerReader(body, reader, self._frames)
        leave_after = plan.leave_after
        last_ns = time.monotonic_ns() + int(LONGEST_S * 1e9)

        def taken(piece: bytes, at_ns: int) -> bool:
            return at_ns < last_ns and not leave_after and answer.recognise(piece, at_ns)

        while True:
            at_ns = inbox.received_ns
            if piece:
                answer.take(piece, at_ns)
            if leave_after and stream.times_ns and sum(stream.tokens) >= leave_after:
                raise ClientLeft(sum(stream.tokens))
            if body.ended:
                stream.ended_ns = at_ns
                return head
            if at_ns > last_ns:
                said = f"the answer has not ended in {asked(LONGEST_S)} s"
                raise RequestFailure("timeout", said)
            piece = connection.wait(taken)
            if not piece:
                stream.ended_ns = inbox.received_ns
                return self._closed(body, head)

    def _read_head(self, connection: KeptConnection, received: bytes) -> tuple[Head, bytes]:
        """The head of an answer that is a stream, and what came of its body.

        Raises:
            RequestFailure: `http_STATUS`, or `not_streamed`.
        """
        data = received
        while True:
            while (end := data.find(HEAD_END)) < 0:
                if not (piece := connection.wait()):
                    raise StreamEnd("the server closed the connection before it answered")
                data += piece
            end += len(HEAD_END)
            head = parse_head(data[:end])
            if not head.interim:
                break
            data = data[end:]
        if head.status == OK and head.content_type.startswith(EVENT_STREAM):
            return head, data[end:]
        message = read_message(data, connection.wait)
        words = message.body[:WORDS_OF_A_REFUSAL].decode(errors="replace") or "(no message)"
        if head.status != OK:
            later = head.retry_after.decode(errors="replace")
            wait = f" (Retry-After: {later})" if later else ""
            raise RequestFailure(f"http_{head.status}", words + wait)
        kind = head.content_type.decode(errors="replace") or "no content type"
        said = f"a stream was asked for, and the answer came in one ({kind}): {words}"
        raise RequestFailure("not_streamed", said)

    def _closed(self, body: ArrivingBody, head: Head) -> Head:
        if not body.close():
            raise StreamEnd("the server closed the connection in the middle of its answer")
        return head

    def _too_late(self) -> RequestFailure:
        return late_token(self._target, self.stream, self._timeout_s)


def late_token(target: Target, stream: TokenStream, timeout_s: float) -> RequestFailure:
    """The failure of an answer whose next token did not come in time: `timeout` or `stalled`."""
    if not stream.times_ns:
        return too_late(target, "token from", timeout_s)
    had = sum(stream.tokens)
    if stream.done:
        said = f"{target.authority}: the answer of {had} tokens was not ended behind [DONE]"
        return RequestFailure("unfinished", said)
    said = f"{target.authority}: no token for {asked(timeout_s)} s after {had} had come"
    return RequestFailure("stalled", said)
