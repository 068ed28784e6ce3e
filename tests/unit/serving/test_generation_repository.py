"""What is written beside a decoder, and that it needs nothing but what is there."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

import harness
from harness.errors import UsageError
from harness.export.generation.variants import INPUTS, OUTPUTS
from harness.serving.generation.repository import (
    SERVED_MODULES,
    GenerationServing,
    generation_override,
    write_generator,
)
from harness.types import ModelFormat, ModelVariant, Precision, Role, ServingConfig
from harness.types.generation import GeneratorSettings

SETTINGS = GeneratorSettings(2, 1, 8, 320, 96, (0,), None)
IN_THE_SERVER = sys.stdlib_module_names | {
    "numpy", "onnxruntime", "tokenizers", "triton_python_backend_utils",
}  # fmt: skip


@pytest.fixture
def variant(tmp_path):
    folder = tmp_path / "repository" / "writer-fp32"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "generation.json").write_text(SETTINGS.to_json())
    return ModelVariant(
        "writer-fp32", "prose", Role.STUDENT, "generation", ModelFormat.ONNX, Precision.FP32,
        "checkpoint", "", folder, INPUTS, OUTPUTS, 1, 1,
    )  # fmt: skip


def test_the_configuration_is_decoupled_and_takes_text_or_tokens(variant):
    write_generator(variant, GenerationServing(slots=4, threads=2, queue_size=9))
    config = text_format.Parse((variant.path / "config.pbtxt").read_text(), pb.ModelConfig())
    assert (config.backend, config.max_batch_size) == ("python", 0)
    assert config.model_transaction_policy.decoupled
    assert all(one.optional for one in config.input)
    types = {one.name: pb.DataType.Name(one.data_type) for one in (*config.input, *config.output)}
    assert types["text_input"] == types["sampling_parameters"] == "TYPE_STRING"
    assert (types["stream"], types["num_output_tokens"]) == ("TYPE_BOOL", "TYPE_UINT32")
    parameters = {key: one.string_value for key, one in config.parameters.items()}
    assert parameters == {
        "slots": "4", "threads": "2", "queue_size": "9", "read_tokens": "256", "context": "96",
    }  # fmt: skip
    override = json.loads(generation_override(variant, GenerationServing(slots=4)))
    assert override["model_transaction_policy"] == {"decoupled": True}


def test_a_study_s_serving_configuration_has_its_batch_as_slots():
    serving = GenerationServing.of(ServingConfig(max_batch_size=4, intra_op_threads=2))
    assert (serving.slots, serving.threads, serving.queue_size) == (4, 2, 64)
    with pytest.raises(UsageError, match="on the CPU"):
        GenerationServing.of(ServingConfig(instance_kind="gpu"))


def test_what_is_copied_imports_only_what_the_server_has():
    """And can be read by Python 3.10, which NVIDIA's container of release 24.10 has."""
    package = Path(harness.__file__).parent
    copied = {f"harness.{one.removesuffix('.py').replace('/', '.')}" for one in SERVED_MODULES}
    for module in (*SERVED_MODULES, "serving/generation/triton_model.py"):
        source = (package / module).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source, feature_version=(3, 10))):
            if isinstance(node, ast.Import):
                assert {one.name.split(".")[0] for one in node.names} <= IN_THE_SERVER
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("harness"):
                names = {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
                assert names & copied, (module, node.module)
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in IN_THE_SERVER, (module, node.module)


def test_the_engine_runs_from_the_model_s_folder_alone(variant, tmp_path):
    write_generator(variant, GenerationServing())
    code = (
        "import harness.serving.generation.engine as engine, harness;"
        "import harness.types.generation as types;"
        "print(harness.__file__); print(types.SamplingParameters.from_json('{}').max_tokens)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=variant.path / "1",
        capture_output=True,
        text=True,
        check=True,
    )
    place, most = answer.stdout.split()
    assert Path(place) == variant.path / "1" / "harness" / "__init__.py"
    assert most == "16"
    # Python makes no folder there, which Triton would take for a change of the model.
    assert not [one for one in variant.path.rglob("__pycache__") if one.is_dir()]
