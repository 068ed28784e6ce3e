"""The backend's reading of a Triton configuration, with the ONNX Runtime of this environment."""

from pathlib import Path

import onnxruntime as ort
import pytest
from ort_session import (
    ConfigurationError,
    check_tensors,
    model_file,
    providers,
    run_options,
    session_options,
    unhonoured,
)
from tiny_model import write_tiny_model

LEVELS = ort.GraphOptimizationLevel


def config(**parameters: str) -> dict:
    """A configuration as Triton hands it over: parameters by their dotted name, `__` for `.`."""
    named = {key.replace("__", "."): {"string_value": v} for key, v in parameters.items()}
    return {"parameters": named}


def test_defaults_are_onnx_runtimes():
    options, default = session_options({}), ort.SessionOptions()
    assert options.intra_op_num_threads == default.intra_op_num_threads
    assert options.inter_op_num_threads == default.inter_op_num_threads
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert options.graph_optimization_level == LEVELS.ORT_ENABLE_ALL
    assert run_options({}) is None


def test_thread_counts_and_execution_mode():
    options = session_options(
        config(intra_op_thread_count="3", inter_op_thread_count="2", execution_mode="1")
    )
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 2
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (-1, LEVELS.ORT_ENABLE_BASIC),
        (0, LEVELS.ORT_ENABLE_ALL),
        (1, LEVELS.ORT_ENABLE_EXTENDED),
        (2, LEVELS.ORT_DISABLE_ALL),
        (7, LEVELS.ORT_ENABLE_ALL),
    ],
)
def test_graph_levels_mean_what_they_mean_in_the_container(level, expected):
    by_field = session_options({"optimization": {"graph": {"level": level}}})
    by_parameter = session_options(config(optimization__graph__level=str(level)))
    assert by_field.graph_optimization_level == expected
    assert by_parameter.graph_optimization_level == expected


def test_memory_options():
    options = session_options(config(enable_mem_arena="0", enable_mem_pattern="false"))
    assert options.enable_cpu_mem_arena is False
    assert options.enable_mem_pattern is False
    key = "session.use_device_allocator_for_initializers"
    assert (
        session_options(
            config(session__use_device_allocator_for_initializers="1")
        ).get_session_config_entry(key)
        == "1"
    )
    shrinkage = "memory.enable_memory_arena_shrinkage"
    options = run_options(config(memory__enable_memory_arena_shrinkage="cpu:0"))
    assert options.get_run_config_entry(shrinkage) == "cpu:0"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("execution_mode", "2"),
        ("intra_op_thread_count", "many"),
        ("enable_mem_arena", "perhaps"),
    ],
)
def test_impossible_values_are_named(key, value):
    with pytest.raises(ConfigurationError, match=f"'{key}'.*{value}"):
        session_options(config(**{key: value}))


def test_what_cannot_be_honoured_is_named():
    asked = config(intra_op_thread_count="1", cudnn_conv_algo_search="1")
    asked["optimization"] = {
        "execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}
    }
    assert list(unhonoured(asked, "GPU")) == ["parameters['cudnn_conv_algo_search']"]
    assert list(unhonoured(asked, "CPU")) == [
        "optimization.execution_accelerators.gpu_execution_accelerator (tensorrt)",
        "parameters['cudnn_conv_algo_search']",
    ]
    assert list(unhonoured(config(intra_op_thread_count="1"), "CPU")) == []


def test_gpu_instances_need_the_cuda_provider():
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers("CPU", 0, both, {}) == ["CPUExecutionProvider"]
    assert providers("GPU", 1, both, {})[0] == ("CUDAExecutionProvider", {"device_id": 1})
    with pytest.raises(ConfigurationError, match="KIND_GPU"):
        providers("GPU", 0, ["CPUExecutionProvider"], {})


def test_an_accelerator_puts_its_provider_before_cuda():
    parameters = {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": "1024",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/engines",
    }
    asked = {
        "optimization": {
            "execution_accelerators": {
                "gpu_execution_accelerator": [{"name": "tensorrt", "parameters": parameters}]
            }
        }
    }
    every = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    (name, options), (second, _), last = providers("GPU", 0, every, asked)
    assert (name, second, last) == tuple(every)
    assert options == {
        "device_id": 0,
        "trt_fp16_enable": True,
        "trt_int8_enable": False,
        "trt_max_workspace_size": 1024,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/engines",
    }
    with pytest.raises(ConfigurationError, match="asks for TensorrtExecutionProvider"):
        providers("GPU", 0, every[1:], asked)
    assert providers("CPU", 0, every, asked) == [last]


def test_the_models_file(tmp_path: Path):
    assert model_file({}, str(tmp_path), "1") == str(tmp_path / "1" / "model.onnx")
    named = {"default_model_filename": "other.onnx"}
    assert model_file(named, str(tmp_path), "2") == str(tmp_path / "2" / "other.onnx")
    (tmp_path / "1" / "model.onnx").mkdir(parents=True)
    nested = tmp_path / "1" / "model.onnx" / "model.onnx"
    assert model_file({}, str(tmp_path), "1") == str(nested)


def test_every_disagreement_about_tensors_is_told_at_once(tmp_path: Path):
    write_tiny_model(tmp_path / "model.onnx")
    session = ort.InferenceSession(str(tmp_path / "model.onnx"))
    good = {
        "input": [
            {"name": "input_ids", "data_type": "TYPE_INT64"},
            {"name": "attention_mask", "data_type": "TYPE_INT64"},
        ],
        "output": [{"name": "logits", "data_type": "TYPE_FP32"}],
    }
    check_tensors(good, session, "model.onnx")
    bad = {
        "input": [
            {"name": "input_ids", "data_type": "TYPE_INT32"},
            {"name": "words", "data_type": "TYPE_INT64"},
        ],
        "output": [{"name": "scores", "data_type": "TYPE_FP32"}],
    }
    with pytest.raises(ConfigurationError) as caught:
        check_tensors(bad, session, "model.onnx")
    message = str(caught.value)
    assert "input 'input_ids' is tensor(int64) in the model, TYPE_INT32 in config.pbtxt" in message
    assert "no input 'words'" in message
    assert "no output 'scores' (it has logits)" in message
    assert "needs the input 'attention_mask'" in message
