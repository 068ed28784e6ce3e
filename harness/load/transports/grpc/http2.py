"""HTTP/2 over one socket, one request at a time: just what unary gRPC needs, and cheap.

After RFC 9113. A general client (grpcio, h2 under httpx) costs several times the CPU per request,
which would be taken from the server under test wherever both share a machine. What makes this
one cheap: requests come framed already and only get their stream's number; the windows for
answers are opened so wide that they are topped up once a gigabyte; equal header blocks are decoded
once; an answer that looks like an earlier one is recognised whole (`recognition.py`); a deadline
is a watchdog's business (`sockets.py`).

Left out on purpose: the peer's limit of concurrent streams (there is one), its limit of header
lists, priorities, push. An answer of more than 2 GiB would not fit its stream's window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.load.transports.address import Target
from harness.load.transports.contract import Layout, next_id, stamped
from harness.load.transports.grpc import frames
from harness.load.transports.grpc.frame_socket import FrameSocket
from harness.load.transports.grpc.frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PADDED,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    Frame,
    Http2Violation,
)
from harness.load.transports.grpc.headers import HeaderBlocks
from harness.load.transports.grpc.http2_stream import (
    Stream,
    cut_request,
    frames_within,
    number_frames,
    split_frame,
)
from harness.load.transports.recognition import WholeAnswers
from harness.load.transports.sockets import ReadWaiter, Taken, open_socket

TOP_UP_BYTES = 2**30


class Http2Connection:
    """Sends framed requests and collects their answers; made by `open`."""

    def __init__(self, wire: FrameSocket) -> None:
        self._wire = wire
        self._whole_answers = WholeAnswers()
        self._header_blocks = HeaderBlocks(on_change=self._whole_answers.forget)
        self._stream = Stream(-1, 0)  # the one before the first
        self._stream.ended = True
        self._send_window = self._new_stream_window = frames.FIRST_WINDOW_BYTES
        self._received_bytes = 0
        """DATA since the connection's window was last topped up."""
        self._only_kind: int | None = SETTINGS
        """The kind of frame that must come next: a greeting first, a continuation where begun."""
        self._is_retiring = False
        """The server will take no new stream."""

    @classmethod
    def open(
        cls, target: Target, *, timeout_s: float, waiter: ReadWaiter | None = None
    ) -> Http2Connection:
        """Connect, greet, and wait for the server's own greeting.

        Raises:
            OSError: no connection; a TimeoutError if that is for want of time.
            Http2Violation: whoever answers does not speak HTTP/2.
        """
        connected = open_socket(target, alpn="h2", timeout_s=timeout_s)
        connection = cls(FrameSocket(connected, timeout_s=timeout_s, waiter=waiter))
        try:
            connection._greet()
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def received_ns(self) -> int:
        """CLOCK_MONOTONIC when the last bytes came."""
        return self._wire.inbox.received_ns

    def is_ready(self) -> bool:
        """Whether a request may be sent; false if the server has said, or shown, that it leaves.

        Raises:
            Http2Violation: what the server sent meanwhile is not HTTP/2.
        """
        if self._wire.is_idle():
            try:
                self._read_news()
            except OSError:
                return False
        # A stream that has not ended was given up half-way: nobody knows what comes next.
        is_whole = self._stream.ended and not self._is_retiring
        return is_whole and self._stream.number + 2 <= frames.LARGEST_STREAM_ID

    @property
    def identity(self) -> bytes:
        """The id of the request that was last sent; empty before the first."""
        return self._stream.identity

    def exchange(self, request: bytes) -> Stream:
        """Send a request on the next stream and wait until that stream has ended.

        Args:
            request: a HEADERS frame and DATA frames as `frame_request` makes them.

        Raises:
            TimeoutError: the answer did not come in time.
            OSError: the connection broke, or the server refuses further streams.
            Http2Violation: the answer is not HTTP/2.
            In all three cases the connection must be closed.
        """
        stream = self._stream = Stream(self._stream.number + 2, self._new_stream_window)
        with self._wire:
            self._send(request, stream)
            self._receive(stream)
        return stream

    def exchange_as_it_comes(
        self,
        request: bytes,
        take: Callable[[Sequence[bytes], int], bool],
        recognise: Taken,
        heard_ns: Callable[[], int],
    ) -> Stream:
        """Send a request on the next stream, and hand its body on piece by piece until it ends.

        The time that is given to a connection's exchange begins anew with each piece that is news.

        Args:
            request: as `exchange` takes it.
            take: given the pieces that came together, and when (CLOCK_MONOTONIC); false cancels the
                stream. What it raises leaves the connection of no use.
            recognise: given a piece that came alone, before `take`, which need not see it if true.
            heard_ns: says when the last news came.

        Raises:
            OSError, Http2Violation: as `exchange`.
        """
        stream = self._stream = Stream(self._stream.number + 2, self._new_stream_window)

        def taken(piece: bytes, at_ns: int) -> bool:
            payload = frames.data_alone(piece, stream.number)
            if not payload or not recognise(payload, at_ns):
                return False
            self._received_bytes += len(payload)  # topped up with the next frame that is read
            return True

        with self._wire:
            self._wire.renew(heard_ns)
            self._send(request, stream)
            # An answer may begin, and even end, while the request still waits for a window.
            while stream.pieces or not stream.ended:
                if not stream.pieces:
                    in_body = stream.headers is not None and self._only_kind is None
                    self._act(self._wire.receive(taken if in_body else None))
                    continue
                came, stream.pieces = stream.pieces, []
                if not stream.ended:
                    more = self._wire.received_data(stream.number)
                    self._count_received(sum(map(len, more)))
                    came += more
                if not take(came, self.received_ns):
                    self._wire.send(frames.make_rst_stream(stream.number, ErrorCode.CANCEL))
                    stream.take_reset(ErrorCode.CANCEL)
            for frame in self._wire.received():
                self._act(frame)
        return stream

    def learn(self, stream: Stream, layout: Layout) -> None:
        """Recognise answers of this form from now on, if it came in one piece.

        Args:
            stream: an answer that is in order.
            layout: of its body.
        """
        if stream.piece is not None:
            is_settled = self._header_blocks.is_settled
            self._whole_answers.learn(stream.piece, layout, is_settled, stream.identity)

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR) -> None:
        """Close the connection, with a word to the server why."""
        self._wire.close(code)

    def _greet(self) -> None:
        with self._wire:
            self._wire.send(frames.CLIENT_GREETING)
            while self._only_kind is not None:
                self._act(self._wire.receive())

    def _read_news(self) -> None:
        with self._wire:
            self._wire.receive_what_came()
            for frame in self._wire.received():
                self._act(frame)

    # Sending

    def _send(self, request: bytes, stream: Stream) -> None:
        whole = cut_request(request)
        if whole and whole.data_bytes <= min(self._send_window, stream.send_window):
            self._send_window -= whole.data_bytes
            stream.identity = next_id() if whole.rest else b""
            self._wire.send(whole.on(stream.number.to_bytes(4, "big"), stream.identity))
            return
        request, stream.identity = stamped(request)
        framed = bytearray(request)
        data_at = frames.HEADER_BYTES + (request[1] << 8 | request[2])  # after the HEADERS frame
        number_frames(framed, stream.number)
        self._wire.send(framed[:data_at])
        self._send_in_windows(framed, data_at, stream)

    def _send_in_windows(self, framed: bytearray, at: int, stream: Stream) -> None:
        """Send DATA frames from an offset on, as fast as the server's flow control lets them go."""
        while at < len(framed) and not stream.ended:
            window = min(self._send_window, stream.send_window)
            end, data_bytes = frames_within(framed, at, window)
            if end > at:
                self._wire.send(memoryview(framed)[at:end])
                at = end
            elif window > 0:
                self._wire.send(split_frame(framed, at, window))
                at, data_bytes = at + window, window
            else:
                self._act(self._wire.receive())
            self._send_window -= data_bytes
            stream.send_window -= data_bytes
        if at < len(framed) and stream.reset is None:
            # Answered before all was said: the server need not wait for the rest.
            self._wire.send(frames.make_rst_stream(stream.number, ErrorCode.CANCEL))

    # Receiving

    def _receive(self, stream: Stream) -> None:
        """Wait for the whole answer: one that looks like an earlier one, or any other."""
        piece = None if stream.ended else self._wire.receive_whole()
        if piece is not None:
            number = stream.number.to_bytes(4, "big")
            known = self._whole_answers.recall(piece, number, stream.identity)
            if known is not None:
                stream.answer, data_bytes, wider = known
                stream.ended = True
                self._count_received(data_bytes)
                if wider:
                    self._widen(0, int.from_bytes(wider, "big"))
                return
            self._wire.put_back(piece)
        while not stream.ended:
            self._act(self._wire.receive())
        for frame in self._wire.received():  # what came behind the answer, a PING perhaps
            self._act(frame)
        if piece is not None and self._wire.was_whole(piece):
            stream.piece = piece

    def _act(self, frame: Frame) -> None:
        """Do what a frame asks for."""
        kind, flags, number, payload = frame
        if self._only_kind is not None:
            self._check_is_due(frame)
        if kind == DATA:
            self._take_data(flags, number, payload)
        elif kind == HEADERS:
            self._take_headers(kind, flags, number, payload)
        else:
            self._act_on_control(kind, flags, number, payload)

    def _check_is_due(self, frame: Frame) -> None:
        kind, flags, _, payload = frame
        if kind != self._only_kind and self._only_kind == CONTINUATION:
            raise Http2Violation("a header block is interrupted")
        if self._only_kind == SETTINGS and (kind != SETTINGS or flags & frames.ACK):
            raise Http2Violation(f"what answers does not speak HTTP/2: {payload[:40]!r}")
        self._only_kind = None

    def _take_headers(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        # Decoded whatever the stream: the decoder's state is the connection's.
        block = self._header_blocks.take(kind, flags, number, payload)
        if block is None:
            self._only_kind = CONTINUATION
        elif number == self._stream.number:
            headers, last = block
            self._stream.take_headers(headers, last=bool(last))
        else:
            self._check_was_opened(number)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        self._count_received(len(payload))
        if flags & PADDED:
            payload = frames.without_padding(flags, payload)
        if number == self._stream.number:
            self._stream.take_data(payload, last=bool(flags & END_STREAM))
        else:
            self._check_was_opened(number)

    def _count_received(self, size: int) -> None:
        """Give back what the server's DATA, padding included, took from the connection's window."""
        self._received_bytes += size
        if self._received_bytes >= TOP_UP_BYTES:
            self._wire.send(frames.make_window_update(0, self._received_bytes))
            self._received_bytes = 0

    def _act_on_control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._widen(number, frames.read_number("WINDOW_UPDATE", payload))
        elif kind == frames.PING:
            self._answer_ping(flags, number, payload)
        elif kind == frames.SETTINGS:
            self._apply_settings(flags, number, payload)
        elif kind == frames.RST_STREAM:
            self._note_reset(number, frames.read_number("RST_STREAM", payload))
        elif kind == CONTINUATION:
            self._take_headers(kind, flags, number, payload)
        elif kind == frames.GOAWAY:
            self._retire(payload)
        elif kind == frames.PUSH_PROMISE:
            raise Http2Violation("a push, which was forbidden")
        # Frames of other kinds are ignored (section 4.1), PRIORITY among them.

    def _widen(self, number: int, increment: int) -> None:
        """WINDOW_UPDATE: the server takes more, of one stream or of all."""
        is_ours = number == self._stream.number
        if number and not is_ours:
            self._check_was_opened(number)
            return
        window = (self._stream.send_window if is_ours else self._send_window) + increment
        if not increment or window > frames.LARGEST_WINDOW_BYTES:
            raise Http2Violation(
                f"a window made wider by {increment}, to {window}", ErrorCode.FLOW_CONTROL_ERROR
            )
        if is_ours:
            self._stream.send_window = window
        else:
            self._send_window = window

    def _answer_ping(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != frames.PING_BYTES:
            raise Http2Violation(f"PING of {len(payload)} bytes", ErrorCode.FRAME_SIZE_ERROR)
        if number:
            raise Http2Violation("PING on a stream")
        if not flags & frames.ACK:
            self._wire.send(frames.make_frame(frames.PING, frames.ACK, 0, payload))

    def _apply_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Http2Violation("SETTINGS on a stream")
        if flags & frames.ACK:
            return
        settings = frames.read_settings(payload)
        window = settings.get(frames.SETTING_INITIAL_WINDOW_SIZE, self._new_stream_window)
        if window > frames.LARGEST_WINDOW_BYTES:
            raise Http2Violation(f"a first window of {window} bytes", ErrorCode.FLOW_CONTROL_ERROR)
        self._stream.send_window += window - self._new_stream_window
        self._new_stream_window = window
        self._wire.send(frames.SETTINGS_ACK)

    def _note_reset(self, number: int, code: int) -> None:
        if number == self._stream.number:
            self._stream.take_reset(code)
        else:
            self._check_was_opened(number)

    def _retire(self, payload: bytes) -> None:
        """GOAWAY: the streams up to its number are still answered, and no new one."""
        self._is_retiring = True
        last_number, code, words = frames.read_goaway(payload)
        if not self._stream.ended and last_number < self._stream.number:
            said = words[:200].decode(errors="replace")
            raise ConnectionResetError(
                f"the server goes away ({frames.name_of(code)} {said}".rstrip() + ")"
            )

    def _check_was_opened(self, number: int) -> None:
        """Frames of an earlier stream may come late; of one that never was they may not."""
        if not 0 < number < self._stream.number or number % 2 == 0:
            raise Http2Violation(f"a frame for stream {number}, which was never opened")
