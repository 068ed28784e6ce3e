"""Anybody's KServe v2 server over HTTP, by the standard library's own client.

Inference uses the binary tensor extension, since JSON has no half precision; it is written here
apart from the transports under load, so that what they misread does not agree with itself.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from harness.errors import ServerError
from harness.serving.endpoint import CONTROL_TIMEOUT_S, Endpoint
from harness.serving.remote import CALL_TIMEOUT_S, Address, Tensors, check_alive

_HEADER_LENGTH = "Inference-Header-Content-Length"
_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Message
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status == HTTPStatus.OK

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def words(self) -> str:
        """What the server said, in one line."""
        said = self.document().get("error") or HTTPStatus(self.status).phrase
        return f"HTTP {self.status}: {' '.join(str(said).split())}"


class HttpServer:
    """A `RemoteServer` over HTTP or HTTPS; proxies of the environment are not used.

    Args:
        address: the server.

    Raises:
        UsageError: the certificates to trust cannot be read.
    """

    pid: int | None = None

    def __init__(self, address: Address) -> None:
        self._address = address
        self._base = f"{'https' if address.encrypted else 'http'}://{address.authority}"
        self.endpoint = Endpoint(http=address.authority, grpc="", metrics="")
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if address.encrypted:
            context = address.tls_context("http/1.1")
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def check(self) -> None:
        """Make sure that it still accepts connections."""
        check_alive(self._address)

    def close(self) -> None:
        """Nothing stays open."""

    def not_live(self) -> str:
        """Why it takes no requests; empty where it does."""
        reply = self._call("/v2/health/live")
        if reply.ok:
            return ""
        if reply.status in _REFUSED:
            return f"it refuses this client ({reply.words()})"
        if reply.status == HTTPStatus.NOT_FOUND:
            return "it knows no /v2/health/live: it is no KServe v2 server"
        return f"it says that it is not live ({reply.words()})"

    def model_ready(self, model: str) -> bool:
        """Whether it has this model loaded."""
        return self._call(f"{_model(model)}/ready").ok

    def models(self) -> dict[str, str] | None:
        """The state of each model of its repository; None where it has no index."""
        reply = self._call("/v2/repository/index", b"{}")
        if not reply.ok:
            return None
        try:
            return {one["name"]: one.get("state", "") for one in json.loads(reply.body)}
        except (ValueError, TypeError, KeyError):
            return None

    def metadata(self, model: str) -> dict[str, Any]:
        """Of a model."""
        return self._ask(_model(model), f"no metadata of the model '{model}'")

    def config(self, model: str) -> dict[str, Any] | None:
        """Triton's configuration of a model; None where the server tells none."""
        reply = self._call(f"{_model(model)}/config")
        return reply.document() if reply.ok else None

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model.

        Raises:
            ServerError: the server does not answer, or keeps none.
        """
        what = f"no statistics of the model '{model}'"
        entries = self._ask(f"{_model(model)}/stats", what).get("model_stats")
        if not entries:
            raise ServerError(what)
        entry: dict[str, Any] = entries[0]
        return entry

    def load(self, model: str) -> None:
        """Have a model of its repository loaded; returns when it is ready.

        Raises:
            ServerError: with the server's own message.
        """
        path = f"/v2/repository/models/{quote(model, safe='')}/load"
        reply = self._call(path, b"{}", timeout_s=CONTROL_TIMEOUT_S)
        if not reply.ok:
            raise ServerError(f"the server could not load the model '{model}': {reply.words()}")

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One request.

        Raises:
            ServerError: with the server's own message, or an answer that is not of KServe v2.
        """
        header, body = _encoded(inputs)
        headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))}
        reply = self._call(f"{_model(model)}/infer", header + body, headers)
        if not reply.ok:
            raise ServerError(f"the server could not answer for '{model}': {reply.words()}")
        try:
            return _decoded(reply)
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"'{model}' answered with no KServe v2 tensors: {error!r}") from error

    def _ask(self, path: str, what: str) -> dict[str, Any]:
        reply = self._call(path)
        if not reply.ok:
            raise ServerError(f"{what}: {reply.words()}")
        return reply.document()

    def _call(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> _Reply:
        """GET, or POST where there is a body; an answer of any status is an answer."""
        everything = {**dict(self._address.headers), **(headers or {})}
        request = urllib.request.Request(self._base + path, body, everything)  # noqa: S310  (http or https: made here)
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                return _Reply(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return _Reply(error.code, error.headers, error.read())
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ServerError(f"no answer from {self._base}: {reason}") from error
        except HTTPException as error:
            raise ServerError(
                f"what answers at {self._base} does not speak HTTP",
                next_step="name another port, or grpc:// where it is a gRPC one",
            ) from error


def _model(name: str) -> str:
    return f"/v2/models/{quote(name, safe='')}"


def _encoded(inputs: Tensors) -> tuple[bytes, bytes]:
    tensors = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": np_to_triton_dtype(array.dtype),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    return header.encode(), b"".join(array.tobytes() for array in inputs.values())


def _decoded(reply: _Reply) -> dict[str, NDArray[Any]]:
    """Outputs by name; those that numpy has no number for (BYTES, BF16) are left out."""
    at = int(reply.headers.get(_HEADER_LENGTH, len(reply.body)))
    outputs = {}
    for one in json.loads(reply.body[:at])["outputs"]:
        size = int(one["parameters"]["binary_data_size"])
        elements, (at, data) = one["datatype"], (at + size, reply.body[at : at + size])
        if elements not in {"BYTES", "BF16"}:
            array = np.frombuffer(data, triton_to_np_dtype(elements))
            outputs[one["name"]] = array.reshape(one["shape"])
    return outputs
