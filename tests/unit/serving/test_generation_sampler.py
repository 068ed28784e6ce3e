"""Draws of the next token, held against transformers' own processors of logits."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from harness.serving.generation.sampler import Sampler, distribution
from harness.tasks.generation.rules import RuledAnswer
from harness.types.generation import AnswerRules, SamplingParameters


def logits_of(seed, size=50):
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def by_transformers(logits, temperature, top_k, top_p):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k > 0:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    return torch.softmax(warpers(None, torch.from_numpy(logits)[None].double()), -1)[0].numpy()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 5, 50, 60])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.95, 1.0])
def test_the_distribution_is_that_of_transformers(temperature, top_k, top_p):
    for seed in range(5):
        logits = logits_of(seed)
        parameters = SamplingParameters(temperature=temperature, top_k=top_k, top_p=top_p)
        tokens, probabilities = distribution(logits, parameters)
        ours = np.zeros(len(logits))
        ours[tokens] = probabilities
        wanted = by_transformers(logits, temperature, min(top_k, 50), top_p)
        np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-300, 1e300, 1.7e308])
@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_a_temperature_at_the_edge_of_floats_still_draws(temperature, top_p):
    """A failure here would be one of a step, and end the answers of everybody in it."""
    logits = logits_of(1)
    logits[3] = -np.inf  # as the end token before `min_tokens`
    parameters = SamplingParameters(temperature=temperature, top_p=top_p, seed=1)
    tokens, probabilities = distribution(logits, parameters)
    assert probabilities.sum() == pytest.approx(1)
    if temperature < 1:
        assert (tokens[0], probabilities[0]) == (logits.argmax(), 1)
    assert 0 <= Sampler(parameters, ()).choose(logits, 0) < len(logits)


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1])
def test_every_seed_of_openais_api_draws(seed):
    parameters = SamplingParameters(temperature=1.0, seed=seed)
    first, again = (Sampler(parameters, ()) for _ in range(2))
    drawn = [first.choose(logits_of(place), 0) for place in range(20)]
    assert drawn == [again.choose(logits_of(place), 0) for place in range(20)]


def test_draws_follow_the_distribution():
    logits = logits_of(3, 6)
    parameters = SamplingParameters(temperature=1.5, seed=11)
    sampler = Sampler(parameters, ())
    counts = np.bincount([sampler.choose(logits, 0) for _ in range(20_000)], minlength=6)
    wanted = by_transformers(logits, 1.5, 0, 1.0) * 20_000
    assert chisquare(counts, wanted * counts.sum() / wanted.sum()).pvalue > 0.001


def test_a_temperature_of_zero_is_greedy_and_draws_nothing():
    sampler = Sampler(SamplingParameters(top_k=3, top_p=0.5), ())
    assert sampler.is_greedy
    assert [sampler.choose(logits_of(seed), 0) for seed in range(9)] == [
        int(logits_of(seed).argmax()) for seed in range(9)
    ]


def test_a_seed_is_a_sequence_and_none_is_a_new_one():
    def drawn(seed):
        sampler = Sampler(SamplingParameters(temperature=5.0, seed=seed), ())
        return [sampler.choose(logits_of(0), 0) for _ in range(30)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(None) != drawn(None)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_end_token_before_min_tokens(temperature):
    logits = np.array([0.0, 30.0, 1.0], np.float32)
    parameters = SamplingParameters(temperature=temperature, min_tokens=2, seed=0)
    sampler = Sampler(parameters, end_tokens=(1,))
    assert 1 not in {sampler.choose(logits, chosen) for chosen in (0, 1)}
    assert sampler.choose(logits, 2) == 1
    assert logits[1] == 30.0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rules", [None, AnswerRules(repetition_penalty=1.3, banned=(9, -1))])
def test_tokens_that_the_model_has_not_fail_nobody(temperature, rules):
    """A failure here would be one of a step; and a token below 0 is not one from the end."""
    parameters = SamplingParameters(max_tokens=4, temperature=temperature, min_tokens=2, seed=0)
    ruled = rules and RuledAnswer(rules, begun=[0], source=[], end_tokens=(50256,), most=4)
    sampler = Sampler(parameters, (50256, -1, 1), ruled)
    assert sampler.choose(np.array([0.0, 60.0, 30.0], np.float32), 0) == 2


def test_a_forced_last_token_comes_even_before_min_tokens():
    """As `generate()` does it: `forced_eos_token_id` is done to logits behind least lengths."""
    rules = AnswerRules(forced_last=1)
    ruled = RuledAnswer(rules, begun=[0], source=[], end_tokens=(1,), most=2)
    sampler = Sampler(SamplingParameters(max_tokens=2, min_tokens=2), (1,), ruled)
    logits = np.array([0.0, 30.0, 1.0], np.float32)
    assert sampler.choose(logits, 0) == 2
    ruled.push(2)
    assert sampler.choose(logits, 1) == 1


def test_equal_logits_are_drawn_from_in_the_order_of_tokens():
    tokens, probabilities = distribution(
        np.array([2, 2, 1, 2], np.float32), SamplingParameters(temperature=1.0, top_k=2)
    )
    assert tokens.tolist() == [0, 1]
    assert probabilities.tolist() == [0.5, 0.5]
