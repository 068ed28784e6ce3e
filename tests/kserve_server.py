"""A KServe v2 server that is not Triton: HTTP, with the binary extension if asked, no other.

No configuration, no statistics, no index. It answers one model, `doubled`: each number twice.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

HEADER_LENGTH = "Inference-Header-Content-Length"
METADATA = {
    "name": "doubled",
    "inputs": [{"name": "numbers", "datatype": "FP32", "shape": [-1, -1]}],
    "outputs": [{"name": "twice", "datatype": "FP32", "shape": [-1, -1]}],
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    authorization = ""
    binary = True
    prefix = ""
    bare = False
    restricted = ""

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""

    def do_GET(self) -> None:
        ready = {"/v2/health/live", "/v2/models/doubled/ready"}
        if self._refused():
            return
        if self.restricted and self.headers.get(self.restricted) != "yes":
            said = f"This API is restricted, expecting header '{self.restricted}'"
            self._send(403, json.dumps({"error": said}).encode())
            return
        if not self.path.startswith(self.prefix) or self.bare:
            self._send(404, b"<html>nothing here</html>")
            return
        self.path = self.path.removeprefix(self.prefix)
        if self.path in ready:
            self._send(200, b"")
        elif self.path == "/v2":
            extensions = ["binary_tensor_data"] if self.binary else []
            told = {"name": "doubler", "version": "0.1", "extensions": extensions}
            self._send(200, json.dumps(told).encode())
        elif self.path == "/v2/models/doubled":
            self._send(200, json.dumps(METADATA).encode())
        else:
            self._send(404, b'{"error": "not here"}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._refused():
            return
        if self.path != f"{self.prefix}/v2/models/doubled/infer":
            self._send(404, b'{"error": "not here"}')
            return
        if not self.binary:
            self._answer_json(body)
            return
        at = int(self.headers[HEADER_LENGTH])
        (tensor,) = json.loads(body[:at])["inputs"]
        twice = (2 * np.frombuffer(body[at:], np.float32)).tobytes()
        output = {**METADATA["outputs"][0], "shape": tensor["shape"]}
        output["parameters"] = {"binary_data_size": len(twice)}
        header = json.dumps({"model_name": "doubled", "outputs": [output]}).encode()
        self._send(200, header + twice, {HEADER_LENGTH: str(len(header))})

    def _answer_json(self, body: bytes) -> None:
        if HEADER_LENGTH in self.headers:
            self._send(422, b'{"error": "what is this after the JSON?"}')
            return
        (tensor,) = json.loads(body)["inputs"]
        twice = [2 * number for number in tensor["data"]]
        output = {**METADATA["outputs"][0], "shape": tensor["shape"], "data": twice}
        self._send(200, json.dumps({"model_name": "doubled", "outputs": [output]}).encode())

    def _refused(self) -> bool:
        wrong = self.authorization and self.headers.get("Authorization") != self.authorization
        if wrong:
            self._send(401, b'{"error": "who are you?"}')
        return bool(wrong)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def kserve_server(
    *,
    tls: ssl.SSLContext | None = None,
    authorization: str = "",
    binary: bool = True,
    prefix: str = "",
    bare: bool = False,
    restricted: str = "",
) -> Iterator[int]:
    """Run it for the length of a `with`; yields its port.

    Args:
        tls: its certificate, for encryption.
        authorization: the header without which it refuses everything.
        binary: whether it takes binary tensors; else it refuses them, as MLServer does.
        prefix: of every path.
        bare: it answers inference, and nothing else.
        restricted: the header without which it answers inference alone, in Triton's words.
    """
    kind = {
        "authorization": authorization,
        "binary": binary,
        "prefix": prefix,
        "bare": bare,
        "restricted": restricted,
    }
    handler = type("Handler", (_Handler,), kind)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
