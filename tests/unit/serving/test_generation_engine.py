"""Continuous batching with a made-up model: who is admitted, what is read and written.

The model counts: behind a row's tokens comes their sum modulo its vocabulary. It keeps each slot's
tokens as the real one keeps keys and values, so a row in the wrong slot, at a wrong position, or
moved wrongly writes other numbers.
"""

import itertools
import random

import numpy as np
import pytest

from harness.serving.generation.contract import QueuedRequest, RejectedRequestError
from harness.serving.generation.engine import GenerationEngine
from harness.types.generation import FinishReason, GeneratorSettings, SamplingParameters

VOCABULARY = 97
END = 96


class SummingModel:
    """Keeps tokens by slot; the next token is the sum of all, with a bit of their order."""

    def __init__(self, slots=3, context=40):
        self.slots, self.context = slots, context
        self.memory = np.full((slots, context), -1)
        self.calls = []

    def read(self, first, rows, start):
        width = max(map(len, rows))
        assert max(start) + width <= self.context
        self.calls.append(("read", [len(row) for row in rows]))
        for place, (row, begin) in enumerate(zip(rows, start, strict=True)):
            slot = first + place
            assert slot < self.slots
            self.memory[slot, begin : begin + len(row)] = row
            self.memory[slot, begin + len(row) : begin + width] = 13  # what padding leaves behind
        return self._logits(
            range(first, first + len(rows)),
            [begin + len(row) for row, begin in zip(rows, start, strict=True)],
        )

    def read_all(self, first, rows, start):
        (width,) = {len(row) for row in rows}
        assert max(start) + width <= self.context
        self.calls.append(("read all", width))
        behind = []
        for slot, (row, begin) in enumerate(zip(rows, start, strict=True), first):
            self.memory[slot, begin : begin + width] = row
            places = range(begin + 1, begin + width + 1)
            behind.append(self._logits([slot] * width, list(places)))
        return np.stack(behind)

    def write(self, tokens, lengths):
        self.calls.append(("write", len(tokens)))
        for slot, (token, length) in enumerate(zip(tokens, lengths, strict=True)):
            self.memory[slot, length] = token
        return self._logits(range(len(tokens)), [length + 1 for length in lengths])

    def move(self, source, target, length):
        self.calls.append(("move", source, target, length))
        self.memory[target, :length] = self.memory[source, :length]

    def _logits(self, slots, lengths):
        logits = np.zeros((len(lengths), VOCABULARY), np.float32)
        for row, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
            logits[row, following(self.memory[slot, :length].tolist())] = 1.0
        return logits


def following(tokens):
    return sum(token * (1 + place % 3) for place, token in enumerate(tokens)) % (VOCABULARY - 1)


def written_alone(prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(following(tokens))
    return tokens[len(prompt) :]


class Letters:
    """Token n is the letter of that number."""

    def decode(self, ids, skip_special_tokens=True):
        return "".join(chr(0x4E00 + token) for token in ids)


class Client:
    """A request, and what came of it."""

    def __init__(self, prompt, **parameters):
        self.prompt = prompt
        self.pieces = []
        self.gone = False
        self.parameters = SamplingParameters(**{"max_tokens": 5, **parameters})

    @property
    def request(self):
        return QueuedRequest(self.prompt, self.parameters, self.pieces.append, lambda: self.gone)

    @property
    def tokens(self):
        return [token for piece in self.pieces for token in piece.tokens]

    @property
    def text(self):
        return "".join(piece.text for piece in self.pieces)

    @property
    def reason(self):
        return self.pieces[-1].reason if self.pieces else None


def make_engine(model=None, ends=(END,), **settings):
    model = model or SummingModel()
    shape = GeneratorSettings(1, 1, 1, VOCABULARY, model.context, ends, None)
    ticks = itertools.count()
    return GenerationEngine(model, Letters(), shape, clock=lambda: next(ticks), **settings)


def run(engine):
    for _ in range(1000):
        if not engine.step():
            return
    raise AssertionError("it does not end")


def test_a_request_is_read_once_and_written_token_by_token():
    engine, client = make_engine(), Client([3, 1, 4])
    engine.submit(client.request)
    run(engine)
    assert client.tokens == written_alone([3, 1, 4], 5)
    assert client.text == Letters().decode(client.tokens)
    assert [piece.reason for piece in client.pieces] == [FinishReason.NONE] * 4 + [
        FinishReason.LENGTH
    ]
    assert engine.decoder.calls == [("read", [3]), *[("write", 1)] * 4]
    counted = engine.counters
    assert (counted.prompt_tokens, counted.output_tokens, counted.finished) == (3, 5, 1)
    assert (counted.queued, counted.running) == (0, 0)


@pytest.mark.parametrize("seed", range(8))
def test_answers_do_not_depend_on_who_else_is_in_the_batch(seed):
    """Requests of all lengths come at all times, some leave early; each is answered as if alone."""
    chance = random.Random(seed)
    engine = make_engine(SummingModel(slots=4), read_tokens=12)
    clients = [
        Client([chance.randrange(96) for _ in range(chance.randint(1, 20))],
               max_tokens=chance.randint(1, 15))
        for _ in range(30)
    ]  # fmt: skip
    coming = list(clients)
    while coming or engine.step():
        for _ in range(min(len(coming), chance.randint(0, 3))):
            engine.submit(coming.pop(0).request)
        for client in clients:
            client.gone |= bool(client.pieces) and chance.random() < 0.01
        engine.step()
    for client in clients:
        wanted = written_alone(client.prompt, client.parameters.max_tokens)
        if client.reason is FinishReason.CANCELLED:
            assert client.tokens == wanted[: len(client.tokens)]
        else:
            assert (client.tokens, client.reason) == (wanted, FinishReason.LENGTH)
    assert engine.counters.finished + engine.counters.cancelled == len(clients)
    assert any(call[0] == "move" for call in engine.decoder.calls)
    assert any(call[0] == "read" and len(call[1]) > 1 for call in engine.decoder.calls)


def test_a_long_prompt_is_read_in_parts_while_others_are_written():
    engine = make_engine(read_tokens=4)
    short, long = Client([1], max_tokens=9), Client(list(range(1, 12)))
    engine.submit(short.request)
    engine.step()
    engine.submit(long.request)
    begun = len(short.pieces)
    for _ in range(3):
        engine.step()
    assert len(short.pieces) == begun + 3
    run(engine)
    assert [call[1] for call in engine.decoder.calls if call[0] == "read"] == [[1], [4], [4], [3]]
    assert long.tokens == written_alone(long.prompt, 5)
    assert short.tokens == written_alone([1], 9)


def test_prompts_that_fit_are_read_together_and_padded_ones_leave_no_trace():
    engine = make_engine()
    clients = [Client([5]), Client([1, 2, 3, 4]), Client([7, 7])]
    for client in clients:
        engine.submit(client.request)
    run(engine)
    assert engine.decoder.calls[0] == ("read", [1, 4, 2])
    for client in clients:
        assert client.tokens == written_alone(client.prompt, 5)


def test_who_waits_gets_the_slot_that_a_cancelled_one_frees():
    engine = make_engine(SummingModel(slots=1))
    first, second = Client([1], max_tokens=30), Client([2], max_tokens=2)
    engine.submit(first.request)
    engine.submit(second.request)
    engine.step()
    assert (engine.counters.running, engine.counters.queued) == (1, 1)
    first.gone = True
    run(engine)
    assert first.reason is FinishReason.CANCELLED
    assert first.tokens == written_alone([1], 2)
    assert second.tokens == written_alone([2], 2)
    assert engine.counters.cancelled == 1


def test_the_last_piece_says_how_long_its_request_waited_for_a_slot():
    engine = make_engine(SummingModel(slots=1))
    clients = [Client([1], max_tokens=3), Client([2], max_tokens=3)]
    for client in clients:
        engine.submit(client.request)
    run(engine)
    first, second = (client.pieces[-1].queue_s for client in clients)
    assert 0 < first < second
    assert engine.counters.queue_s == first + second


def test_a_client_that_leaves_the_queue_is_never_read():
    engine = make_engine(SummingModel(slots=1))
    clients = [Client([1]), Client([2]), Client([3])]
    for client in clients:
        engine.submit(client.request)
    clients[1].gone = True
    run(engine)
    assert [client.reason for client in clients] == ["length", "cancelled", "length"]
    assert engine.counters.prompt_tokens == 2


def test_a_full_queue_says_so():
    engine = make_engine(SummingModel(slots=1), queue_size=2)
    for token in (1, 2):
        engine.submit(Client([token]).request)
    with pytest.raises(RejectedRequestError, match="the queue is full: 2 requests wait"):
        engine.submit(Client([3]).request)
    engine.step()
    engine.submit(Client([3]).request)
    assert engine.counters.rejected == 1


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([], "the prompt is empty"),
        ([1] * 40, "the prompt has 40 tokens; prompt and answer have room for 40"),
        ([VOCABULARY], "has a token 97; the model knows 0 to 96"),
        ([-1], "has a token -1"),
    ],
)
def test_a_prompt_that_cannot_be_answered_is_refused(prompt, said):
    engine = make_engine()
    with pytest.raises(RejectedRequestError, match=said):
        engine.submit(Client(prompt).request)
    assert not engine.step()


def test_an_answer_ends_with_the_context():
    engine = make_engine(SummingModel(context=8))
    client = Client([1, 2, 3], max_tokens=100)
    engine.submit(client.request)
    run(engine)
    assert (len(client.tokens), client.reason) == (5, FinishReason.LENGTH)


def test_zero_tokens_are_answered_without_the_model():
    engine = make_engine()
    client = Client([1, 2], max_tokens=0)
    engine.submit(client.request)
    assert (client.text, client.tokens, client.reason) == ("", [], FinishReason.LENGTH)
    assert not engine.step()
    assert engine.decoder.calls == []


@pytest.mark.parametrize("read_tokens", [2, 64])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_how_probable_the_prompt_is_is_told_with_the_first_piece(read_tokens, max_tokens):
    """The made-up model gives one token a logit of 1 and the others 0."""
    engine = make_engine(read_tokens=read_tokens)
    prompt = [3, 3, 9, 5]  # behind 3 comes 3, behind 3 3 comes 9, behind 3 3 9 comes 36
    assert [following(prompt[:1]), following(prompt[:2]), following(prompt[:3])] == [3, 9, 36]
    asked = Client(prompt, max_tokens=max_tokens, prompt_logprobs=True)
    other = Client([7], max_tokens=6)
    engine.submit(other.request)
    engine.submit(asked.request)
    run(engine)
    told = [piece.prompt for piece in asked.pieces if piece.prompt is not None]
    assert len(told) == 1
    assert asked.pieces[0].prompt is told[0]
    likely = 1 - np.log(np.e + VOCABULARY - 1)
    unlikely = -np.log(np.e + VOCABULARY - 1)
    np.testing.assert_allclose(told[0].logprobs, [0, likely, likely, unlikely], atol=1e-6)
    assert told[0].ranks.tolist() == [0, 1, 1, 2]
    assert asked.tokens == written_alone(prompt, max_tokens)
    assert asked.reason is FinishReason.LENGTH
    assert other.tokens == written_alone([7], 6)
    assert engine.counters.finished == 2


def test_a_prompt_that_is_read_alone_may_fill_the_context():
    engine = make_engine(SummingModel(context=8))
    client = Client([1] * 8, max_tokens=0, prompt_logprobs=True)
    engine.submit(client.request)
    run(engine)
    assert len(client.pieces[0].prompt.ranks) == 8


class ScriptedModel(SummingModel):
    """Writes the same tokens whatever was read."""

    def __init__(self, script):
        super().__init__(slots=1)
        self.script, self.place = script, 0

    def _logits(self, slots, lengths):
        logits = np.zeros((1, VOCABULARY), np.float32)
        logits[0, self.script[self.place]] = 1.0
        logits[0, 50] = 0.5  # the second best
        self.place += 1
        return logits


@pytest.mark.parametrize(
    ("parameters", "tokens", "text", "reason"),
    [
        ({}, [1, 2, END], "\u4e01\u4e02", "stop"),
        ({"ignore_eos": True}, [1, 2, END, 3, 4], "\u4e01\u4e02\u4e60\u4e03\u4e04", "length"),
        ({"min_tokens": 4}, [1, 2, 50, 3, 4], "\u4e01\u4e02\u4e32\u4e03\u4e04", "length"),
        ({"stop": ("\u4e02",)}, [1, 2], "\u4e01", "stop"),
        ({"stop": ("\u4e02\u4e60",), "ignore_eos": True}, [1, 2, END], "\u4e01", "stop"),
        ({"max_tokens": 2, "stop": ("\u4e02\u4e60",)}, [1, 2], "\u4e01\u4e02", "length"),
        ({"stop": ("\u4e02",), "min_tokens": 2}, [1, 2], "\u4e01", "stop"),
        ({"stop": ("\u4e01",), "min_tokens": 2}, [1, 2, END], "\u4e01\u4e02", "stop"),
    ],
)
def test_where_an_answer_ends(parameters, tokens, text, reason):
    engine, client = make_engine(ScriptedModel([1, 2, END, 3, 4, 5])), Client([9], **parameters)
    engine.submit(client.request)
    run(engine)
    assert (client.tokens, client.text, client.reason) == (tokens, text, reason)


def test_a_seed_draws_the_same_alone_and_beside_others():
    def drawn(others):
        engine = make_engine(SummingModel(slots=4))
        client = Client([3, 5], max_tokens=12, temperature=2.0, seed=7)
        for other in range(others):
            engine.submit(Client([other], max_tokens=12, temperature=1.0, seed=other).request)
        engine.submit(client.request)
        run(engine)
        return client.tokens

    assert drawn(0) == drawn(3)
    assert drawn(0) != written_alone([3, 5], 12)


class Unwritable(Letters):
    """Fails at one token."""

    def decode(self, ids, skip_special_tokens=True):
        if 9 in ids:
            raise OverflowError("nine")
        return super().decode(ids)


def test_an_answer_that_fails_ends_alone():
    """At its first token or a later one; also where it cannot even begin."""
    engine = make_engine(SummingModel(slots=4))
    engine.tokenizer = Unwritable()
    # Behind 3 3 comes 9; and no array holds so large a token.
    clients = [Client([3, 3]), Client([3]), Client([7], max_tokens=9), Client([8], max_tokens=9)]
    huge = Client([8])
    for client in clients:
        engine.submit(client.request)
    engine._queue.appendleft((QueuedRequest([2**70], huge.parameters, huge.pieces.append), 0.0))
    run(engine)
    assert all("the answer failed: " in one.pieces[-1].error for one in (*clients[:2], huge))
    assert clients[0].pieces[-1].error.endswith("OverflowError: nine")
    for client in clients[2:]:
        assert (client.tokens, client.reason) == (written_alone(client.prompt, 9), "length")
        assert not any(piece.error for piece in client.pieces)
    assert (engine.counters.running, engine.counters.finished) == (0, 2)


def test_what_is_in_flight_is_known_when_a_step_fails():
    engine = make_engine(SummingModel(slots=1))
    clients = [Client([1]), Client([2])]
    for client in clients:
        engine.submit(client.request)
    engine.step()
    assert [list(one.prompt) for one in engine.fail()] == [[1], [2]]
    assert not engine.step()
