"""Untrained checkpoints of a few thousand weights, made in a second, for tests of the export.

They are as real as any: a tokenizer trained on a few lines, a transformers model, safetensors.
The weights are drawn wide (standard deviation 0.3), so that logits spread and a comparison of
two runtimes has something to compare.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LINES = (
    "the quick brown fox jumps over the lazy dog",
    "a server answers requests and a client counts the milliseconds",
    "def load(path): return open(path).read()",
    "teachers are large, students are small, and both are served",
    "naïve café, Zürich, 東京, and a rocket 🚀 go beyond ASCII",
    "batching joins requests of equal shape; padding makes shapes equal",
)
WEIGHT_SPREAD = 0.3
WORD_PIECES = Path(__file__).with_name("word_pieces.txt")
"""Trained on the lines once: a trainer makes others each time, and so would the same seed models
that differ, one of which might fall just beyond what int8 is allowed.
"""


def make_classifier(
    folder: Path,
    labels: Sequence[str] | None = ("code", "prose", "other"),
    *,
    architecture: str = "bert",
    seed: int = 0,
    max_positions: int = 64,
    problem_type: str | None = None,
) -> Path:
    """Save an untrained classifier (`bert`, `roberta`, `distilbert`, `gpt2`) with its tokenizer.

    `labels` None leaves the generic names LABEL_0 to LABEL_2; of a regression there is one. What
    `problem_type` says is written into config.json.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = word_piece_tokenizer() if architecture != "gpt2" else byte_level_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": max_positions,
        "initializer_range": WEIGHT_SPREAD,
        "problem_type": problem_type,
        **_labels(labels),
    }
    config: Any
    if architecture in {"bert", "roberta"}:
        kind = transformers.BertConfig if architecture == "bert" else transformers.RobertaConfig
        config = kind(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            pad_token_id=tokenizer.pad_token_id, **common,
        )  # fmt: skip
    elif architecture == "distilbert":
        config = transformers.DistilBertConfig(
            dim=32, n_layers=2, n_heads=2, hidden_dim=64,
            pad_token_id=tokenizer.pad_token_id, **common,
        )  # fmt: skip
    else:
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, **common)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    return _save(model, tokenizer, folder)


def make_alike(
    folder: Path, like: Path, *, order: Sequence[int] | None = None, noise: float = 0.0
) -> Path:
    """Save a classifier of another's weights, with noise added and its outputs in another order.

    Args:
        folder: where it is saved.
        like: the other's.
        order: which of the other's outputs stands in each place; None for the same.
        noise: standard deviation of what is added to the head's matrix.
    """
    import torch
    import transformers

    torch.manual_seed(11)
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(like)
    places = list(order or range(model.config.num_labels))
    names = [model.config.id2label[place] for place in places]
    with torch.no_grad():
        weight, bias = model.classifier.weight, model.classifier.bias
        weight.copy_(weight[places] + noise * torch.randn_like(weight))
        bias.copy_(bias[places])
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: place for place, name in enumerate(names)}
    return _save(model, transformers.AutoTokenizer.from_pretrained(like), folder)


def make_question_answerer(
    folder: Path, *, architecture: str = "bert", seed: int = 0, max_positions: int = 64
) -> Path:
    """Save an untrained extractive question answerer (`bert`, `distilbert`) with its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = word_piece_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": max_positions,
        "initializer_range": WEIGHT_SPREAD,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config: Any
    if architecture == "bert":
        config = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            **common,
        )  # fmt: skip
    else:
        config = transformers.DistilBertConfig(
            dim=32, n_layers=2, n_heads=2, hidden_dim=64, **common
        )
    model = transformers.AutoModelForQuestionAnswering.from_config(config)
    _save(model, tokenizer, folder)
    if architecture == "bert":
        settings = folder / "tokenizer_config.json"
        known = json.loads(settings.read_text())
        known["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        settings.write_text(json.dumps(known))
    return folder


TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def make_token_classifier(
    folder: Path,
    tags: Sequence[str] | None = TAGS,
    *,
    architecture: str = "bert",
    seed: int = 0,
    max_positions: int = 64,
) -> Path:
    """Save an untrained token classifier (`bert`, `distilbert`, `roberta`) with its tokenizer.

    RoBERTa's is byte-level and puts no space before a text's first word.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = roberta_tokenizer() if architecture == "roberta" else word_piece_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": max_positions,
        "initializer_range": WEIGHT_SPREAD,
        "pad_token_id": tokenizer.pad_token_id,
        **_labels(tags),
    }
    config: Any
    if architecture == "distilbert":
        config = transformers.DistilBertConfig(
            dim=32, n_layers=2, n_heads=2, hidden_dim=64, **common
        )
    else:
        kind = transformers.BertConfig if architecture == "bert" else transformers.RobertaConfig
        config = kind(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            **common,
        )  # fmt: skip
    model = transformers.AutoModelForTokenClassification.from_config(config)
    return _save(model, tokenizer, folder)


def make_sentence_encoder(
    folder: Path,
    *,
    pooling: str | None = "mean",
    dense: int | None = None,
    normalised: bool = True,
    hidden: int = 32,
    max_length: int = 48,
    seed: int = 0,
) -> Path:
    """Save an untrained sentence encoder in the files of sentence-transformers.

    Args:
        folder: where to.
        pooling: sentence-transformers' name of it; None leaves its files out.
        dense: dimensions of a Dense layer with tanh; None for none.
        normalised: whether Normalize is the last module.
        hidden: size of the token vectors.
        max_length: the checkpoint's max_seq_length.
        seed: of the weights.
    """
    import torch
    import transformers
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    tokenizer = word_piece_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=WEIGHT_SPREAD,
        pad_token_id=tokenizer.pad_token_id, hidden_size=hidden, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64,
    )  # fmt: skip
    _save(transformers.BertModel(config), tokenizer, folder)
    if pooling is None:
        return folder
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    settings = {"word_embedding_dimension": hidden, f"pooling_mode_{_POOLINGS[pooling]}": True}
    write_json(folder / "1_Pooling" / "config.json", settings)
    if dense is not None:
        kinds.append(("2_Dense", "Dense"))
        layer = torch.nn.Linear(hidden, dense)
        weights = {"linear.weight": layer.weight.detach(), "linear.bias": layer.bias.detach()}
        layout = {"in_features": hidden, "out_features": dense, "bias": True}
        activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
        write_json(folder / "2_Dense" / "config.json", layout | activation)
        save_file(weights, str(folder / "2_Dense" / "model.safetensors"))
    if normalised:
        kinds.append((f"{len(kinds)}_Normalize", "Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    lengths = {"max_seq_length": max_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", lengths)
    return folder


_POOLINGS = {
    "mean": "mean_tokens",
    "cls": "cls_token",
    "max": "max_tokens",
    "lasttoken": "lasttoken",
    "weightedmean": "weightedmean_tokens",
}


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def roberta_tokenizer() -> Any:
    """RoBERTa's own class on a small byte-level vocabulary, saved without add_prefix_space."""
    from transformers import RobertaTokenizer

    trained = json.loads(byte_level_tokenizer().backend_tokenizer.to_str())["model"]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = [word for word in trained["vocab"] if not word.startswith("<|")]
    vocabulary = {word: place for place, word in enumerate([*special, *words])}
    merges = [tuple(one) for one in trained["merges"]]
    return RobertaTokenizer(vocab=vocabulary, merges=merges)


def make_language_model(
    folder: Path, *, architecture: str = "gpt2", seed: int = 0, max_positions: int = 64
) -> Path:
    """Save an untrained causal language model (`gpt2`, `llama`) with its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = byte_level_tokenizer(begin_of_text=architecture == "llama")
    config: Any
    if architecture == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=len(tokenizer), n_positions=max_positions, n_embd=32, n_layer=2, n_head=2,
            initializer_range=WEIGHT_SPREAD,
        )  # fmt: skip
    else:
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=max_positions, hidden_size=32,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            intermediate_size=64, initializer_range=WEIGHT_SPREAD,
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    return _save(model, tokenizer, folder)


def word_piece_tokenizer() -> Any:
    """A BERT-like tokenizer, the same each time: lower case, [CLS] and [SEP], a pad token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = WORD_PIECES.read_text(encoding="utf-8").splitlines()
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(pieces[:4])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]",
        cls_token="[CLS]", sep_token="[SEP]", model_max_length=64,
    )  # fmt: skip


def byte_level_tokenizer(*, begin_of_text: bool = False) -> Any:
    """A GPT-2-like tokenizer: byte-level BPE, an end-of-text token, no pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|end|>", "<|begin|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if begin_of_text:
        backend.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", 1)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token="<|end|>", bos_token="<|begin|>"
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


def _labels(labels: Sequence[str] | None) -> dict[str, Any]:
    if labels is None:
        return {"num_labels": 3}
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: index for index, name in enumerate(labels)},
    }


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
