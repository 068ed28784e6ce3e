"""Checkpoints that write, made in a second: GPT-2's shape and Llama's, with a byte-level tokenizer.

Untrained ones of wide weights write what looks random, and never the same token for long: what
compares two greedy texts then has something to compare.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import LINES, WEIGHT_SPREAD, byte_level_tokenizer

from harness.export.checkpoint import open_checkpoint
from harness.export.generation.variants import GeneratorJob, export_generators
from harness.study import Model
from harness.types import ModelVariant, Progress

SHAPES = ("gpt2", "llama", "mistral", "qwen3", "opt", "gpt_neox", "phi", "gemma2")
POSITIONS = 96
BOTH = {"precisions": ["fp32", "int8"]}


def make_generator(
    folder: Path, shape: str = "llama", *, seed: int = 0, layers: int = 2, **asked: Any
) -> Path:
    """Save an untrained causal language model of an architecture (`SHAPES`) with its tokenizer.

    Args:
        folder: where to.
        shape: its type.
        seed: of the weights.
        layers: of the decoder.
        asked: what its `generation_config` says beside its own tokens.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = byte_level_tokenizer()
    ends: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = _config(shape, len(tokenizer), layers, ends)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, WEIGHT_SPREAD)
    if asked:
        model.generation_config = transformers.GenerationConfig(**ends, **asked)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _config(shape: str, vocabulary: int, layers: int, ends: dict[str, Any]) -> Any:
    import transformers

    if shape == "gpt2":
        return transformers.GPT2Config(
            n_embd=32,
            n_layer=layers,
            n_head=2,
            n_positions=POSITIONS,
            vocab_size=vocabulary,
            **ends,
        )
    common = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
        **ends,
    }
    if shape == "opt":
        return transformers.OPTConfig(
            ffn_dim=64, word_embed_proj_dim=32, do_layer_norm_before=True, **common
        )
    common["intermediate_size"] = 64
    kinds = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen3": transformers.Qwen3Config,
        "gpt_neox": transformers.GPTNeoXConfig,
        "phi": transformers.PhiConfig,
        "gemma2": transformers.Gemma2Config,
    }
    if shape in {"llama", "mistral", "qwen3", "gemma2"}:
        common["num_key_value_heads"] = 2
    if shape in {"mistral", "gemma2"}:
        common["sliding_window"] = 7
    if shape in {"qwen3", "gemma2"}:
        common["head_dim"] = 8
    return kinds[shape](**common)


def export_generator(checkpoint: Path, repository: Path, **changes: Any) -> ModelVariant:
    """The first variant of a checkpoint, exported for generation into a repository.

    Args:
        checkpoint: of `make_generator`.
        repository: the model repository.
        changes: to the study's section of the model.
    """
    model = Model.model_validate(
        {"name": "writer", "role": "student", "checkpoint": str(checkpoint), **changes}
    )
    opened = open_checkpoint(model, folder=None)
    job = GeneratorJob(model, opened, "family", repository, prompts=LINES)

    def heard(_: Progress) -> None:
        pass

    return export_generators(job, heard)[0]
