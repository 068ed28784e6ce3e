"""Continuous batching with a made-up model that has an encoder: what is read, when, and into what.

The model's next token depends on its slot's prompt and on the answer so far, so a prompt in another
slot, or one that did not move with its row, writes other numbers.
"""

from __future__ import annotations

import itertools
import random

import pytest
from test_generation_engine import END, VOCABULARY, Client, Letters, SummingModel, following, run

from harness.serving.generation.contract import RejectedRequestError
from harness.serving.generation.engine import GenerationEngine
from harness.types.generation import AnswerRules, FinishReason, GeneratorSettings

START, SOURCE_CONTEXT, CONTEXT = 7, 30, 20


class EncodingModel(SummingModel):
    """Remembers a prompt by the sum of its tokens, and adds that to what comes next."""

    def __init__(self, slots=3):
        super().__init__(slots, CONTEXT)
        self.sums = [0] * slots
        self.encoded = []

    def encode(self, slot, tokens):
        self.encoded.append(len(tokens))
        self.sums[slot] = int(tokens.sum())

    def move(self, source, target, length):
        super().move(source, target, length)
        self.sums[target] = self.sums[source]

    def _logits(self, slots, lengths):
        logits = super()._logits(slots, lengths)
        moved = [logits[row].argmax() + self.sums[slot] for row, slot in enumerate(slots)]
        logits[:] = 0
        for row, token in enumerate(moved):
            logits[row, token % (VOCABULARY - 1)] = 1.0
        return logits


def written_alone(prompt, count, begun=(START,)):
    tokens = list(begun)
    for _ in range(count):
        tokens.append((following(tokens) + sum(prompt)) % (VOCABULARY - 1))
    return tokens[len(begun) :]


NO_RULES = AnswerRules()


def make_engine(slots=3, rules=NO_RULES, **settings):
    shape = GeneratorSettings(
        1, 1, 1, VOCABULARY, CONTEXT, (END,), None, SOURCE_CONTEXT, START, rules
    )
    ticks = itertools.count()
    return GenerationEngine(
        EncodingModel(slots), Letters(), shape, clock=lambda: next(ticks), **settings
    )


def test_the_encoder_reads_a_prompt_once_and_the_decoder_its_start_token():
    engine, client = make_engine(), Client([3, 1, 4])
    engine.submit(client.request)
    run(engine)
    assert client.tokens == written_alone([3, 1, 4], 5)
    assert engine.decoder.encoded == [3]
    assert engine.decoder.calls == [("read", [1]), *[("write", 1)] * 4]
    assert (engine.counters.prompt_tokens, engine.counters.output_tokens) == (3, 5)


@pytest.mark.parametrize("seed", range(6))
def test_answers_do_not_depend_on_who_else_is_in_the_batch(seed):
    chance = random.Random(seed)
    engine = make_engine(read_tokens=25)
    clients = [
        Client(
            [chance.randrange(96) for _ in range(chance.randint(1, SOURCE_CONTEXT))],
            max_tokens=chance.randint(1, 15),
        )
        for _ in range(12)
    ]
    for client in clients:
        engine.submit(client.request)
        for _ in range(chance.randint(0, 2)):
            engine.step()
    run(engine)
    for client in clients:
        assert client.tokens == written_alone(client.prompt, client.parameters.max_tokens)
    assert sorted(engine.decoder.encoded) == sorted(len(client.prompt) for client in clients)


def test_a_pause_takes_prompts_of_so_many_tokens_together_and_one_at_least():
    engine = make_engine(read_tokens=10)
    long, *short = [Client([1] * length) for length in (28, 5, 5)]
    for client in (long, *short):
        engine.submit(client.request)
    engine.step()
    assert engine.decoder.encoded == [28]
    engine.step()
    assert engine.decoder.encoded == [28, 5, 5]


def test_a_row_takes_its_encoded_prompt_along_before_the_decoder_has_read_anything():
    """A scored row is read alone, so one behind it is encoded, and moves, before its turn."""
    engine = make_engine()
    scored = Client([1, 2], max_tokens=0, prompt_logprobs=True, decoder_prompt=(5, 6))
    other = Client([8, 9])
    for client in (scored, other):
        engine.submit(client.request)
    engine.step()
    assert engine.decoder.encoded == [2, 2]
    run(engine)
    assert other.tokens == written_alone([8, 9], 5)
    assert len(scored.pieces[0].prompt.logprobs) == 2


def test_what_the_answer_begins_with_is_read_and_not_sent():
    engine = make_engine()
    client = Client([3, 1, 4], decoder_prompt=(11, 12))
    engine.submit(client.request)
    run(engine)
    assert client.tokens == written_alone([3, 1, 4], 5, begun=(START, 11, 12))
    assert engine.counters.prompt_tokens == 3 + 2


def test_prompt_and_answer_have_a_length_each():
    engine = make_engine()
    engine.submit(Client([1] * SOURCE_CONTEXT).request)
    with pytest.raises(RejectedRequestError, match="31 tokens; the encoder reads 30 at most"):
        engine.submit(Client([1] * (SOURCE_CONTEXT + 1)).request)
    with pytest.raises(
        RejectedRequestError, match=r"19 tokens; with the start token .* room for 20"
    ):
        engine.submit(Client([1], decoder_prompt=(2,) * 19).request)
    with pytest.raises(RejectedRequestError, match="decoder_prompt has a token 97"):
        engine.submit(Client([1], decoder_prompt=(VOCABULARY,)).request)
    client = Client([1], max_tokens=50)
    engine.submit(client.request)
    run(engine)
    assert len(client.tokens) == CONTEXT - 1
    assert client.reason is FinishReason.LENGTH


def test_rules_hold_for_every_answer_and_a_forced_end_is_told_as_the_limit():
    rules = AnswerRules(forced_first=50, forced_last=END, no_repeat=1)
    engine = make_engine(rules=rules)
    clients = [Client([place], max_tokens=8) for place in range(4)]
    for client in clients:
        engine.submit(client.request)
    run(engine)
    for client in clients:
        assert (client.tokens[0], client.tokens[-1], len(client.tokens)) == (50, END, 8)
        assert len(set(client.tokens)) == 8
        assert client.reason is FinishReason.LENGTH


def test_a_model_without_an_encoder_takes_no_beginning_of_an_answer():
    shape = GeneratorSettings(1, 1, 1, VOCABULARY, CONTEXT, (END,), None)
    engine = GenerationEngine(SummingModel(), Letters(), shape)
    with pytest.raises(RejectedRequestError, match="decoder_prompt is for models with an encoder"):
        engine.submit(Client([1], decoder_prompt=(2,)).request)
