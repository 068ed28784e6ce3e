"""What configurations say, and what they do not: the text model's own value, or a clear refusal."""

import json

import pytest
import torch
import transformers

from harness.errors import CheckpointError
from harness.export.checkpoint import inspect_checkpoint
from harness.export.checkpoint_files import (
    config_problems,
    length_problems,
    positions_held,
    vocabulary_size,
)
from harness.export.convert import write_fp32
from harness.export.source import make_graph
from harness.study import Model
from harness.tasks.registry import family_of
from tests.architectures import ARCHITECTURES, Sides, make_checkpoint, make_tokenizer

TEXT = {"vocab_size": 77, "max_position_embeddings": 40}


@pytest.mark.parametrize(
    ("config", "held"),
    [
        (transformers.BertConfig(max_position_embeddings=40), 40),
        (transformers.RobertaConfig(max_position_embeddings=40, pad_token_id=1), 38),
        (transformers.XLMRobertaConfig(max_position_embeddings=40, pad_token_id=1), 38),
        (transformers.CamembertConfig(max_position_embeddings=40, pad_token_id=5), 34),
        (transformers.MPNetConfig(max_position_embeddings=40, pad_token_id=0), 38),
        (transformers.GPT2Config(n_positions=40), 40),
        (transformers.CodeGenConfig(n_positions=40), 40),
        (transformers.MptConfig(max_seq_len=40), 40),
        (transformers.OPTConfig(max_position_embeddings=40), 40),
        (transformers.BloomConfig(), None),
        (transformers.XLNetConfig(), None),
        (transformers.Gemma3Config(text_config=TEXT), 40),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_how_many_tokens_a_model_has_positions_for(config, held):
    assert positions_held(config) == held
    assert not list(length_problems(config, held or 10**6))
    if held is not None:
        (problem,) = length_problems(config, held + 1)
        assert problem.endswith(f"the task's max_length is {held + 1}: it can be {held} at most")


@pytest.mark.parametrize("name", ["roberta", "mpnet", "opt", "gpt2", "bert"])
def test_that_many_tokens_are_what_the_library_itself_takes(tmp_path, name):
    """Positions held, and one more, asked of the bare model."""
    folder = make_checkpoint(tmp_path / name, ARCHITECTURES[name], rows=["bada bade badi", "bado"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    held = positions_held(model.config)
    model(input_ids=torch.full((1, held), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, held + 1), 7))


def test_a_composite_configuration_is_read_where_its_text_model_is():
    config = transformers.Gemma3Config(text_config=TEXT)
    assert not hasattr(config, "vocab_size")
    assert vocabulary_size(config) == 77


def test_a_model_of_images_and_text_is_refused_by_name(tmp_path):
    config = transformers.Gemma3Config(text_config=TEXT)
    config.architectures = ["Gemma3ForConditionalGeneration"]
    (problem,) = config_problems(config, None)
    assert "names the architecture Gemma3ForConditionalGeneration" in problem


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "no-such-type"}, "its config.json cannot be used"),
        ({"vocab_size": "many"}, "its config.json cannot be used"),
        ({"problem_type": "regression"}, "trained for a regression"),
    ],
)
def test_an_unusable_configuration_is_refused_in_a_line(tmp_path, settings, words):
    config = transformers.BertConfig(num_labels=3)
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(tmp_path)
    make_tokenizer("words", Sides()).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes([2, *[0] * 7]) + b"{}")  # no tensors
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    model = Model.model_validate({"name": "m", "role": "teacher", "checkpoint": str(tmp_path)})
    with pytest.raises(CheckpointError, match=words) as caught:
        inspect_checkpoint(model, None)
    assert "\n" not in str(caught.value)


def test_a_configuration_without_a_pad_token_is_wrapped():
    """CodeGen's has no such attribute."""
    made = ARCHITECTURES["codegen"]
    config = transformers.CodeGenConfig(**made.settings, vocab_size=50)
    if hasattr(config, "pad_token_id"):
        del config.pad_token_id
    model = transformers.AutoModelForCausalLM.from_config(config)
    graph = make_graph(model, family_of("causal-lm"))
    ids = torch.arange(6)[None]
    logprobs, _ = graph(ids, torch.ones_like(ids))
    assert logprobs.shape == (1, 6)


class _Failing(torch.nn.Module):
    output_names = ("logits",)

    def __init__(self, fail):
        super().__init__()
        self.model = torch.nn.Identity()
        self.fail = fail

    def forward(self, input_ids, attention_mask):
        return (self.fail(input_ids.float()),)


def _branch(values):
    return values if values.sum() > 3 else -values


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (torch.special.bessel_j0, "No ONNX function found for .*bessel_j0"),
        (lambda values: values @ torch.ones(17, 3), "inferred a static shape of 17 for dimension"),
        (_branch, "Could not guard on data-dependent expression .*if values.sum"),
    ],
    ids=["operator", "length", "branch"],
)
def test_what_the_exporter_met_is_said_whole_and_plain(tmp_path, fail, reason):
    ones = torch.ones((3, 17), dtype=torch.int64).numpy()
    with pytest.raises(CheckpointError, match=reason) as caught:
        write_fp32(
            _Failing(fail), {"input_ids": ones, "attention_mask": ones}, tmp_path / "model.onnx"
        )
    said = str(caught.value)
    assert "\n" not in said
    assert "\x1b" not in said
    assert "Next steps" not in said
    assert "TORCH" not in said
    assert "custom code" not in caught.value.next_step
