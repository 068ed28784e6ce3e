"""An HTTP/2 server that does as a test says, frame by frame, and notes all that it gets.

Its frames and header blocks are made and read by `hyperframe` and `hpack`, not by the harness.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hpack
from hyperframe import frame as frames
from tritonclient.grpc import service_pb2

from harness.load.transports.address import Target

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ANSWER_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK_TRAILERS = [("grpc-status", "0")]

Fields = list[tuple[str, str]]


@dataclass(frozen=True)
class Request:
    stream_id: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's end of one connection."""

    def __init__(self, connected: socket.socket, *, table_size: int = 0) -> None:
        self._socket = connected
        self._decoder = hpack.Decoder()
        self.encoder = hpack.Encoder()
        self.encoder.header_table_size = table_size
        self.got: list[Any] = []
        """Every frame that came, in order."""
        self.split = 0
        """Send in pieces of this many bytes; 0 in one."""

    def greet(self, settings: dict[int, int] | None = None) -> None:
        """Take the client's preface, send our settings."""
        assert self._read(len(PREFACE)) == PREFACE
        self.send(frames.SettingsFrame(0, settings=settings or {}))

    def receive(self) -> Any:
        """One frame."""
        header = self._read(9)
        frame, length = frames.Frame.parse_frame_header(memoryview(header))
        frame.parse_body(memoryview(self._read(length)))
        self.got.append(frame)
        return frame

    def wait_for(self, kind: type, **attributes: Any) -> Any:
        """Read on until such a frame comes."""
        while True:
            frame = self.receive()
            same = all(getattr(frame, name) == value for name, value in attributes.items())
            if isinstance(frame, kind) and same:
                return frame

    def request(self) -> Request:
        """Read one whole request."""
        head = self.wait_for(frames.HeadersFrame)
        fields = dict(self._decoder.decode(head.data))
        body, ended = b"", False
        while not ended:
            data = self.wait_for(frames.DataFrame, stream_id=head.stream_id)
            body += data.data
            ended = "END_STREAM" in data.flags
        return Request(head.stream_id, fields, body)

    def send(self, *sent: Any) -> None:
        """Frames, or bytes as they are."""
        data = b"".join(one if isinstance(one, bytes) else one.serialize() for one in sent)
        step = self.split or len(data)
        for start in range(0, len(data), step):
            self._socket.sendall(data[start : start + step])

    def headers(self, stream_id: int, fields: Fields, *flags: str) -> Any:
        """A HEADERS frame."""
        block = self.encoder.encode(fields)
        return frames.HeadersFrame(stream_id, block, flags=["END_HEADERS", *flags])

    def answer(
        self,
        stream_id: int,
        body: bytes | None = None,
        *,
        headers: Fields = ANSWER_HEADERS,
        trailers: Fields = OK_TRAILERS,
    ) -> None:
        """Answer a request in the ordinary way."""
        data = envelope(infer_response()) if body is None else body
        # In this order, because the encoder has state.
        self.send(
            self.headers(stream_id, headers),
            frames.DataFrame(stream_id, data),
            self.headers(stream_id, trailers, "END_STREAM"),
        )

    def serve(self, count: int = 1) -> list[Request]:
        """Answer so many requests."""
        requests = []
        for _ in range(count):
            requests.append(self.request())
            self.answer(requests[-1].stream_id)
        return requests

    def wait_for_end(self) -> None:
        """Read until the client closes."""
        try:
            while True:
                self.receive()
        except OSError:
            pass

    def reset(self) -> None:
        """Close with a TCP reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        """Close in good order."""
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise ConnectionResetError("the client has gone")
            data += piece
        return data


class ScriptedServer:
    """Runs one script a connection, in their order; `target` is its address.

    What a script raises fails the test when the server is left.
    """

    def __init__(self, *scripts: Callable[[Peer], None]) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = Target("127.0.0.1", self._listener.getsockname()[1])
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive(), "the script still waits for the client"

    def _run(self) -> None:
        for script in self._scripts:
            connected, _ = self._listener.accept()
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.settimeout(15)
            peer = Peer(connected)
            self.peers.append(peer)
            try:
                script(peer)
            except (OSError, AssertionError, ValueError, hpack.HPACKError) as error:
                self.errors.append(error)
            finally:
                peer.close()


@contextmanager
def scripted_server(*scripts: Callable[[Peer], None]) -> Iterator[ScriptedServer]:
    """A server for the length of a `with`."""
    server = ScriptedServer(*scripts)
    server.start()
    yield server
    server.stop()
    assert not server.errors, server.errors


def raw_frame(kind: int, stream_id: int, body: bytes, *, flags: int = 0) -> bytes:
    """A frame that `hyperframe` would refuse to make."""
    return struct.pack(">IBI", len(body) << 8 | kind, flags, stream_id) + body


def envelope(message: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """gRPC's prefix and the message."""
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


def infer_response(values: bytes = bytes(8), *, name: str = "logits", **fields: Any) -> bytes:
    """A serialised `ModelInferResponse` with one output."""
    response = service_pb2.ModelInferResponse(model_name="m", model_version="1", **fields)
    response.outputs.add(name=name, datatype="FP32", shape=[1, len(values) // 4])
    response.raw_output_contents.append(values)
    serialised: bytes = response.SerializeToString()
    return serialised
