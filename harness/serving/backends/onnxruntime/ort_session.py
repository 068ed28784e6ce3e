"""From a Triton model configuration to an ONNX Runtime session.

The keys, their defaults and their meaning are those of NVIDIA's C++ backend (`onnxruntime_backend`,
release 24.10), so that one `config.pbtxt` means the same on both servers. This file runs in the
server's environment: it imports nothing of the harness.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""`optimization { graph { level } }`; any other number means all optimizations, as in C++."""

SESSION_ENTRIES = ("session.use_device_allocator_for_initializers",)
RUN_ENTRIES = ("memory.enable_memory_arena_shrinkage",)
KNOWN_PARAMETERS = frozenset(
    {
        "execution_mode",
        "intra_op_thread_count",
        "inter_op_thread_count",
        "enable_mem_arena",
        "enable_mem_pattern",
        "optimization.graph.level",
        *SESSION_ENTRIES,
        *RUN_ENTRIES,
    }
)

# Triton's names of tensor types, and ONNX Runtime's names of the same.
TENSOR_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
    "TYPE_STRING": "tensor(string)",
}


class ConfigurationError(ValueError):
    """The configuration and the model, or this machine, do not fit."""


def parameters_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The configuration's `parameters`, as plain strings."""
    return {key: item["string_value"] for key, item in config.get("parameters", {}).items()}


def session_options(config: Mapping[str, Any]) -> ort.SessionOptions:
    """ONNX Runtime's options as the configuration asks for them.

    Raises:
        ConfigurationError: a parameter's value is not one that the C++ backend would take.
    """
    parameters = parameters_of(config)
    options = ort.SessionOptions()
    options.graph_optimization_level = _graph_level(config, parameters)
    options.execution_mode = _execution_mode(parameters)
    intra, inter = (
        _integer(parameters, f"{scope}_op_thread_count") for scope in ("intra", "inter")
    )
    if intra > 0:
        options.intra_op_num_threads = intra
    if inter > 0:
        options.inter_op_num_threads = inter
    if "enable_mem_arena" in parameters:
        options.enable_cpu_mem_arena = _boolean(parameters, "enable_mem_arena")
    if "enable_mem_pattern" in parameters:
        options.enable_mem_pattern = _boolean(parameters, "enable_mem_pattern")
    for key in SESSION_ENTRIES:
        if key in parameters:
            options.add_session_config_entry(key, parameters[key])
    return options


def run_options(config: Mapping[str, Any]) -> ort.RunOptions | None:
    """Options of each run, or None where the configuration sets none."""
    parameters = parameters_of(config)
    wanted = [key for key in RUN_ENTRIES if key in parameters]
    if not wanted:
        return None
    options = ort.RunOptions()
    for key in wanted:
        options.add_run_config_entry(key, parameters[key])
    return options


def providers(
    kind: str, device_id: int, available: Sequence[str], config: Mapping[str, Any]
) -> list[Any]:
    """Execution providers for an instance of this kind, the wanted one first.

    Args:
        kind: Triton's `CPU` or `GPU`.
        device_id: The GPU's number.
        available: What the installed onnxruntime offers.
        config: The model configuration, whose GPU accelerators are added as in C++.

    Raises:
        ConfigurationError: a provider is asked for that this onnxruntime was built without.
    """
    if kind != "GPU":
        return ["CPUExecutionProvider"]
    device = {"device_id": device_id}
    wanted: list[tuple[str, dict[str, Any]]] = [("CUDAExecutionProvider", device)]
    for accelerator in gpu_accelerators(config):
        if accelerator.get("name") == "tensorrt":
            given = accelerator.get("parameters", {})
            wanted.insert(0, ("TensorrtExecutionProvider", device | _tensorrt_options(given)))
    for provider, _ in wanted:
        if provider not in available:
            raise ConfigurationError(
                f"the configuration asks for {provider} (KIND_GPU), but the embedded server's "
                f"onnxruntime offers only {', '.join(available)}: use KIND_CPU here, or NVIDIA's "
                "container for GPUs"
            )
    return [*wanted, "CPUExecutionProvider"]


def gpu_accelerators(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What the configuration names under `gpu_execution_accelerator`."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    named: Sequence[Mapping[str, Any]] = accelerators.get("gpu_execution_accelerator", ())
    return named


def _tensorrt_options(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The C++ backend's parameters, in the provider's own names."""
    options: dict[str, Any] = {
        "trt_fp16_enable": parameters.get("precision_mode", "FP32") == "FP16",
        "trt_int8_enable": parameters.get("precision_mode") == "INT8",
    }
    if "max_workspace_size_bytes" in parameters:
        options["trt_max_workspace_size"] = int(parameters["max_workspace_size_bytes"])
    for name in ("trt_engine_cache_enable", "trt_engine_cache_path"):
        if name in parameters:
            options[name] = parameters[name]
    return options


def model_file(config: Mapping[str, Any], repository: str, version: str) -> str:
    """Path of the model: `<repository>/<version>/<default_model_filename or model.onnx>`."""
    name = config.get("default_model_filename") or "model.onnx"
    path = Path(repository) / version / name
    return str(path / "model.onnx" if path.is_dir() else path)


def unhonoured(config: Mapping[str, Any], kind: str) -> Iterator[str]:
    """What the configuration asks for and this backend cannot give, in words."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for place, wanted in accelerators.items():
        honoured = kind == "GPU" and place == "gpu_execution_accelerator"
        known = {"cuda", "tensorrt"} if honoured else set()
        names = ", ".join(item.get("name", "?") for item in wanted if item.get("name") not in known)
        if names:
            yield f"optimization.execution_accelerators.{place} ({names})"
    for key in sorted(set(parameters_of(config)) - KNOWN_PARAMETERS):
        yield f"parameters['{key}']"


def check_tensors(config: Mapping[str, Any], session: ort.InferenceSession, path: str) -> None:
    """Refuse a configuration that names other tensors than the model has.

    Raises:
        ConfigurationError: every input and output that is missing, unknown or of another type.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    problems = [
        *_disagreements("input", config.get("input", []), inputs),
        *_disagreements("output", config.get("output", []), outputs),
    ]
    configured = {item["name"] for item in config.get("input", [])}
    problems += [
        f"the model needs the input '{node.name}', which the configuration does not name"
        for node in inputs
        if node.name not in configured
    ]
    if problems:
        raise ConfigurationError(f"config.pbtxt and {path} do not fit: {'; '.join(problems)}")


def _disagreements(what: str, configured: Sequence[Mapping[str, Any]], nodes: Any) -> Iterator[str]:
    types = {node.name: node.type for node in nodes}
    for item in configured:
        name, data_type = item["name"], item["data_type"]
        if name not in types:
            yield f"the model has no {what} '{name}' (it has {', '.join(types)})"
        elif types[name] != TENSOR_TYPES.get(data_type):
            yield f"{what} '{name}' is {types[name]} in the model, {data_type} in config.pbtxt"


def _graph_level(config: Mapping[str, Any], parameters: Mapping[str, str]) -> Any:
    level = _integer(parameters, "optimization.graph.level")
    graph = config.get("optimization", {}).get("graph", {})
    return GRAPH_LEVELS.get(int(graph.get("level", 0)) or level, GRAPH_LEVELS[0])


def _execution_mode(parameters: Mapping[str, str]) -> Any:
    mode = _integer(parameters, "execution_mode")
    if mode not in (0, 1):
        raise ConfigurationError(f"parameter 'execution_mode' must be 0 or 1, not {mode}")
    modes = ort.ExecutionMode
    return modes.ORT_PARALLEL if mode else modes.ORT_SEQUENTIAL


def _integer(parameters: Mapping[str, str], key: str) -> int:
    text = parameters.get(key, "0")
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"parameter '{key}' must be an integer, not '{text}'") from None


def _boolean(parameters: Mapping[str, str], key: str) -> bool:
    text = parameters[key].lower()
    if text not in ("true", "1", "false", "0"):
        raise ConfigurationError(
            f"parameter '{key}' must be true or false, not '{parameters[key]}'"
        )
    return text in ("true", "1")
