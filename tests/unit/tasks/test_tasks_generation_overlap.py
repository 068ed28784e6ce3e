"""chrF and ROUGE of written texts, held against sacrebleu and rouge-score themselves."""

from __future__ import annotations

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

from harness.statistics.intervals import bounds
from harness.tasks.generation.overlap import chrf_sums, rouge_reads, rouge_scores

REFERENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Returns the sum of all elements in the input tensor.",
    "a",
    "Café au lait, s'il vous plaît",
    "the cat sat on the mat",
)
TEXTS = (
    "A quick brown dog jumped over the fox",
    "Returns the sum of all elements in the input tensor.",
    "abcdef",
    "cafe au lait",
    "",
)


def _value(references: tuple[str, ...], texts: tuple[str, ...]) -> float:
    sums = chrf_sums(references, texts)
    return float(sums.of_sums(sums.table.sum(axis=0)))


def test_chrf_is_sacrebleus_corpus_score() -> None:
    expected = CHRF().corpus_score(list(TEXTS), [list(REFERENCES)]).score
    assert 100 * _value(REFERENCES, TEXTS) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("row", range(len(TEXTS)))
def test_chrf_of_one_prompt_is_sacrebleus_sentence_score(row: int) -> None:
    expected = CHRF().sentence_score(TEXTS[row], [REFERENCES[row]]).score
    found = 100 * _value(REFERENCES[row : row + 1], TEXTS[row : row + 1])
    assert found == pytest.approx(expected, abs=1e-9)


def test_chrf_of_weighted_prompts_is_that_of_repeated_ones() -> None:
    sums = chrf_sums(REFERENCES, TEXTS)
    weighted = float(sums.of_sums(np.array([3, 1, 1, 2, 1]) @ sums.table))
    repeats = [0, 0, 0, 1, 2, 3, 3, 4]
    expected = CHRF().corpus_score(
        [TEXTS[row] for row in repeats], [[REFERENCES[row] for row in repeats]]
    )
    assert 100 * weighted == pytest.approx(expected.score, abs=1e-9)


def test_chrf_of_the_reference_itself_is_1_and_has_an_interval_below_it() -> None:
    assert _value(REFERENCES, REFERENCES) == 1.0
    found = bounds(chrf_sums(REFERENCES, REFERENCES), seed=0)
    assert found.high == 1.0
    assert found.low is not None
    assert 0.4 < found.low < 0.9


def test_rouge_is_rouge_scores_own_f1() -> None:
    found = rouge_scores(REFERENCES, TEXTS)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for row, (reference, text) in enumerate(zip(REFERENCES, TEXTS, strict=True)):
        expected = scorer.score(reference, text)
        assert found["rouge_1"][row] == expected["rouge1"].fmeasure
        assert found["rouge_2"][row] == expected["rouge2"].fmeasure
        assert found["rouge_l"][row] == expected["rougeL"].fmeasure


def test_rouge_of_a_known_pair() -> None:
    # police, the, gunman are in both and in order: 3 of 4 words on either side.
    found = rouge_scores(["police killed the gunman"], ["police kill the gunman"])
    assert found["rouge_1"].tolist() == [0.75]
    assert found["rouge_l"].tolist() == [0.75]
    assert found["rouge_2"].tolist() == [pytest.approx(1 / 3)]


def test_rouge_is_not_told_of_an_alphabet_that_it_drops() -> None:
    assert rouge_scores(["the cat", "ἡ γάτα"], ["the cat", "ἡ γάτα"]) == {}
    assert not rouge_reads("猫坐在垫子上 3")
    assert not rouge_reads("...")
    assert rouge_reads("déjà vu")
