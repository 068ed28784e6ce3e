"""Anybody's KServe v2 server over HTTP, by the standard library's own client."""

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
from tritonclient.utils import (
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from harness.errors import ServerError
from harness.serving.endpoint import CONTROL_TIMEOUT_S, Endpoint, native
from harness.serving.external.server import (
    CALL_TIMEOUT_S,
    NO_KSERVE,
    Address,
    KserveClient,
    ServerFacts,
    Tensors,
    connecting_step,
    header_step,
    refusal,
    states_of,
)
from harness.system.connections import url_opener
from harness.types import answering_version

_UNKNOWN = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


@dataclass(frozen=True)
class _HttpReply:
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

    def step(self) -> str:
        """What to do about it, where it is a refusal."""
        return header_step(self.words()) if self.status == HTTPStatus.FORBIDDEN else ""


class HttpServer(KserveClient):
    """A `ExternalServer` over HTTP or HTTPS; proxies of the environment are not used.

    Args:
        address: the server.
        metrics: URL of its metrics page, where that is known.

    Raises:
        UsageError: the certificates to trust cannot be read.
    """

    def __init__(self, address: Address, metrics: str = "") -> None:
        super().__init__(address)
        scheme = "https" if address.encrypted else "http"
        self._base = f"{scheme}://{address.authority}{address.prefix}"
        self.endpoint = Endpoint(http=address.authority, grpc="", metrics=metrics)
        self._opener = url_opener(address.tls_context("http/1.1") if address.encrypted else None)

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def not_live(self) -> str:
        """Why it takes no requests; empty where it does."""
        reply = self._call("/v2/health/live")
        if reply.ok:
            return ""
        if reply.status == HTTPStatus.FORBIDDEN:
            return ""
        if reply.status in _UNKNOWN:
            return f"it knows no {self._address.prefix}/v2/health/live: {NO_KSERVE}"
        return f"it says that it is not live ({reply.words()})"

    def facts(self) -> ServerFacts:
        """The server's name, version and extensions."""
        reply = self._call("/v2")
        if not reply.ok:
            return ServerFacts(told=False)
        told = reply.document()
        extensions = tuple(map(str, told.get("extensions") or ()))
        return ServerFacts(str(told.get("name", "")), str(told.get("version", "")), extensions)

    def model_ready(self, model: str) -> bool:
        """Whether it has this model loaded, as far as this client may ask."""
        reply = self._call(f"{_model(model)}/ready")
        return reply.ok or reply.status == HTTPStatus.FORBIDDEN

    def models(self) -> dict[str, str] | None:
        """The state of each model of its repository; None where it has no index."""
        reply = self._call("/v2/repository/index", b"{}")
        if not reply.ok:
            return None
        try:
            told = [(one["name"], str(one.get("state", ""))) for one in json.loads(reply.body)]
        except (ValueError, TypeError, KeyError):
            return None
        return states_of(told)

    def metadata(self, model: str) -> dict[str, Any] | None:
        """A model's metadata (its inputs and outputs); None where the server tells none."""
        reply = self._call(_model(model))
        if reply.status in {*_UNKNOWN, HTTPStatus.FORBIDDEN}:
            return None
        if not reply.ok:
            raise ServerError(f"no metadata of the model '{model}': {reply.words()}")
        return reply.document()

    def config(self, model: str) -> dict[str, Any] | None:
        """Triton's configuration of a model; None where the server tells none."""
        reply = self._call(f"{_model(model)}/config")
        return reply.document() if reply.ok else None

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model, of the version that answers.

        Raises:
            ServerError: the server does not answer, or keeps none.
        """
        what = f"no statistics of the model '{model}'"
        entries = self._ask(f"{_model(model)}/stats", what).get("model_stats")
        if not entries:
            raise ServerError(what)
        by_version: dict[str, dict[str, Any]] = {
            str(one.get("version", "")): one for one in entries
        }
        return by_version[answering_version(by_version)]

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One request.

        Raises:
            ServerError: with the server's own message, or an answer that is not of KServe v2.
        """
        split, body = encode(inputs, binary=self._address.binary)
        headers = {"Content-Type": "application/json"}
        if split is not None:
            headers = {
                "Content-Type": "application/octet-stream", HEADER_LENGTH: str(split)
            }  # fmt: skip
        reply = self._call(f"{_model(model)}/infer", body, headers)
        if not reply.ok:
            words = f"the server could not answer for '{model}': {reply.words()}"
            raise ServerError(words, next_step=reply.step())
        at = reply.headers.get(HEADER_LENGTH)
        try:
            return decode(reply.body, int(at) if at else None)
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"'{model}' answered with no KServe v2 tensors: {error!r}") from error

    def load(self, model: str, config: str | None = None) -> None:
        """Load a model, or reload it with a whole configuration in JSON.

        Raises:
            ServerError: with the server's own message.
        """
        parameters = {} if config is None else {"parameters": {"config": config}}
        self._control(model, "load", parameters)

    def unload(self, model: str) -> None:
        """Unload a model.

        Raises:
            ServerError: with the server's own message.
        """
        self._control(model, "unload", {})

    def _control(self, model: str, verb: str, parameters: Mapping[str, Any]) -> None:
        path = f"/v2/repository/models/{quote(model, safe='')}/{verb}"
        reply = self._call(path, json.dumps(parameters).encode(), timeout_s=CONTROL_TIMEOUT_S)
        if not reply.ok:
            words = f"the server could not {verb} the model '{model}': {reply.words()}"
            raise ServerError(words, next_step=reply.step())

    def _ask(self, path: str, what: str) -> dict[str, Any]:
        reply = self._call(path)
        if not reply.ok:
            raise ServerError(f"{what}: {reply.words()}", next_step=reply.step())
        return reply.document()

    def _call(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> _HttpReply:
        """GET, or POST where there is a body; an answer of any status but a refusal is one."""
        everything = {**dict(self._address.headers), **(headers or {})}
        request = urllib.request.Request(self._base + path, body, everything)  # noqa: S310  (http or https: made here)
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                return _HttpReply(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            reply = _HttpReply(error.code, error.headers, error.read())
            if reply.status == HTTPStatus.FORBIDDEN:
                self._note(reply.words())
            if reply.status == HTTPStatus.UNAUTHORIZED:
                challenge = str(reply.headers.get("WWW-Authenticate") or "")
                raise refusal(self._address, reply.words(), challenge) from error
            return reply
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ServerError(
                f"no answer from {self._base}: {reason}", next_step=connecting_step(str(reason))
            ) from error
        except HTTPException as error:
            raise ServerError(
                f"what answers at {self._base} does not speak HTTP",
                next_step="name another port, or grpc:// where it is a gRPC one",
            ) from error


def _model(name: str) -> str:
    return f"/v2/models/{quote(name, safe='')}"


HEADER_LENGTH = "Inference-Header-Content-Length"


def encode(inputs: Tensors, *, binary: bool) -> tuple[int | None, bytes]:
    """Length of the JSON header (None: it is all JSON), and the body.

    Raises:
        ServerError: bytes that are no text, to a server that takes JSON alone.
    """
    arrays = {name: native(array) for name, array in inputs.items()}
    tensors: list[dict[str, Any]] = [
        {"name": name, "shape": list(array.shape), "datatype": np_to_triton_dtype(array.dtype)}
        for name, array in arrays.items()
    ]
    if not binary:
        for tensor, array in zip(tensors, arrays.values(), strict=True):
            tensor["data"] = _json_elements(tensor["name"], array)
        return None, json.dumps({"inputs": tensors}).encode()
    raw = [_raw(array) for array in arrays.values()]
    for tensor, content in zip(tensors, raw, strict=True):
        tensor["parameters"] = {"binary_data_size": len(content)}
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    return len(header), header + b"".join(raw)


def _raw(array: NDArray[Any]) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return bytes(serialize_byte_tensor(array).item()) if array.size else b""


def _json_elements(name: str, array: NDArray[Any]) -> list[Any]:
    elements: list[Any] = array.flatten().tolist()
    try:
        return [one.decode() if isinstance(one, bytes) else one for one in elements]
    except UnicodeDecodeError as error:
        raise ServerError(
            f"the input {name} holds bytes that are no UTF-8 text, which JSON cannot carry: {error}"
        ) from error


def decode(body: bytes, header_length: int | None) -> dict[str, NDArray[Any]]:
    """Outputs by name; bfloat16 as float32, and BYTES, which are no numbers, left out.

    Raises:
        KeyError, TypeError, ValueError: it is not an answer of KServe v2.
    """
    at = len(body) if header_length is None else header_length
    outputs = {}
    for one in json.loads(body[:at])["outputs"]:
        size = 0 if "data" in one else int(one["parameters"]["binary_data_size"])
        at, raw = at + size, body[at : at + size]
        if one["datatype"] == "BYTES":
            continue
        elements = triton_to_np_dtype(one["datatype"])
        array = np.array(one["data"], elements) if "data" in one else np.frombuffer(raw, elements)
        if one["datatype"] == "BF16":
            array = array.astype(np.float32)
        outputs[one["name"]] = array.reshape(one["shape"])
    return outputs
