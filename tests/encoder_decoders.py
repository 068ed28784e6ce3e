"""Encoder-decoders that write, made in a second: T5's shape and BART's, of wide random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import WEIGHT_SPREAD, byte_level_tokenizer

SHAPES = ("t5", "mt5", "bart", "mbart", "pegasus", "marian")
POSITIONS = 64
START = 5
"""What the decoder reads first: a token like any other, so that what is read first shows."""
SUMMARISER: dict[str, Any] = {
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 0,
    "no_repeat_ngram_size": 2,
    "min_length": 12,
}
"""What the `generation_config` of a summariser like bart-large-cnn asks, in small."""


def make_encoder_decoder(
    folder: Path, shape: str = "bart", *, seed: int = 0, layers: int = 2, **asked: Any
) -> Path:
    """Save an untrained encoder-decoder (`SHAPES`) with its tokenizer.

    Args:
        folder: where to.
        shape: its type.
        seed: of the weights.
        layers: of the encoder and of the decoder.
        asked: what its `generation_config` says beside its own tokens.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = _config(shape, len(tokenizer), layers, tokenizer)
    model: Any = transformers.AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, WEIGHT_SPREAD)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=START,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **asked,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    """Byte-level, with an end token (0) behind every text, and a token to pad with (1)."""
    from tokenizers import processors

    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    tokenizer.pad_token = "<|begin|>"
    return tokenizer


def _config(shape: str, vocabulary: int, layers: int, tokenizer: Any) -> Any:
    import transformers

    common: dict[str, Any] = {
        "vocab_size": vocabulary,
        "d_model": 32,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": START,
    }
    if shape in {"t5", "mt5"}:
        distances = {
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20,
        }
        common |= {"d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": layers, **distances}
    else:
        for side in ("encoder", "decoder"):
            common |= {
                f"{side}_layers": layers,
                f"{side}_attention_heads": 4,
                f"{side}_ffn_dim": 64,
            }
        common["max_position_embeddings"] = POSITIONS
    config = transformers.AutoConfig.for_model(shape, **common)
    config.forced_eos_token_id = config.forced_bos_token_id = None
    return config
