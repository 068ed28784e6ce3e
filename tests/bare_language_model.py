"""A language model as transformers runs it, with the outputs of a served one; and its server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATATYPES = {"token_logprobs": "FP32", "greedy_token_ids": "INT64"}


class Bare:
    """A checkpoint asked as transformers asks it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        import torch

        ids = torch.tensor(inputs["input_ids"])
        with torch.inference_mode():
            found = self.model(ids, attention_mask=torch.tensor(inputs["attention_mask"])).logits
        scores = found.log_softmax(-1)
        own = scores[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        return {
            "token_logprobs": np.pad(own.numpy(), ((0, 0), (1, 0))),
            "greedy_token_ids": scores.argmax(-1).numpy(),
        }


class LanguageServer:
    """A KServe v2 server over HTTP with JSON bodies and one language model, `lm-fp32`.

    It tells the same of every model: only its answers say which one it has.
    """

    def __init__(self, model: Bare, port: int) -> None:
        self.model = model
        self.url = f"http://127.0.0.1:{port}"
        self.rows = 0
        """Asked so far."""
        self.exchange_after: tuple[int, Bare] | None = None
        """Rows after which another model answers."""

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {
            one["name"]: np.array(one["data"], np.int64).reshape(one["shape"])
            for one in request["inputs"]
        }
        if self.exchange_after is not None and self.rows >= self.exchange_after[0]:
            self.model = self.exchange_after[1]
        self.rows += len(inputs["input_ids"])
        outputs = [
            {
                "name": name,
                "datatype": DATATYPES[name],
                "shape": list(values.shape),
                "data": values.ravel().tolist(),
            }
            for name, values in self.model.infer("lm-fp32", inputs).items()
        ]
        return {"model_name": "lm-fp32", "outputs": outputs}

    def told(self, path: str) -> dict[str, Any] | None:
        if path == "/v2":
            return {"name": "somebody's", "version": "1", "extensions": []}
        if path == "/v2/models/lm-fp32":
            names = ("input_ids", "attention_mask")
            return {
                "name": "lm-fp32",
                "versions": ["1"],
                "inputs": [{"name": n, "datatype": "INT64", "shape": [-1, -1]} for n in names],
                "outputs": [
                    {"name": n, "datatype": t, "shape": [-1, -1]} for n, t in DATATYPES.items()
                ],
            }
        ready = {"/v2/health/live", "/v2/health/ready", "/v2/models/lm-fp32/ready"}
        return {} if path in ready else None


@contextmanager
def language_server(folder: Path) -> Iterator[LanguageServer]:
    """Serve a checkpoint for the length of a `with`."""
    server: LanguageServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Tests are quiet."""

        def do_GET(self) -> None:
            self._send(server.told(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = self.path == "/v2/models/lm-fp32/infer"
            self._send(server.answer(json.loads(body)) if found else None)

        def _send(self, document: Mapping[str, Any] | None) -> None:
            body = json.dumps(document if document is not None else {"error": "not here"}).encode()
            self.send_response(404 if document is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server = LanguageServer(Bare(folder), listening.server_address[1])
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
