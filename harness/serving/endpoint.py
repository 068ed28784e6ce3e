"""The endpoint of a running Triton, embedded or not, over gRPC: control, statistics, inference."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
from google.protobuf import json_format
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from harness.errors import ServerError
from harness.types import TensorSpec, answering_version

CONTROL_TIMEOUT_S = 300.0
"""Seconds for loading a model: large ones take minutes."""
CALL_TIMEOUT_S = 60.0

# In the statistics these are text; every other text there is a 64-bit integer, as protobuf's JSON
# mapping writes those.
_TEXT_FIELDS = frozenset({"name", "version"})


@dataclass(frozen=True)
class Endpoint:
    """The addresses at which a server answers."""

    http: str
    """host:port; empty where a server that is not ours is known by its other side alone."""
    grpc: str
    """Address of the gRPC side, as host:port."""
    metrics: str
    """URL of the Prometheus page; empty where it is not known."""


LIVE_TIMEOUT_S = 2.0


def is_live(endpoint: Endpoint) -> bool:
    """Whether a server answers `GET /v2/health/live` with 200, over HTTP, within 2 s."""
    connection = http.client.HTTPConnection(endpoint.http, timeout=LIVE_TIMEOUT_S)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class TritonClient:
    """Control and inference over one gRPC channel; may be shared by threads.

    Args:
        endpoint: where the server answers.
        connection: tritonclient's own, for a server that wants encryption or headers.
    """

    def __init__(
        self, endpoint: Endpoint, connection: triton.InferenceServerClient | None = None
    ) -> None:
        self.endpoint = endpoint
        self._client = connection or triton.InferenceServerClient(endpoint.grpc)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def ready(self) -> bool:
        """Whether the server answers and is ready."""
        try:
            return bool(self._client.is_server_ready(client_timeout=CALL_TIMEOUT_S))
        except InferenceServerException:
            return False

    def load(self, model: str, config: str | None = None) -> None:
        """Load a model, or reload it with another configuration, and wait until it is ready.

        A model that is loaded already and whose files have not changed stays as it is, an override
        included: to return to the repository's `config.pbtxt`, unload it first.

        Args:
            model: The model's name: its folder in the repository.
            config: The whole configuration as JSON; the repository's `config.pbtxt` by default.

        Raises:
            ServerError: with Triton's own message.
        """
        with _triton_errors(f"Triton could not load the model '{model}'"):
            self._client.load_model(model, config=config, client_timeout=CONTROL_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Unload a model; returns before the last request in flight is answered.

        Raises:
            ServerError: with Triton's own message.
        """
        with _triton_errors(f"Triton could not unload the model '{model}'"):
            self._client.unload_model(model, client_timeout=CONTROL_TIMEOUT_S)

    def metadata(self, model: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The model's inputs and outputs, without the batch dimension.

        Raises:
            ServerError: there is no such model, or the server does not answer.
        """
        with _triton_errors(f"no metadata of the model '{model}'"):
            described = self._client.get_model_metadata(model, client_timeout=CALL_TIMEOUT_S)
            answer = self._client.get_model_config(model, client_timeout=CALL_TIMEOUT_S)
        skipped = 1 if answer.config.max_batch_size > 0 else 0

        def specs(tensors: Any) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(t.name, t.datatype, tuple(t.shape[skipped:])) for t in tensors)

        return specs(described.inputs), specs(described.outputs)

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model, as `GET /v2/models/M/stats` gives them.

        Of the version that answers where several are loaded, as all here speaks of that one.
        Durations are in nanoseconds; counters that are zero are there.

        Raises:
            ServerError: there is no such model, or the server does not answer.
        """
        with _triton_errors(f"no statistics of the model '{model}'"):
            answer = self._client.get_inference_statistics(model, client_timeout=CALL_TIMEOUT_S)
        by_version = {entry.version: entry for entry in answer.model_stats}
        if not by_version:
            raise ServerError(f"no statistics of the model '{model}': it has no version loaded")
        data = json_format.MessageToDict(
            by_version[answering_version(by_version)],
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        return {key: _as_integers(key, value) for key, value in data.items()}

    def infer(
        self, model: str, inputs: Mapping[str, np.ndarray[Any, Any]]
    ) -> dict[str, np.ndarray[Any, Any]]:
        """One request.

        Args:
            model: The model's name.
            inputs: Arrays by input name; they have the batch dimension if the model has one.

        Returns:
            Every output by name, read-only.

        Raises:
            ServerError: with Triton's own message, or an output without data.
        """
        with _triton_errors(f"Triton could not answer for the model '{model}'"):
            tensors = [_input(name, array) for name, array in inputs.items()]
            result = self._client.infer(model, tensors, client_timeout=CALL_TIMEOUT_S)
        outputs = {}
        for output in result.get_response().outputs:
            array = result.as_numpy(output.name)
            if array is None:
                raise ServerError(f"the model '{model}' answered without data in '{output.name}'")
            outputs[output.name] = array.astype(np.float32) if output.datatype == "BF16" else array
        return outputs


@contextmanager
def _triton_errors(what: str) -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        raise ServerError(f"{what}: {error.message()}") from error


def native(array: NDArray[Any]) -> NDArray[Any]:
    """In the machine's own order of bytes, and texts as objects, as tritonclient takes them."""
    if array.dtype.kind in "SU":
        return array.astype(object)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _input(name: str, array: np.ndarray[Any, Any]) -> triton.InferInput:
    array = native(array)
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def _as_integers(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _as_integers(inner, item) for inner, item in value.items()}
    if isinstance(value, list):
        return [_as_integers(key, item) for item in value]
    if isinstance(value, str) and key not in _TEXT_FIELDS:
        return int(value)
    return value
