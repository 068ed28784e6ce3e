"""Co-occurrence -> embeddings: words of like company lie close."""

import numpy as np
import pytest

from harness.reference.vocabulary import prior_embeddings


def company(first: int, second: int, rows: int, generator: np.random.Generator) -> np.ndarray:
    """Rows that mix tokens first..first+3 with second..second+3."""
    pool = [*range(first, first + 4), *range(second, second + 4)]
    return generator.choice(pool, size=(rows, 12))


@pytest.fixture(scope="module")
def token_ids() -> np.ndarray:
    """Two circles of words, 1 to 8 and 9 to 16, that never meet; 17 to 19 never occur."""
    generator = np.random.default_rng(0)
    return np.concatenate([company(1, 5, 60, generator), company(9, 13, 60, generator)])


def embed(token_ids: np.ndarray, mask: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    return prior_embeddings(
        token_ids,
        np.ones_like(token_ids) if mask is None else mask,
        vocabulary=20,
        dimensions=6,
        deviation=0.05,
        seed=seed,
    )


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_words_that_keep_company_lie_closer_than_words_that_never_meet(token_ids):
    embeddings = embed(token_ids)
    within = [cosine(embeddings[a], embeddings[b]) for a in range(1, 9) for b in range(1, a)]
    across = [cosine(embeddings[a], embeddings[b]) for a in range(1, 9) for b in range(9, 17)]
    assert min(within) > max(across)


def test_the_spread_is_as_asked_and_unseen_words_are_zero(token_ids):
    embeddings = embed(token_ids)
    assert embeddings.shape == (20, 6)
    assert embeddings.dtype == np.float32
    assert embeddings.std() == pytest.approx(0.05, rel=1e-3)
    assert np.allclose(embeddings[17:], 0, atol=1e-6)


def test_padding_is_no_neighbour(token_ids):
    mask = np.ones_like(token_ids)
    mask[:, 6:] = 0
    scrambled = token_ids.copy()
    scrambled[:, 6:] = 19
    assert np.array_equal(embed(token_ids, mask), embed(scrambled, mask))


def test_the_same_seed_gives_the_same_embeddings(token_ids):
    assert np.array_equal(embed(token_ids, seed=3), embed(token_ids, seed=3))
