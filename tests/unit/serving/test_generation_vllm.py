"""The model folder for Triton's vLLM backend: that backend's own names, types and file."""

import json

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from harness.serving.generation.vllm import VllmModel, write_vllm_model

# As the backend completes a configuration (triton-inference-server/vllm_backend, src/model.py).
ITS_INPUTS = {
    "text_input": "TYPE_STRING", "image": "TYPE_STRING", "stream": "TYPE_BOOL",
    "sampling_parameters": "TYPE_STRING", "exclude_input_in_output": "TYPE_BOOL",
    "return_finish_reason": "TYPE_BOOL", "return_cumulative_logprob": "TYPE_BOOL",
    "return_logprobs": "TYPE_BOOL", "return_num_input_tokens": "TYPE_BOOL",
    "return_num_output_tokens": "TYPE_BOOL",
}  # fmt: skip
ITS_OUTPUTS = {
    "text_output": ("TYPE_STRING", [-1]), "finish_reason": ("TYPE_STRING", [-1]),
    "num_input_tokens": ("TYPE_UINT32", [1]), "num_output_tokens": ("TYPE_UINT32", [-1]),
}  # fmt: skip


def test_the_folder_is_a_vllm_model_in_a_repository_of_its_own(tmp_path):
    model = VllmModel("student", "/checkpoints/student", 512, trust_remote_code=True)
    folder = write_vllm_model(tmp_path / "model_repository", model)
    assert folder == tmp_path / "model_repository-vllm" / "student"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("student", "vllm", 0)
    assert config.model_transaction_policy.decoupled
    assert [one.kind for one in config.instance_group] == [pb.ModelInstanceGroup.KIND_MODEL]
    for one in config.input:
        assert pb.DataType.Name(one.data_type) == ITS_INPUTS[one.name]
        assert one.optional == (one.name != "text_input")
    outputs = {one.name: (pb.DataType.Name(one.data_type), list(one.dims)) for one in config.output}
    assert outputs == ITS_OUTPUTS
    arguments = json.loads((folder / "1" / "model.json").read_text())
    assert arguments == {
        "model": "/checkpoints/student",
        "max_model_len": 512,
        "dtype": "auto",
        "gpu_memory_utilization": 0.9,
        "trust_remote_code": True,
    }


def test_a_revision_is_passed_on(tmp_path):
    model = VllmModel("student", "owner/name", 512, revision="abc")
    folder = write_vllm_model(tmp_path / "models", model)
    arguments = json.loads((folder / "1" / "model.json").read_text())
    assert arguments["revision"] == "abc"
    assert "trust_remote_code" not in arguments
