"""Word embeddings from co-occurrence counts: the head start that makes short training enough."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingExtraError

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
