"""A server that is already up and is not ours: what may be asked of it, and what it says of models.

A model is loaded there only where a person chose it from the server's own repository.

What a client of any KServe v2 server may ask (https://github.com/kserve/open-inference-protocol),
with Triton's extensions (model configuration, statistics, repository) where it has them.
`remote_http` and `remote_grpc` speak the two protocols.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from harness.errors import ServerError
from harness.serving.endpoint import Endpoint
from harness.system.connections import connect
from harness.types import Accelerator, ServingConfig, TensorSpec

CALL_TIMEOUT_S = 30.0
ALIVE_TIMEOUT_S = 1.0
READY = "READY"
NO_KSERVE = "is it a KServe v2 server?"
BINARY_TENSORS = "binary_tensor_data"
"""Name of the extension in a server's metadata."""
REMOTE_DIGEST = "remote:"
"""Begins what stands in for the SHA-256 of an artefact that only its server has."""
THREADS = "intra_op_thread_count"
"""ONNX Runtime's parameter in a model's configuration."""
_SWEPT = (
    *("max_batch_size", "dynamic_batching", "instance_group", "optimization", "model_warmup"),
    "response_cache",
)
"""What a serving configuration changes: not part of which model it is."""
_EXPECTED = re.compile(r"restricted, expecting header '([^']+)'")
Tensors = Mapping[str, NDArray[Any]]


class Address(Protocol):
    """Where the server is and how to speak to it: what `harness.load`'s `Target` says."""

    @property
    def host(self) -> str:
        """The host's name or number."""

    @property
    def port(self) -> int:
        """Port of the protocol in use."""

    @property
    def authority(self) -> str:
        """The address as `HOST:PORT`."""

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers that are sent with every request."""

    @property
    def ca_file(self) -> Path | None:
        """Certificates to trust; None trusts the system's."""

    @property
    def verify(self) -> bool:
        """Whether the certificate is checked; False accepts any."""

    @property
    def prefix(self) -> str:
        """Prefix of every HTTP path."""

    @property
    def binary(self) -> bool:
        """False sends tensors over HTTP as JSON."""

    def tls_context(self, alpn: str) -> ssl.SSLContext:
        """Client-side TLS; UsageError where the certificates cannot be read."""


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself; empty where it says nothing."""

    name: str = ""
    version: str = ""
    extensions: tuple[str, ...] = ()
    told: bool = True
    """False where it answers no such question: it may have any extension."""

    @property
    def words(self) -> str:
        """The server's name and version."""
        return f"{self.name} {self.version}".strip() or "a server that does not say which"


class ExternalServer(Protocol):
    """A running external server. All methods raise ServerError where it does not answer."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers, as far as it is known."""

    @property
    def pid(self) -> int | None:
        """Always None: the server's process is not watched."""

    def check(self) -> None:
        """Make sure that it still accepts connections."""

    def close(self) -> None:
        """Give up what is open; closing twice is fine."""

    def not_live(self) -> str:
        """Why it takes no requests; empty where it does.

        Asked is whether it lives: Triton calls itself ready only while *every* model that it was
        told to load is, and one that somebody else broke is no reason not to measure another.
        One that does not let this client ask may still answer: its first request will show.
        """

    @property
    def asked_for(self) -> tuple[str, ...]:
        """Headers without which it refused something so far, as Triton names them."""

    def facts(self) -> ServerFacts:
        """The server's name, version and extensions, as `GET /v2` gives them."""

    def model_ready(self, model: str) -> bool:
        """Whether it has this model loaded, as far as this client may ask."""

    def models(self) -> dict[str, str] | None:
        """The state of each model of its repository; None where it has no index."""

    def metadata(self, model: str) -> dict[str, Any] | None:
        """A model's metadata, as `GET /v2/models/M` gives it; None where the server has none."""

    def config(self, model: str) -> dict[str, Any] | None:
        """Triton's configuration of a model; None where the server tells none."""

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model; ServerError where the server keeps none."""

    def infer(self, model: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """One request; outputs that are not numbers are left out."""

    def load(self, model: str, config: str | None = None) -> None:
        """Load a model, or reload it with a whole configuration in JSON (Triton's extension)."""

    def unload(self, model: str) -> None:
        """Unload a model (Triton's extension)."""


@dataclass(frozen=True)
class ExternalModel:
    """A loaded model as its server describes it."""

    name: str
    inputs: tuple[TensorSpec, ...]
    """Shapes as the metadata has them, the batch dimension included where there is one; none where
    the server does not say."""
    outputs: tuple[TensorSpec, ...]
    serving: ServingConfig
    """0 where the server does not say."""
    identity: str = ""
    """Stands in for the artefact's digest: see `identity_of`."""
    config: Mapping[str, Any] | None = None
    """Triton's configuration of it; None where the server tells none."""
    doubt: str = ""
    """What speaks against its being there, where only a request can tell; empty: it is."""

    @property
    def optional(self) -> frozenset[str]:
        """Inputs that may be left out; of a model whose configuration is not told, each may be."""
        if self.config is None:
            return frozenset(one.name for one in self.inputs)
        declared = self.config.get("input") or ()
        return frozenset(str(one.get("name")) for one in declared if one.get("optional"))


def describe(server: ExternalServer, model: str) -> ExternalModel:
    """Ask a server about a model that is ready; what it does not tell stays empty.

    Raises:
        ServerError: it does not answer, or with something that is not metadata.
    """
    metadata = server.metadata(model) or {"name": model}
    try:
        _ = metadata["name"]  # all that any server gives
        inputs, outputs = (_specs(metadata.get(side) or ()) for side in ("inputs", "outputs"))
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(
            f"what is answered for the model '{model}' is not metadata of KServe v2",
            next_step="name the port of a KServe v2 server: Triton's are 8000 (HTTP), 8001 (gRPC)",
        ) from error
    config = server.config(model)
    return ExternalModel(
        model,
        inputs,
        outputs,
        serving_of(config or {}),
        identity_of(server.facts(), metadata, config),
        config,
    )


def identity_of(
    facts: ServerFacts, metadata: Mapping[str, Any], config: Mapping[str, Any] | None
) -> str:
    """What a server says of a model, whose file cannot be read: `remote:` and a digest.

    Of the server's name and version, the model's name, its versions, its tensors, and its
    configuration but for what a serving configuration changes. A file that was replaced under the
    same version number is not seen by it: `harness.flow.external.identity` adds the
    address and what the model answers.
    """
    kept = {key: value for key, value in (config or {}).items() if key not in _SWEPT}
    kept["parameters"] = {
        key: value for key, value in kept.get("parameters", {}).items() if key != THREADS
    }
    versions = metadata.get("versions") or []
    sides = [metadata.get(side) or [] for side in ("inputs", "outputs")]
    told = [facts.name, facts.version, metadata.get("name"), versions, sides, kept]
    text = json.dumps(told, sort_keys=True, default=str)
    return REMOTE_DIGEST + hashlib.sha256(text.encode()).hexdigest()


def serving_of(config: Mapping[str, Any]) -> ServingConfig:
    """What a model configuration, in protobuf's JSON mapping, says of how the model is served.

    That mapping leaves out what is zero and may write numbers as text. A model without a batcher
    (`max_batch_size` 0) takes one request at a time, whatever its rows.
    """
    groups = config.get("instance_group", ())
    kinds = [str(group.get("kind", "")) for group in groups]
    batcher = config.get("dynamic_batching") or {}
    threads = config.get("parameters", {}).get(THREADS, {}).get("string_value", 0)
    return ServingConfig(
        max_batch_size=int(config.get("max_batch_size", 0)),
        queue_delay_us=int(batcher.get("max_queue_delay_microseconds", 0)),
        instance_count=sum(map(_instances, groups)),
        instance_kind="gpu" if "KIND_GPU" in kinds else "cpu",
        intra_op_threads=int(threads) if str(threads).isdigit() else 0,
        accelerator=_accelerator(config),
        response_cache=bool((config.get("response_cache") or {}).get("enable")),
    )


def _instances(group: Mapping[str, Any]) -> int:
    """How many instances of a group answer: on GPUs `count` is that of each; passive ones wait."""
    if group.get("passive"):
        return 0
    places = len(group.get("gpus") or ()) if group.get("kind") == "KIND_GPU" else 1
    return int(group.get("count", 1)) * max(1, places)


def _accelerator(config: Mapping[str, Any]) -> Accelerator:
    """The first that the configuration names and a study can name too."""
    accelerators = (config.get("optimization") or {}).get("execution_accelerators") or {}
    named = [one.get("name") for one in accelerators.get("gpu_execution_accelerator", ())]
    return next((one for one in Accelerator if one in named), Accelerator.NONE)


def states_of(told: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The state of each model: an index tells of each version, and one that is ready is enough."""
    states: dict[str, str] = {}
    for name, state in told:
        if states.get(name) != READY:
            states[name] = state
    return states


def refusal(address: Address, words: str, challenge: str = "") -> ServerError:
    """A server that does not take who asks: which headers it was sent, and what it asks for."""
    sent = ", ".join(name for name, _ in address.headers)
    with_what = f"it was sent {sent}" if sent else "no --header was sent"
    wanted = f"; it asks for {challenge}" if challenge else ""
    return ServerError(
        f"the server at {address.authority} refuses this client: {words} ({with_what}{wanted})",
        next_step=header_step(words),
    )


def header_asked_for(words: str) -> str:
    """The header that Triton names where an API is restricted; empty where nothing names one.

    Started with `--http-restricted-api` or `--grpc-restricted-protocol` it says "This API is
    restricted, expecting header 'admin-key'".
    """
    match = _EXPECTED.search(words)
    return match[1] if match else ""


def header_step(words: str) -> str:
    """What to do about a refusal with these words."""
    header = header_asked_for(words)
    named = f"{header}: VALUE" if header else "Authorization: Bearer ..."
    return f"name what it asks for: --header '{named}'"


def connecting_step(words: str) -> str:
    """What to do about a connection that failed with these words; empty where nothing is known."""
    said = words.upper().replace(" ", "_")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "name the certificates to trust: --ca-file FILE.pem; or take any, unverified: "
            "--insecure"
        )
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER" in said:
        return "it speaks without encryption: write the address as http:// or grpc://"
    return ""


def check_alive(address: Address) -> None:
    """Make sure that a server still accepts connections; one that is merely slow is not dead.

    Raises:
        ServerError: its machine refuses them.
    """
    try:
        connect(address.host, address.port, timeout_s=ALIVE_TIMEOUT_S).close()
    except ConnectionRefusedError as error:
        raise ServerError(
            f"the server at {address.authority} is gone: it refuses connections",
            next_step="look at its log; the trial is lost",
        ) from error
    except OSError:
        return


class KserveClient:
    """What the clients of both protocols share; which headers were asked for is remembered.

    Args:
        address: the server.
    """

    pid: int | None = None
    """The process of an external server is not known here."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._asked_for: dict[str, None] = {}

    @property
    def asked_for(self) -> tuple[str, ...]:
        """Headers without which the server refused something so far."""
        return tuple(self._asked_for)

    def check(self) -> None:
        """Make sure that the server still accepts connections."""
        check_alive(self._address)

    def _note(self, words: str) -> bool:
        """Remember the header that a refusal asks for; False where it asks for none."""
        header = header_asked_for(words)
        if header:
            self._asked_for[header] = None
        return bool(header)


def _specs(tensors: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(one["name"], one["datatype"], tuple(int(size) for size in one["shape"]))
        for one in tensors
    )
