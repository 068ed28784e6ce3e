"""Tokenizers of a few hundred words, with the settings on which libraries disagree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tiny_models import LINES

WORDS = tuple(
    a + b + c + d for a in "bdfgk" for b in "aeiou" for c in "lmnpr" for d in ("a", "e", "i")
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def word_level(**settings: Any) -> Any:
    """BERT's special tokens around words: one token a word, so that a cut is plain to see."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(list(SPECIAL))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"},
        **{"sep_token": "[SEP]", "mask_token": "[MASK]", **settings},
    )


def save(tokenizer: Any, folder: Path, model: Mapping[str, Any] | None = None) -> Path:
    """Save a tokenizer beside a configuration, by default BERT's with its vocabulary."""
    tokenizer.save_pretrained(folder)
    config = {"model_type": "bert", "vocab_size": len(tokenizer), **(model or {})}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def amend(folder: Path, **settings: Any) -> Path:
    """Change a folder's tokenizer_config.json."""
    file = folder / "tokenizer_config.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | settings))
    return folder


def sentence_piece(folder: Path, name: str, *, kind: str = "unigram") -> Path:
    """Train SentencePiece on a few lines and save its model alone."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    text = folder.parent / f"{folder.name}.txt"
    text.write_text("\n".join(line for line in LINES if line.isascii()) * 10)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "made"),
        vocab_size=70,
        model_type=kind,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "made.model").rename(folder / name)
    (folder / "made.vocab").unlink()
    return folder
