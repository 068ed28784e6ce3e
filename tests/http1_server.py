"""A raw HTTP server whose every byte is scripted: each connection plays the next script."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np


def kserve_answer(
    *values: float, identity: str = "", extra: str = "", name: str = "logits", fields: str = ""
) -> bytes:
    """A whole answer with one FP32 output of shape (1, n).

    Args:
        values: the output's elements.
        identity: the JSON header's `id`; left out if empty.
        extra: a value for a member of it that means nothing; left out if empty.
        name: of the output.
        fields: more header fields, each with its line end.
    """
    raw = np.array(values, "<f4").tobytes()
    output = {
        "name": name,
        "datatype": "FP32",
        "shape": [1, len(values)],
        "parameters": {"binary_data_size": len(raw)},
    }
    description = {"model_name": "m", "outputs": [output]}
    more = {"id": identity, "more": extra}
    header = json.dumps({**{k: v for k, v in more.items() if v}, **description}).encode()
    head = (
        f"HTTP/1.1 200 OK\r\n{fields}Content-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\n"
        f"Content-Length: {len(header) + len(raw)}\r\n\r\n"
    )
    return head.encode() + header + raw


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket, requests: list[bytes]) -> None:
        self._connection = connection
        self._requests = requests
        self._buffer = b""

    def request(self) -> bytes:
        """Read one whole request; empty when the client has closed."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                return b""
        head = self._buffer.partition(b"\r\n\r\n")[0]
        size = int(head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0])
        while len(self._buffer) < len(head) + 4 + size:
            if not self._fill():
                return b""
        request = self._buffer[: len(head) + 4 + size]
        self._buffer = self._buffer[len(request) :]
        self._requests.append(request)
        return request

    def say(self, *pieces: bytes) -> None:
        """Send these bytes, each piece by itself."""
        for piece in pieces:
            self._connection.sendall(piece)

    def answer(self, *answers: bytes) -> None:
        """Answer one request after the other."""
        for answer in answers:
            if not self.request():
                return
            self.say(answer)

    def reset(self) -> None:
        """Break the connection without ceremony."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.close()

    def read_some(self) -> bytes:
        """Read whatever has come."""
        return self._connection.recv(1024)

    def wait_for_end(self) -> None:
        """Read on until the client hangs up."""
        while self._fill():
            self._buffer = b""

    def _fill(self) -> bool:
        with suppress(OSError):
            piece = self._connection.recv(65536)
            self._buffer += piece
            return bool(piece)
        return False


Script = Callable[[Peer], None]


class ScriptedServer:
    """Listens; the n-th connection plays the n-th script and is then closed.

    Args:
        scripts: one per connection; connections beyond them are closed at once.
        host: where to listen.
        tls: its certificate, for encryption.
    """

    def __init__(
        self, *scripts: Script, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[bytes] = []
        """Every request that was read, whole."""
        self.connections = 0
        self._scripts = scripts
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        port = self._listener.getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._play, args=(connection,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _play(self, connection: socket.socket) -> None:
        number, self.connections = self.connections, self.connections + 1
        connection.settimeout(10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), connection:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            if number < len(self._scripts):
                with connection:
                    self._scripts[number](Peer(connection, self.requests))


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for localhost and 127.0.0.1: its file, and a server's context."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return certificate, context
