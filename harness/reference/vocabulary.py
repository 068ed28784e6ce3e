"""Byte-level BPE tokenizers, and word embeddings that start from co-occurrence counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingExtraError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


WINDOW = 5
"""Tokens to each side that count as neighbours."""
CONTEXT_POWER = 0.75
"""Smooths the neighbours' frequencies, as in Levy, Goldberg and Dagan (2015), section 3.1."""
POWER_ITERATIONS = 3


def prior_embeddings(
    token_ids: NDArray[np.int64],
    mask: NDArray[np.int64],
    *,
    vocabulary: int,
    dimensions: int,
    deviation: float,
    seed: int,
) -> NDArray[np.float32]:
    """Truncated SVD of the positive pointwise mutual information of neighbouring tokens.

    Levy and Goldberg, 'Neural word embedding as implicit matrix factorization' (2014), with the
    symmetric split U * sqrt(S) of Levy, Goldberg and Dagan (2015), TACL 3, section 3.3.

    Args:
        token_ids: (rows, length).
        mask: (rows, length), 1 for real tokens, 0 for padding.
        vocabulary: Number of token ids.
        dimensions: Of an embedding.
        deviation: Standard deviation that the embeddings are scaled to.
        seed: Of the randomised SVD.

    Returns:
        (vocabulary, dimensions); rows of tokens that never occur are zero.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.utils.extmath import randomized_svd
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "export") from error
    information = _positive_information(_neighbour_counts(token_ids, mask, vocabulary))
    left, values, _ = randomized_svd(
        information, dimensions, n_iter=POWER_ITERATIONS, random_state=seed
    )
    embeddings = left * np.sqrt(values)
    scaled: NDArray[np.float32] = (embeddings * (deviation / embeddings.std())).astype(np.float32)
    return scaled


def set_embeddings(
    model: Any,
    token_ids: NDArray[np.int64],
    mask: NDArray[np.int64],
    *,
    deviation: float,
    seed: int,
) -> None:
    """Start a model's word embeddings from `prior_embeddings` of its training text, in place.

    Args:
        model: a model of transformers.
        token_ids: the training text, (rows, length).
        mask: 1 for real tokens, 0 for padding, (rows, length).
        deviation: standard deviation that the embeddings are scaled to.
        seed: seed of the randomised SVD.
    """
    import torch

    weight = model.get_input_embeddings().weight
    embeddings = prior_embeddings(
        token_ids,
        mask,
        vocabulary=weight.shape[0],
        dimensions=weight.shape[1],
        deviation=deviation,
        seed=seed,
    )
    with torch.no_grad():
        weight.copy_(torch.from_numpy(embeddings))


def _neighbour_counts(
    token_ids: NDArray[np.int64], mask: NDArray[np.int64], vocabulary: int
) -> Any:
    """Symmetric sparse matrix: how often two tokens stand within `WINDOW` of each other."""
    from scipy.sparse import coo_matrix

    real = mask.astype(bool)
    firsts, seconds = [], []
    for distance in range(1, WINDOW + 1):
        both = real[:, :-distance] & real[:, distance:]
        firsts.append(token_ids[:, :-distance][both])
        seconds.append(token_ids[:, distance:][both])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    shape = (vocabulary, vocabulary)
    counts = coo_matrix((np.ones(first.size), (first, second)), shape=shape).tocsr()
    return counts + counts.T


def _positive_information(counts: Any) -> Any:
    """max(0, log p(word, context) / (p(word) p(context)^0.75)), sparse."""
    from scipy.sparse import coo_matrix

    pairs = counts.tocoo()
    frequency = np.asarray(counts.sum(axis=1)).ravel()
    context = frequency**CONTEXT_POWER
    context /= context.sum()
    information = np.log(pairs.data / (frequency[pairs.row] * context[pairs.col]))
    kept = information > 0
    return coo_matrix(
        (information[kept], (pairs.row[kept], pairs.col[kept])), shape=counts.shape
    ).tocsr()


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
