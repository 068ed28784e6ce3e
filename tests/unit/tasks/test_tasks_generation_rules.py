"""A checkpoint's rules leave the logits that transformers' own processors leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import logits_process as processors

from harness.export.generation.checkpoint_rules import answer_rules
from harness.tasks.generation.rules import RuledAnswer

START, END, WORDS, MOST = 5, 2, 12, 9
SOURCE = [3, 4, 6, 3, 4, 7, 3]


END_TOKENS = torch.tensor([END])
LIBRARY = {
    "repetition_penalty": processors.RepetitionPenaltyLogitsProcessor,
    "no_repeat_ngram_size": processors.NoRepeatNGramLogitsProcessor,
    "encoder_no_repeat_ngram_size": lambda size: processors.EncoderNoRepeatNGramLogitsProcessor(
        size, torch.tensor([SOURCE])
    ),
    "bad_words_ids": lambda words: processors.NoBadWordsLogitsProcessor(words, END_TOKENS),
    "min_length": lambda least: processors.MinLengthLogitsProcessor(least, END_TOKENS),
    "min_new_tokens": lambda least: processors.MinNewTokensLengthLogitsProcessor(
        1, least, END_TOKENS
    ),
    "forced_bos_token_id": processors.ForcedBOSTokenLogitsProcessor,
    "forced_eos_token_id": lambda end: processors.ForcedEOSTokenLogitsProcessor(MOST + 1, end),
    "suppress_tokens": processors.SuppressTokensLogitsProcessor,
}
"""The processor that generate() makes of each, in its order."""


def library(asked):
    made = [make(asked[name]) for name, make in LIBRARY.items() if name in asked]
    if "begin_suppress_tokens" in asked:
        first = 2 if "forced_bos_token_id" in asked else 1
        made.append(
            processors.SuppressTokensAtBeginLogitsProcessor(asked["begin_suppress_tokens"], first)
        )
    return LogitsProcessorList(made)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"encoder_no_repeat_ngram_size": 2},
        {"encoder_no_repeat_ngram_size": 3},
        {"repetition_penalty": 1.3},
        {"min_length": 5},
        {"min_new_tokens": 4},
        {"forced_bos_token_id": 8, "forced_eos_token_id": END},
        {"suppress_tokens": [6, 7], "begin_suppress_tokens": [3]},
        {"suppress_tokens": [6, WORDS + 5, -1], "begin_suppress_tokens": [-2, WORDS]},
        {"begin_suppress_tokens": [3, 4], "forced_bos_token_id": 8},
        {"bad_words_ids": [[9], [END]]},
        {"forced_bos_token_id": 8, "no_repeat_ngram_size": 2, "min_length": 6},
        {"repetition_penalty": 0.8, "no_repeat_ngram_size": 2, "forced_eos_token_id": END},
    ],
    ids=lambda asked: "+".join(f"{name}={value}" for name, value in asked.items()) or "nothing",
)
def test_logits_are_those_that_the_library_s_processors_leave(asked):
    rules = answer_rules(GenerationConfig(eos_token_id=END, **asked))
    random = np.random.default_rng(1)
    # Few words, so that pairs and threes come again.
    written = random.choice([3, 4, 6], MOST).tolist()
    answer = RuledAnswer(rules, begun=[START], source=SOURCE, end_tokens=[END], most=MOST)
    chain = library(asked)
    changed = 0
    for place, token in enumerate(written):
        logits = random.normal(size=WORDS).astype(np.float32)
        before = torch.tensor([[START, *written[:place]]])
        wanted = chain(before, torch.from_numpy(logits.copy())[None])[0].numpy()
        np.testing.assert_allclose(answer.shaped(logits), wanted, rtol=1e-6)
        changed += not np.array_equal(wanted, logits)
        answer.push(token)
    assert bool(changed) == bool(asked)


def test_behind_a_prompt_repetitions_and_lengths_count_from_its_first_token():
    """As a causal model's: what the decoder reads is the prompt itself."""
    prompt, asked = [3, 4, 3, 4, 6], {"min_length": 8, "repetition_penalty": 1.3}
    asked |= {"no_repeat_ngram_size": 2, "suppress_tokens": [7]}
    rules = answer_rules(GenerationConfig(eos_token_id=END, **asked))
    answer = RuledAnswer(rules, begun=prompt, source=prompt, end_tokens=[END], most=MOST)
    chain, random = library(asked), np.random.default_rng(2)
    for place, token in enumerate(written := random.choice([3, 4, 6], MOST).tolist()):
        logits = random.normal(size=WORDS).astype(np.float32)
        before = torch.tensor([[*prompt, *written[:place]]])
        wanted = chain(before, torch.from_numpy(logits.copy())[None])[0].numpy()
        np.testing.assert_allclose(answer.shaped(logits), wanted, rtol=1e-6)
        answer.push(token)


def test_min_new_tokens_puts_min_length_out_of_force():
    """`generate()` says so in a warning."""
    asked = GenerationConfig(eos_token_id=END, min_length=9, min_new_tokens=2)
    assert (answer_rules(asked).min_tokens, answer_rules(asked).min_length) == (2, 0)


def test_given_logits_are_not_changed():
    rules = answer_rules(GenerationConfig(eos_token_id=END, min_length=5, repetition_penalty=2.0))
    answer = RuledAnswer(rules, begun=[START], source=[], end_tokens=[END], most=3)
    logits = np.ones(WORDS, np.float32)
    answer.shaped(logits)
    assert (logits == 1).all()
