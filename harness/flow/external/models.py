"""An external server's models: loaded as a study configures them, and put back afterwards."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import ServerError
from harness.serving.external.server import THREADS, ExternalServer
from harness.serving.repository import accelerator_parameters
from harness.types import Accelerator, ModelVariant, ServingConfig

_ONNX_RUNTIME = "onnxruntime"


class ExternalModels:
    """A `ModelControl` by Triton's model repository extension.

    Args:
        server: takes orders (Triton with --model-control-mode=explicit).
        configs: the whole configuration of each model as it was found, by its name there.
        not_loaded: those that were not loaded when they were found.
    """

    def __init__(
        self,
        server: ExternalServer,
        configs: Mapping[str, Mapping[str, Any]],
        not_loaded: frozenset[str],
    ) -> None:
        self._server = server
        self._configs = configs
        self._not_loaded = not_loaded
        self._touched: dict[str, bool] = {}
        """Whether each model that was loaded or unloaded here is loaded now."""

    def load(self, variant: ModelVariant, serving: ServingConfig) -> None:
        """Load a variant under a serving configuration; all else stays as its owner wrote it."""
        name = variant.served_name
        self._touched[name] = True
        config = with_serving(self._configs[name], serving, variant)
        self._server.load(name, json.dumps(config))

    def unload(self, variant: ModelVariant) -> None:
        """Unload a variant."""
        self._touched[variant.served_name] = False
        self._server.unload(variant.served_name)

    def try_it(self, name: str) -> str:
        """Load a model as it is; returns why the server does not take such orders, or nothing."""
        self._touched[name] = True
        try:
            self._server.load(name, json.dumps(self._configs[name]))
        except ServerError as error:
            del self._touched[name]
            return str(error)
        return ""

    def put_back(self) -> None:
        """Leave every model as it was found.

        Raises:
            ServerError: of the first that could not be; the others were tried.
        """
        failed: ServerError | None = None
        for name, is_loaded in self._touched.items():
            try:
                if name not in self._not_loaded:
                    self._server.load(name, json.dumps(self._configs[name]))
                elif is_loaded:
                    self._server.unload(name)
            except ServerError as error:
                failed = failed or ServerError(
                    f"the model '{name}' could not be restored: {error}",
                    next_step="load it there by hand",
                )
        if failed:
            raise failed


def with_serving(
    config: Mapping[str, Any], serving: ServingConfig, variant: ModelVariant
) -> dict[str, Any]:
    """A model's configuration, in protobuf's JSON mapping, under a serving configuration.

    The kind of its instances, their GPUs (Triton's count is that of each) and what else its owner
    chose are kept; so is a maximum batch of 0,
    which makes its shapes whole ones, and with it no batcher can be. Preferred batch sizes and
    warm-ups above the new maximum go, as Triton would refuse them. The response cache is on where
    the serving configuration says so, and off otherwise: a model is to be measured. An accelerator
    is set as on our own server; where the serving configuration names none, the owner's
    stays.
    """
    changed = copy.deepcopy(dict(config))
    if int(changed.get("max_batch_size", 0)):
        _set_batching(changed, serving)
    group = _one_group(changed.get("instance_group") or ())
    changed["instance_group"] = [group | {"count": serving.instance_count}]
    if _ONNX_RUNTIME in {changed.get("backend"), *str(changed.get("platform", "")).split("_")}:
        parameters = changed.setdefault("parameters", {})
        parameters[THREADS] = {"string_value": str(serving.intra_op_threads)}
        if serving.accelerator is not Accelerator.NONE:
            optimization = changed.setdefault("optimization", {})
            accelerators = optimization.setdefault("execution_accelerators", {})
            told = accelerator_parameters(serving.accelerator, variant)
            accelerators["gpu_execution_accelerator"] = [
                {"name": str(serving.accelerator), "parameters": told}
            ]
    changed.pop("response_cache", None)
    if serving.response_cache:
        changed["response_cache"] = {"enable": True}
    return changed


def _one_group(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The owner's groups as one, on the GPUs of all: else only the first's would be measured."""
    answering = [dict(one) for one in groups if not one.get("passive")] or [{}]
    first = answering[0]
    alike = [one for one in answering if one.get("kind") == first.get("kind") == "KIND_GPU"]
    gpus = list(dict.fromkeys(gpu for one in alike for gpu in one.get("gpus") or ()))
    return first | ({"gpus": gpus} if all(one.get("gpus") for one in alike) and gpus else {})


def _set_batching(changed: dict[str, Any], serving: ServingConfig) -> None:
    """Maximum batch and queue delay of a model that batches."""
    largest = serving.max_batch_size
    before = int(changed["max_batch_size"])
    changed["max_batch_size"] = largest
    batching = changed.get("dynamic_batching") or {}
    batching["max_queue_delay_microseconds"] = serving.queue_delay_us
    # Triton itself writes down the maximum as the one preferred size where its owner names none.
    preferred = [
        size
        for size in batching.pop("preferred_batch_size", ())
        if int(size) <= largest and int(size) != before
    ]
    changed["dynamic_batching"] = batching | (
        {"preferred_batch_size": preferred} if preferred else {}
    )
    changed["model_warmup"] = [
        one for one in changed.get("model_warmup", ()) if int(one.get("batch_size", 0)) <= largest
    ]
