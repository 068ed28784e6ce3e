"""A draft proposes tokens: fewer runs of the served model, and the very same answers."""

import random

import numpy as np
import pytest

from harness.serving.generation.draft import Draft, DraftedText
from harness.types.generation import FinishReason
from tests.speculative_decoding import write_speculatively
from tests.unit.serving.test_generation_engine import (
    VOCABULARY,
    Client,
    Letters,
    SummingModel,
    following,
    make_engine,
    run,
    written_alone,
)


class NearlyRight(SummingModel):
    """Says what the served model says, but for one text in `period`."""

    def __init__(self, period, **shape):
        super().__init__(**shape)
        self.period = period

    def _logits(self, slots, lengths):
        logits = super()._logits(slots, lengths)
        for row, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
            if sum(self.memory[slot, :length].tolist()) % self.period == 0:
                logits[row] = np.roll(logits[row], 1)
        return logits


class Undecided(SummingModel):
    """Finds a few tokens likely, which ones depends on all that is before."""

    def _logits(self, slots, lengths):
        logits = super()._logits(slots, lengths)
        return sum(np.roll(logits, 7 * place, axis=-1) / (1 + place) for place in range(5))


def drafted(period=3, tokens=4, model=None, slots=3, context=40, **settings):
    draft = Draft(NearlyRight(period, slots=slots, context=context), tokens)
    return make_engine(model or SummingModel(slots, context), draft=draft, **settings)


def logits_of(says):
    return lambda text: np.stack([one_hot(says(text[: place + 1])) for place in range(len(text))])


def one_hot(token):
    return np.eye(VOCABULARY)[token]


def nearly_right(text):
    return (following(text) + (sum(text) % 3 == 0)) % VOCABULARY


@pytest.mark.parametrize("tokens", [1, 2, 4, 7])
def test_one_stream_takes_the_runs_that_speculative_decoding_takes(tokens):
    engine, client = drafted(tokens=tokens, ends=()), Client([3, 1, 4], max_tokens=24)
    engine.submit(client.request)
    run(engine)
    # The first token comes of the prompt's own run.
    first = following([3, 1, 4])
    expected = write_speculatively(
        logits_of(following),
        logits_of(nearly_right),
        [3, 1, 4, first],
        draft_tokens=tokens,
        max_new_tokens=23,
    )
    assert client.tokens == [first, *expected.tokens] == written_alone([3, 1, 4], 24)
    runs = expected.rounds
    assert engine.counters.write_steps == len(runs) < 23
    assert engine.counters.draft_accepted == sum(one.accepted for one in runs)
    assert engine.counters.draft_tokens == sum(one.proposed for one in runs)
    # An event a run: several tokens in one where the draft was right.
    assert [len(piece.tokens) for piece in client.pieces] == [
        1,
        *(one.accepted + 1 for one in runs),
    ]


@pytest.mark.parametrize("seed", range(8))
def test_answers_are_those_without_a_draft_whoever_comes_and_goes(seed):
    chance = random.Random(seed)
    engine = drafted(period=chance.choice([1, 2, 5, 10**9]), tokens=chance.randint(1, 6))
    engine.read_tokens = 7  # prompts in parts
    clients = []
    for _ in range(25):
        if chance.random() < 0.6:
            prompt = [chance.randrange(1, 90) for _ in range(chance.randint(1, 20))]
            most = chance.randint(1, 30)
            scored = chance.random() < 0.3
            client = Client(prompt, max_tokens=most, ignore_eos=True, prompt_logprobs=scored)
            clients.append(client)
            engine.submit(client.request)
        if clients and chance.random() < 0.1:
            clients[-1].gone = True
        engine.step()
    run(engine)
    for client in clients:
        room = min(client.parameters.max_tokens, 40 - len(client.prompt))
        expected = written_alone(client.prompt, room)
        if client.gone and client.reason is FinishReason.CANCELLED:
            assert client.tokens == expected[: len(client.tokens)]
        else:
            assert client.tokens == expected
            assert client.text == Letters().decode(expected)
            assert client.reason is FinishReason.LENGTH


def test_a_seed_draws_the_same_text_with_and_without_a_draft():
    texts = []
    for make in (make_engine, drafted):
        engine = make(Undecided()) if make is make_engine else make(period=10**9, model=Undecided())
        clients = [
            Client([5, place], max_tokens=25, temperature=0.8, seed=place) for place in (1, 2)
        ]
        for client in clients:
            engine.submit(client.request)
        run(engine)
        texts.append([client.tokens for client in clients])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]
    assert 0 < engine.counters.draft_accepted < engine.counters.draft_tokens


def test_an_answer_ends_within_what_was_proposed():
    expected = written_alone([3, 1, 4], 8)
    third = Letters().decode(expected[2:3])
    engine = drafted(period=10**9, tokens=6, ends=())
    stopped = Client([3, 1, 4], max_tokens=20, stop=(third,))
    engine.submit(stopped.request)
    run(engine)
    assert stopped.text == Letters().decode(expected[:2])
    assert (stopped.tokens, stopped.reason) == (expected[:3], FinishReason.STOP)

    engine = drafted(period=10**9, tokens=6, ends=(expected[4],))
    ended = Client([3, 1, 4], max_tokens=20)
    engine.submit(ended.request)
    run(engine)
    assert (ended.tokens, ended.reason) == (expected[:5], FinishReason.STOP)
    assert ended.text == Letters().decode(expected[:4])

    engine = drafted(period=10**9, tokens=6, ends=(expected[4],))
    longer = Client([3, 1, 4], max_tokens=8, min_tokens=8)
    engine.submit(longer.request)
    run(engine)
    assert expected[4] not in longer.tokens
    assert len(longer.tokens) == 8


def test_a_text_at_the_end_of_its_context_is_checked_over_what_is_left():
    engine, client = drafted(period=10**9, ends=(), context=20), Client([2] * 5, max_tokens=99)
    engine.submit(client.request)
    run(engine)
    assert client.tokens == written_alone([2] * 5, 15)
    assert client.reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("proposed", "kept", "accepted", "seen", "unread"),
    [
        ([], [7], 0, 4, [6, 7]),  # it was not asked
        ([1, 2, 3], [9], 0, 5, [9]),
        ([1, 2, 3], [1, 9], 1, 6, [9]),
        ([1, 2, 3], [1, 2, 9], 2, 7, [9]),
        ([1, 2, 3], [1, 2, 3, 9], 3, 7, [3, 9]),  # it has not read its own last token
    ],
)
def test_what_a_draft_read_stays_as_far_as_it_was_right(proposed, kept, accepted, seen, unread):
    text = DraftedText(seen=4, unread=[6])
    assert text.settle(proposed, kept) == accepted
    assert (text.seen, text.unread) == (seen, unread)
