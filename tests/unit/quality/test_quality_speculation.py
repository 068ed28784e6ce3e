"""Speculation: the text is the teacher's, and the acceptance rate tells the runs that it takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.quality.speculation.acceptance import (
    Replay,
    acceptance_bounds,
    draft_measures,
    replay,
)
from harness.quality.speculation.speed import predicted_speedup
from harness.types.roles import StepCosts
from tests.speculative_decoding import (
    NextLogits,
    Round,
    write_greedily,
    write_speculatively,
)

VOCABULARY = 11
END = 10


def _model(seed: int, *, unlike: int = 0, of: int = 0) -> NextLogits:
    """A model whose next token is decided by all tokens before it.

    Args:
        seed: of the model.
        unlike: in about one place of so many it says what the model of seed `of` does not.
        of: the seed of another model; everywhere else it says what that one says.
    """

    def after(context: Sequence[int]) -> int:
        digest = hashlib.sha256(repr((of, tuple(context))).encode()).digest()
        own = hashlib.sha256(repr((seed, tuple(context))).encode()).digest()
        # The end is rarer than the other tokens: one context in 40.
        token = END if digest[1] % 40 == 0 else digest[0] % END
        if unlike and own[0] % unlike == 0:
            return (token + 1 + own[1] % END) % VOCABULARY
        return token

    def logits(tokens: Sequence[int]) -> NDArray[np.floating]:
        said = [after(tokens[: place + 1]) for place in range(len(tokens))]
        return np.eye(VOCABULARY)[said]

    return logits


TEACHER = _model(0)


def by_position(told: Replay) -> NDArray[np.float64]:
    """Share accepted at each position, given that those before were; NaN where none got there."""
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = told.accepted.sum(axis=0) / told.proposed.sum(axis=0)
    return shares


@pytest.mark.parametrize("draft_tokens", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("unlike", [0, 1, 2, 5])
def test_the_text_is_the_teachers_however_bad_the_draft(draft_tokens: int, unlike: int) -> None:
    draft = _model(1, unlike=unlike)
    for first in range(12):
        alone = write_greedily(TEACHER, [first, 3], max_new_tokens=23, end_tokens=[END])
        found = write_speculatively(
            TEACHER,
            draft,
            [first, 3],
            draft_tokens=draft_tokens,
            max_new_tokens=23,
            end_tokens=[END],
        )
        assert found.tokens == alone


def test_some_of_these_texts_end_by_themselves_and_some_at_the_limit() -> None:
    texts = [
        write_greedily(TEACHER, [first, 3], max_new_tokens=23, end_tokens=[END])
        for first in range(12)
    ]
    assert {text[-1] == END for text in texts} == {True, False}


def test_the_first_token_of_a_draft_is_not_kept_unverified() -> None:
    never_right = _model(1, unlike=1)
    found = write_speculatively(TEACHER, never_right, [4], draft_tokens=3, max_new_tokens=6)
    assert found.tokens == write_greedily(TEACHER, [4], max_new_tokens=6)
    assert found.rounds == (Round(3, 0), Round(3, 0), Round(3, 0), Round(2, 0), Round(1, 0),
                            Round(0, 0))  # fmt: skip


def test_a_draft_like_its_teacher_is_accepted_whole() -> None:
    found = write_speculatively(TEACHER, TEACHER, [4], draft_tokens=3, max_new_tokens=8)
    assert found.rounds == (Round(3, 3), Round(3, 3))  # four tokens a run


def test_nothing_behind_the_end_is_kept() -> None:
    def says(*text: int) -> NextLogits:
        return lambda tokens: np.eye(VOCABULARY)[list((*text, *[1] * 9)[: len(tokens)])]

    teacher, draft = says(5, END, 7, 7), says(5, END, 7, 7)
    found = write_speculatively(
        teacher, draft, [0], draft_tokens=4, max_new_tokens=9, end_tokens=[END]
    )
    assert found.tokens == (5, END)


def test_a_prompt_that_ends_with_the_end_token_is_continued() -> None:
    found = write_speculatively(
        TEACHER, TEACHER, [4, END], draft_tokens=2, max_new_tokens=5, end_tokens=[END]
    )
    assert found.tokens == write_greedily(TEACHER, [4, END], max_new_tokens=5, end_tokens=[END])
    assert found.tokens


def _matches(text: Sequence[int], prompt: Sequence[int], draft: NextLogits) -> NDArray[np.bool_]:
    said = draft([*prompt, *text])[len(prompt) - 1 : -1].argmax(axis=-1)
    return np.asarray(said == np.asarray(text))


@pytest.mark.parametrize("draft_tokens", [1, 2, 4, 7])
def test_a_replay_has_the_rounds_of_the_speculation_itself(draft_tokens: int) -> None:
    draft = _model(1, unlike=4)
    prompts = [[first, 5] for first in range(10)]
    rounds: list[tuple[Round, ...]] = []
    matches = []
    for prompt in prompts:
        found = write_speculatively(
            TEACHER, draft, prompt, draft_tokens=draft_tokens, max_new_tokens=25
        )
        rounds.append(found.rounds)
        matches.append(_matches(found.tokens, prompt, draft))
    told = replay(matches, draft_tokens)
    assert told.rounds.tolist() == [len(one) for one in rounds]
    assert told.drafted.tolist() == [sum(each.proposed for each in one) for one in rounds]
    assert told.accepted.sum(axis=1).tolist() == [
        sum(each.accepted for each in one) for one in rounds
    ]


def test_a_replay_by_position() -> None:
    # Drafts of two: [T T] 3 tokens, [F ...] 1, [T F] 2, then one place left: nothing to propose.
    same = np.array([True, True, False, False, True, False, True])
    found = replay([same], 2)
    assert found.rounds.tolist() == [4]
    assert found.proposed.tolist() == [[3, 2]]
    assert found.accepted.tolist() == [[2, 1]]
    assert found.drafted.tolist() == [6]
    assert by_position(found).tolist() == [pytest.approx(2 / 3), 0.5]
    assert found.tokens_per_run == 7 / 4


def test_a_position_that_no_draft_reached_has_no_share() -> None:
    found = replay([np.array([False, False, False])], 2)
    assert by_position(found)[0] == 0.0
    assert np.isnan(by_position(found)[1])


def test_acceptance_is_of_all_places_and_its_interval_of_texts() -> None:
    texts = [np.array([True] * 3 + [False]), np.array([True] * 9 + [False] * 3)]
    value, found = acceptance_bounds(texts, seed=0)
    assert value == 0.75
    assert found.units == 2
    alone, of_one = acceptance_bounds(texts[:1], seed=0)
    assert (alone, of_one.low, of_one.high) == (0.75, None, None)


def test_tokens_of_a_run_are_those_of_drafts_accepted_by_chance() -> None:
    generator = np.random.default_rng(5)
    found = replay([generator.random(200_000) < 0.7], 4)
    # (1 - a^(d + 1)) / (1 - a): Leviathan et al. 2023, equation 1.
    assert found.tokens_per_run == pytest.approx((1 - 0.7**5) / (1 - 0.7), rel=0.01)
    assert by_position(found) == pytest.approx(np.full(4, 0.7), abs=0.01)


def test_measures_of_a_draft_are_those_of_its_replay() -> None:
    generator = np.random.default_rng(1)
    texts = [generator.random(30) < 0.6 for _ in range(40)]
    told = replay(texts, 4)
    found = {
        name: (value, low, high) for name, value, low, high, _ in draft_measures(texts, seed=0)
    }
    assert found["draft_acceptance"][0] == pytest.approx(np.mean(np.concatenate(texts)))
    assert found["draft_tokens_per_run"][0] == told.tokens_per_run
    shares = [found[f"draft_accepted_{place}"][0] for place in (1, 2, 3, 4)]
    assert shares == pytest.approx(by_position(told).tolist())
    for value, low, high in found.values():
        assert low is not None
        assert high is not None
        assert low < value < high
    assert found["draft_acceptance"][1] < 0.6 < found["draft_acceptance"][2]


def test_a_draft_that_is_never_right_adds_nothing_and_has_no_second_position() -> None:
    found = {name: value for name, value, *_ in draft_measures([np.zeros(9, bool)] * 5, seed=0)}
    assert found == {
        "draft_acceptance": 0.0,
        "draft_tokens_per_run": 1.0,
        "draft_accepted_1": 0.0,
    }


def test_the_predicted_speedup_is_the_papers_where_checking_costs_what_a_token_does() -> None:
    # Leviathan et al., theorem 3.8: (1 - a^(g+1)) / ((1 - a) (g c + 1)).
    a, g, c = 0.8, 5, 0.1
    tokens = (1 - a ** (g + 1)) / (1 - a)
    costs = StepCosts(teacher_ms=20.0, verification_ms=20.0, draft_ms=20.0 * c)
    assert predicted_speedup(tokens, g, costs) == pytest.approx(tokens / (g * c + 1))


def test_checking_that_costs_more_takes_from_the_speedup() -> None:
    # 2 tokens in 3 x 0.5 + 2.5 ms, where the teacher alone takes 2 x 2 ms: as fast.
    costs = StepCosts(teacher_ms=2.0, verification_ms=2.5, draft_ms=0.5)
    assert predicted_speedup(2.0, 3, costs) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="above 0"):
        predicted_speedup(2.0, 3, StepCosts(2.0, 0.0, 0.5))
