"""Byte-level BPE tokenizers, trained on the training split only.

BPE and not WordPiece: WordPiece's trainer numbers its alphabet in the order of a hash map, so two
runs give two vocabularies. Byte-level BPE needs no unknown token and is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import MissingExtraError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, CLS, SEP, END = "[PAD]", "[CLS]", "[SEP]", "<|endoftext|>"


def train_classifier_tokenizer(
    texts: Sequence[str], *, vocabulary: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Lower-cased text between `[CLS]` and `[SEP]`, padded with `[PAD]` (number 0)."""
    tokenizer = _train(texts, vocabulary, (PAD, CLS, SEP), lowercase=True)
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B {SEP}",
        special_tokens=[(CLS, tokenizer.token_to_id(CLS)), (SEP, tokenizer.token_to_id(SEP))],
    )
    return _wrap(tokenizer, max_length, pad_token=PAD, cls_token=CLS, sep_token=SEP)


def train_language_tokenizer(
    texts: Sequence[str], *, vocabulary: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Cased text without added tokens; `<|endoftext|>` (number 0) ends documents and pads."""
    tokenizer = _train(texts, vocabulary, (END,), lowercase=False)
    return _wrap(tokenizer, max_length, pad_token=END, eos_token=END, bos_token=END)


def _train(
    texts: Sequence[str], vocabulary: int, special: Sequence[str], *, lowercase: bool
) -> Any:
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "export") from error
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.BertPreTokenizer(),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _wrap(tokenizer: Any, max_length: int, **special: str) -> PreTrainedTokenizerFast:
    try:
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtraError("transformers", "export") from error
    wrapper: Any = PreTrainedTokenizerFast  # its constructor is untyped
    wrapped: PreTrainedTokenizerFast = wrapper(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **special,
    )
    return wrapped
