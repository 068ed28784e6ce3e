"""A server that is already up and is not ours: looked at and asked, never configured.

A model is loaded there only where a person chose it from the server's own repository.

What a client of any KServe v2 server may ask (https://github.com/kserve/open-inference-protocol),
with Triton's extensions (model configuration, statistics, repository index) where it has them.
`remote_http` and `remote_grpc` speak the two protocols.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from harness.errors import ServerError
from harness.serving.endpoint import Endpoint
from harness.types import ServingConfig, TensorSpec

CALL_TIMEOUT_S = 30.0
ALIVE_TIMEOUT_S = 1.0
READY = "READY"
Tensors = Mapping[str, NDArray[Any]]


class Address(Protocol):
    """Where the server is and how to speak to it: what `harness.load`'s `Target` says."""

    @property
    def host(self) -> str:
        """Name or number."""

    @property
    def port(self) -> int:
        """Of the protocol that is spoken."""

    @property
    def authority(self) -> str:
        """HOST:PORT."""

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Sent with every request."""

    @property
    def ca_file(self) -> Path | None:
        """Certificates to trust; None trusts the system's."""

    @property
    def verify(self) -> bool:
        """False accepts any certificate."""

    def tls_context(self, alpn: str) -> ssl.SSLContext:
        """Client-side TLS; UsageError where the certificates cannot be read."""


class RemoteServer(Protocol):
    """A running server that is measured as it is. All methods raise ServerError without answer."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers, as far as it is known."""

    @property
    def pid(self) -> int | None:
        """None: its process is nobody's business here."""

    def check(self) -> None:
        """Make sure that it still accepts connections."""

    def close(self) -> None:
        """Give up what is open; closing twice is fine."""

    def not_live(self) -> str:
        """Why it takes no requests; empty where it does.

        Asked is whether it lives: Triton calls itself ready only while *every* model that it was
        told to load is, and one that somebody else broke is no reason not to measure another.
        """

    def model_ready(self, model: str) -> bool:
        """Whether it has this model loaded."""

    def models(self) -> dict[str, str] | None:
        """The state of each model of its repository; None where it has no index."""

    def metadata(self, model: str) -> dict[str, Any]:
        """Of a model, as `GET /v2/models/M` gives it."""

    def config(self, model: str) -> dict[str, Any] | None:
        """Triton's configuration of a model; None where the server tells none."""

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model; ServerError where the server keeps none."""

    def load(self, model: str) -> None:
        """Have a model of its repository loaded; returns when it is ready."""

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One request; outputs that are not numbers are left out."""


@dataclass(frozen=True)
class RemoteModel:
    """A loaded model as its server describes it."""

    name: str
    inputs: tuple[TensorSpec, ...]
    """Shapes as the metadata has them, the batch dimension included where there is one."""
    outputs: tuple[TensorSpec, ...]
    serving: ServingConfig
    """0 where the server does not say."""


def describe(server: RemoteServer, model: str) -> RemoteModel:
    """Ask a server about a model that is ready.

    Raises:
        ServerError: it does not answer, or its metadata has no tensors.
    """
    metadata = server.metadata(model)
    try:
        inputs, outputs = _specs(metadata["inputs"]), _specs(metadata["outputs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(
            f"what is answered for the model '{model}' is no metadata of KServe v2",
            next_step="name the port of a KServe v2 server: Triton's are 8000 (HTTP), 8001 (gRPC)",
        ) from error
    return RemoteModel(model, inputs, outputs, serving_of(server.config(model) or {}))


def serving_of(config: Mapping[str, Any]) -> ServingConfig:
    """What a model configuration, in protobuf's JSON mapping, says of how the model is served.

    That mapping leaves out what is zero and may write numbers as text. A model without a batcher
    (`max_batch_size` 0) takes one request at a time, whatever its rows.
    """
    groups = config.get("instance_group", ())
    kinds = [str(group.get("kind", "")) for group in groups]
    batcher = config.get("dynamic_batching") or {}
    threads = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", 0)
    return ServingConfig(
        max_batch_size=int(config.get("max_batch_size", 0)),
        queue_delay_us=int(batcher.get("max_queue_delay_microseconds", 0)),
        instance_count=sum(int(group.get("count", 1)) for group in groups),
        instance_kind="gpu" if "KIND_GPU" in kinds else "cpu",
        intra_op_threads=int(threads) if str(threads).isdigit() else 0,
    )


def check_alive(address: Address) -> None:
    """Make sure that a server still accepts connections; one that is merely slow is not dead.

    Raises:
        ServerError: its machine refuses them.
    """
    try:
        socket.create_connection((address.host, address.port), ALIVE_TIMEOUT_S).close()
    except ConnectionRefusedError as error:
        raise ServerError(
            f"the server at {address.authority} is gone: it refuses connections",
            next_step="look at its log; the trial is lost",
        ) from error
    except OSError:
        return


def _specs(tensors: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(one["name"], one["datatype"], tuple(int(size) for size in one["shape"]))
        for one in tensors
    )
