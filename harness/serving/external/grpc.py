"""Anybody's KServe v2 server over gRPC, by tritonclient."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from harness.errors import ServerError, UsageError
from harness.serving.endpoint import Endpoint, TritonClient
from harness.serving.external.server import (
    CALL_TIMEOUT_S,
    NO_KSERVE,
    Address,
    KserveClient,
    ServerFacts,
    Tensors,
    connecting_step,
    refusal,
    states_of,
)

_DIRECT = ("grpc.enable_http_proxy", 0)
_MISSING = ("StatusCode.UNIMPLEMENTED", "StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT")
_REFUSED = ("StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED")
_SILENT = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")


class GrpcServer(KserveClient):
    """A `ExternalServer` over gRPC, with TLS where the address asks for it.

    Args:
        address: the server.
        metrics: URL of its metrics page, where that is known.

    Raises:
        UsageError: the certificates to trust cannot be read, or the one to be taken unverified is
            not shown.
    """

    def __init__(self, address: Address, metrics: str = "") -> None:
        super().__init__(address)
        self.endpoint = Endpoint(http="", grpc=address.authority, metrics=metrics)
        self._client = open_client(address)
        self._triton = TritonClient(self.endpoint, self._client)

    def close(self) -> None:
        """Close the channel."""
        self._triton.close()

    def not_live(self) -> str:
        """Why it takes no requests; empty where it does."""
        with self._errors():
            try:
                live = self._client.is_server_live(client_timeout=CALL_TIMEOUT_S)
            except InferenceServerException as error:
                if self._is_restricted(error):
                    return ""
                if error.status() in {*_SILENT, *_REFUSED}:
                    raise
                return f"it knows no ServerLive ({_words(error)}): {NO_KSERVE}"
        return "" if live else "it says that it is not live"

    def facts(self) -> ServerFacts:
        """The server's name, version and extensions."""
        try:
            told = self._client.get_server_metadata(client_timeout=CALL_TIMEOUT_S)
        except InferenceServerException as error:
            self._is_restricted(error)
            return ServerFacts(told=False)
        return ServerFacts(told.name, told.version, tuple(told.extensions))

    def model_ready(self, model: str) -> bool:
        """Whether it has this model loaded, as far as this client may ask."""
        with self._errors():
            try:
                return bool(self._client.is_model_ready(model, client_timeout=CALL_TIMEOUT_S))
            except InferenceServerException as error:
                if error.status() in _MISSING:
                    return False
                if self._is_restricted(error):
                    return True
                raise

    def models(self) -> dict[str, str] | None:
        """The state of each model of its repository; None where it has no index."""
        try:
            index = self._client.get_model_repository_index(client_timeout=CALL_TIMEOUT_S)
        except InferenceServerException as error:
            self._is_restricted(error)
            return None
        # MLServer writes the name of its own enumeration: State.READY.
        return states_of((one.name, one.state.rpartition(".")[2]) for one in index.models)

    def metadata(self, model: str) -> dict[str, Any] | None:
        """A model's metadata (its inputs and outputs); None where the server tells none."""
        with self._errors():
            try:
                answer: dict[str, Any] = self._client.get_model_metadata(
                    model, as_json=True, client_timeout=CALL_TIMEOUT_S
                )
            except InferenceServerException as error:
                if error.status() in _MISSING or self._is_restricted(error):
                    return None
                raise
        return answer

    def config(self, model: str) -> dict[str, Any] | None:
        """Triton's configuration of a model; None where the server tells none."""
        try:
            answer = self._client.get_model_config(
                model, as_json=True, client_timeout=CALL_TIMEOUT_S
            )
        except InferenceServerException as error:
            self._is_restricted(error)
            return None
        config: dict[str, Any] = answer.get("config", {})
        return config

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model; ServerError where the server keeps none."""
        try:
            return self._triton.statistics(model)
        except ServerError as error:
            self._note(str(error))
            raise

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Send one request and return its outputs."""
        return self._triton.infer(model, inputs)

    def load(self, model: str, config: str | None = None) -> None:
        """Load a model, or reload it with a whole configuration in JSON."""
        self._triton.load(model, config)

    def unload(self, model: str) -> None:
        """Unload a model."""
        self._triton.unload(model)

    def _is_restricted(self, error: InferenceServerException) -> bool:
        """Whether this one thing is refused: Triton's word for it is UNAVAILABLE."""
        return error.status() == "StatusCode.PERMISSION_DENIED" or self._note(_words(error))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            words = _words(error)
            if error.status() in _REFUSED:
                raise refusal(self._address, words) from error
            raise ServerError(
                f"no answer from {self._address.authority} over gRPC: {words}",
                next_step=connecting_step(words),
            ) from error


class _Metadata(triton.InferenceServerClientPlugin):  # type: ignore[misc]  # of an untyped library
    """Sends the user's headers with every call; gRPC wants their names in lower case."""

    def __init__(self, headers: tuple[tuple[str, str], ...]) -> None:
        self._metadata = {
            name.lower(): base64.b64decode(value) if name.lower().endswith("-bin") else value
            for name, value in headers
        }

    def __call__(self, request: Any) -> None:
        request.headers = {**(request.headers or {}), **self._metadata}


def open_client(address: Address) -> triton.InferenceServerClient:
    """A client of it, with the address's certificates and headers.

    Raises:
        UsageError: as `GrpcServer`.
    """
    client = _connection(address)
    client.register_plugin(_Metadata(address.headers))
    return client


def _connection(address: Address) -> triton.InferenceServerClient:
    if not address.encrypted:
        return triton.InferenceServerClient(address.authority, channel_args=[_DIRECT])
    address.tls_context("h2")  # says in words what is wrong with the certificates
    arguments: list[tuple[str, Any]] = [_DIRECT]
    roots = address.ca_file.read_bytes() if address.ca_file else None
    if not address.verify:
        roots, name = _certificate_shown(address)
        arguments.append(("grpc.ssl_target_name_override", name))
    credentials = grpc.ssl_channel_credentials(root_certificates=roots)
    return triton.InferenceServerClient(
        address.authority, creds=credentials, ssl=True, channel_args=arguments
    )


def _certificate_shown(address: Address) -> tuple[bytes, str]:
    """The certificate that a server shows, and a name in it: grpcio cannot leave it unverified.

    Raises:
        UsageError: it shows none.
    """
    place = (address.host, address.port)
    try:
        pem = ssl.get_server_certificate(place, timeout=CALL_TIMEOUT_S)
        context = ssl.create_default_context(cadata=pem)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        with (
            socket.create_connection(place, CALL_TIMEOUT_S) as connected,
            context.wrap_socket(connected) as encrypted,
        ):
            certificate: dict[str, Any] = encrypted.getpeercert() or {}
    except OSError as error:
        raise UsageError(
            f"{address.authority} shows no certificate: {error}",
            next_step="a server without encryption is grpc://HOST:PORT",
        ) from error
    names = [value for _, value in certificate.get("subjectAltName", ())]
    return pem.encode(), next(iter(names), address.host).replace("*", "any")


def _words(error: InferenceServerException) -> str:
    """What gRPC said, in one line."""
    return " ".join(str(error.message()).split())
