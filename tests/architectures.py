"""Untrained checkpoints of every architecture that a user may bring, and the library's own answers.

As `tiny_models`, but the weights of every kind are drawn wide, so that answers depend on positions,
on token types and on each token; and a classifier's head is centred over the rows that it is asked,
so that all classes come up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.system.libraries import quiet

SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
WORDS = [first + second for first in SYLLABLES[:15] for second in SYLLABLES[:15]]
LENGTH = 48
CLASSES = ("north", "east", "south", "west")

_SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """One architecture in small: which configuration, which kind of tokenizer, which heads."""

    name: str
    config: str
    """transformers' class."""
    settings: Mapping[str, Any] = field(default_factory=lambda: dict(_SIZES))
    tokenizer: str = "words"
    """`words` ([CLS] and [SEP], token types), `roberta` (<s> and </s>), `plain` (nothing around a
    text), `begin` (a token before it), `byte-pairs` (GPT-2's kind)."""
    classifies: bool = True
    speaks: bool = False
    """Whether it is a causal language model."""


def _encoder(name: str, config: str, tokenizer: str = "words", **settings: Any) -> Architecture:
    return Architecture(name, config, {**_SIZES, **settings}, tokenizer)


def _decoder(name: str, config: str, tokenizer: str = "plain", **settings: Any) -> Architecture:
    return Architecture(name, config, {**_SIZES, **settings}, tokenizer, speaks=True)


_GROUPED = {"num_key_value_heads": 1, "head_dim": 16}

ARCHITECTURES = {
    one.name: one
    for one in (
        _encoder("bert", "BertConfig"),
        Architecture(
            "distilbert", "DistilBertConfig",
            {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64,
             "max_position_embeddings": 64},
        ),
        _encoder("roberta", "RobertaConfig", "roberta", type_vocab_size=1,
                 max_position_embeddings=66),
        _encoder("xlm-roberta", "XLMRobertaConfig", "roberta", type_vocab_size=1,
                 max_position_embeddings=66),
        _encoder("camembert", "CamembertConfig", "roberta", type_vocab_size=1,
                 max_position_embeddings=66),
        _encoder("albert", "AlbertConfig", embedding_size=16),
        _encoder("electra", "ElectraConfig", embedding_size=16),
        _encoder("deberta", "DebertaConfig", type_vocab_size=0, relative_attention=True,
                 pos_att_type=["c2p", "p2c"], position_biased_input=False),
        _encoder("deberta-v2", "DebertaV2Config", type_vocab_size=0, relative_attention=True,
                 pos_att_type=["c2p", "p2c"], position_biased_input=False, conv_kernel_size=3,
                 share_att_key=False),
        _encoder("deberta-v3", "DebertaV2Config", type_vocab_size=0, relative_attention=True,
                 pos_att_type=["p2c", "c2p"], position_biased_input=False, position_buckets=16,
                 share_att_key=True, norm_rel_ebd="layer_norm"),
        _encoder("mpnet", "MPNetConfig", "roberta", max_position_embeddings=66),
        _encoder("modernbert", "ModernBertConfig", num_hidden_layers=3, local_attention=8,
                 global_attn_every_n_layers=3),
        _encoder("modernbert-mean", "ModernBertConfig", num_hidden_layers=3, local_attention=8,
                 global_attn_every_n_layers=3, classifier_pooling="mean"),
        _encoder("big-bird", "BigBirdConfig", attention_type="block_sparse", block_size=16),
        _encoder("rembert", "RemBertConfig", input_embedding_size=16, output_embedding_size=16),
        _encoder("roformer", "RoFormerConfig", embedding_size=16),
        _encoder("mobilebert", "MobileBertConfig", embedding_size=16, intra_bottleneck_size=16,
                 num_feedforward_networks=1),
        _encoder("squeezebert", "SqueezeBertConfig", embedding_size=32, q_groups=1, k_groups=1,
                 v_groups=1, post_attention_groups=1, intermediate_groups=1, output_groups=1),
        _encoder("convbert", "ConvBertConfig", embedding_size=16),
        _encoder("megatron-bert", "MegatronBertConfig"),
        Architecture(
            "gpt2", "GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
            "plain", speaks=True,
        ),
        Architecture(
            "gpt-neo", "GPTNeoConfig",
            {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 64,
             "attention_types": [[["global", "local"], 1]], "window_size": 8},
            "plain", speaks=True,
        ),
        Architecture(
            "gptj", "GPTJConfig",
            {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "rotary_dim": 8},
            "plain", speaks=True,
        ),
        Architecture(
            "codegen", "CodeGenConfig",
            {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4},
            "plain", classifies=False, speaks=True,
        ),
        _decoder("llama", "LlamaConfig", "begin", **_GROUPED),
        _decoder("qwen2", "Qwen2Config", "byte-pairs", num_key_value_heads=1),
        _decoder("qwen3", "Qwen3Config", **_GROUPED),
        _decoder("opt", "OPTConfig", "begin", ffn_dim=64, word_embed_proj_dim=32),
        _decoder("gpt-neox", "GPTNeoXConfig"),
        _decoder("mistral", "MistralConfig", "begin", sliding_window=8, **_GROUPED),
        _decoder("gemma2", "Gemma2Config", "begin", sliding_window=8, **_GROUPED),
        _decoder("gemma3", "Gemma3TextConfig", "begin", sliding_window=8, num_hidden_layers=6,
                 **_GROUPED),
        _decoder("phi", "PhiConfig"),
        _decoder("phi3", "Phi3Config", "begin"),
        _decoder("falcon", "FalconConfig", multi_query=True, ffn_hidden_size=64),
        _decoder("falcon-alibi", "FalconConfig", alibi=True, new_decoder_architecture=False,
                 ffn_hidden_size=64),
        Architecture(
            "bloom", "BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, "plain",
            speaks=True,
        ),
        Architecture(
            "mpt", "MptConfig",
            {"d_model": 32, "n_layers": 2, "n_heads": 2, "expansion_ratio": 2, "max_seq_len": 64},
            "plain", speaks=True,
        ),
        Architecture(
            "openai-gpt", "OpenAIGPTConfig",
            {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}, "plain", speaks=True,
        ),
        Architecture(
            "xlnet", "XLNetConfig", {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
        ),
    )
}  # fmt: skip


def some_texts(count: int, seed: int, longest: int = 30) -> list[str]:
    """Texts of 2 to `longest` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(2, longest + 1))) for _ in range(count)]


@dataclass(frozen=True)
class Sides:
    """How a tokenizer pads and cuts; none of it may matter."""

    padding: str = "right"
    truncation: str = "right"
    pad_token: bool = True


def make_tokenizer(kind: str, sides: Sides) -> Any:
    """A tokenizer over `WORDS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    named = {
        "words": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]",
                  "sep_token": "[SEP]", "mask_token": "[MASK]"},
        "roberta": {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>",
                    "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"},
        "plain": {"eos_token": "<|end|>", "unk_token": "<|unk|>", "pad_token": "<|pad|>"},
        "byte-pairs": {"eos_token": "<|end|>", "pad_token": "<|pad|>"},
        "begin": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                  "pad_token": "<pad>"},
    }[kind]  # fmt: skip
    # Decoders: the pad token comes last, and token 0 is a word.
    special = list(dict.fromkeys(named.values()))
    if kind == "byte-pairs":
        backend = _byte_pairs(special)
        return _finish(backend, named, sides)
    encoder = kind in {"words", "roberta"}
    order = [*special, *WORDS] if encoder else [*WORDS, *special]
    ids = {token: number for number, token in enumerate(order)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=named["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    templates = {
        "words": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
        "begin": ("<s> $A", "<s> $A $B"),
    }
    if kind in templates:
        single, pair = templates[kind]
        around = [token for token in special if token in pair]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[(token, ids[token]) for token in around]
        )
    return _finish(backend, named, sides)


def _byte_pairs(special: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(WORDS, trainer)
    backend.add_special_tokens(list(special))
    return backend


def _finish(backend: Any, named: Mapping[str, str], sides: Sides) -> Any:
    from transformers import PreTrainedTokenizerFast

    kept = {name: token for name, token in named.items() if sides.pad_token or name != "pad_token"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, padding_side=sides.padding, truncation_side=sides.truncation,
        **kept,
    )  # fmt: skip


def make_checkpoint(
    folder: Path,
    architecture: Architecture,
    *,
    language: bool = False,
    sides: Sides | None = None,
    rows: Sequence[str] = (),
    pairs: Sequence[str] | None = None,
    **changes: Any,
) -> Path:
    """Save an untrained checkpoint with its tokenizer.

    A classifier's head is centred over `rows` (and `pairs`); `changes` go to its configuration.
    """
    import torch
    import transformers

    sides = sides or Sides()
    tokenizer = make_tokenizer(architecture.tokenizer, sides)
    settings = {
        **architecture.settings,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": dict(enumerate(CLASSES)),
        "label2id": {name: number for number, name in enumerate(CLASSES)},
        **changes,
    }
    config = getattr(transformers, architecture.config)(**settings)
    auto = (
        transformers.AutoModelForCausalLM
        if language
        else transformers.AutoModelForSequenceClassification
    )
    model = auto.from_config(config).eval()
    _spread(model, torch.Generator().manual_seed(0))
    if not language:
        _centre(model, tokenizer, rows, pairs)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def library_logits(
    folder: Path, rows: Sequence[str], pairs: Sequence[str] | None = None, **options: Any
) -> Any:
    """The bare library's logits of single, unpadded texts, (rows, classes)."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return _logits(model.eval(), tokenizer, rows, pairs, **options)


def library_perplexity(folder: Path, windows: Sequence[Sequence[int]], **changes: Any) -> float:
    """The bare library's perplexity of windows of tokens, each alone and unpadded."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **changes).eval()
    nats, count = 0.0, 0
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([list(window)])
            scores = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            nats -= float(scores.gather(-1, ids[0, 1:, None]).sum())
            count += len(window) - 1
    return float(np.exp(nats / count))


def _spread(model: Any, generator: Any) -> None:
    """Draw every weight wide; norms stay near 1."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                weight.copy_(drawn * 0.3)
            elif "norm" in name.lower() and name.endswith("weight"):
                weight.copy_(1 + drawn * 0.1)
            else:
                weight.copy_(drawn * 0.1)


def _logits(
    model: Any, tokenizer: Any, rows: Sequence[str], pairs: Sequence[str] | None, **options: Any
) -> Any:
    import torch

    found = []
    with torch.inference_mode():
        for number, row in enumerate(rows):
            texts = (row,) if pairs is None else (row, pairs[number])
            encoded = tokenizer(
                *texts, truncation=True, max_length=LENGTH, return_tensors="pt", **options
            )
            found.append(model(**encoded).logits[0].numpy())
    return np.array(found)


def _centre(model: Any, tokenizer: Any, rows: Sequence[str], pairs: Sequence[str] | None) -> None:
    """Move the head so that each class has about its share of the rows' predictions."""
    import torch

    head = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == len(CLASSES)
    ][-1]
    seen: list[Any] = []
    hook = head.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    logits = torch.tensor(_logits(model, tokenizer, rows, pairs))
    hook.remove()
    scale = logits.std(dim=0).clamp(min=1e-3)
    with torch.no_grad():
        head.weight.div_(scale[:, None])
        if head.bias is not None:
            head.bias.sub_(logits.mean(dim=0)).div_(scale)
        else:
            # Without a bias: what all rows have in common is taken out of the weights.
            common = torch.stack([one.reshape(-1, one.shape[-1])[-1] for one in seen]).mean(dim=0)
            head.weight.sub_(torch.outer(head.weight @ common, common) / (common @ common))
