"""The model around the engine, with a Triton that is made up: it fails where the real one may."""

import importlib
import json
import sys
import time
import types

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from harness.types.generation import GeneratorSettings

WORDS, END = 20, 19
PATIENCE_S = 20
PAGE = {}
"""The metrics page: equal names are one metric, whichever instance they are of."""


class MetricFamily:
    COUNTER, GAUGE = "counter", "gauge"

    def __init__(self, name, description, kind):
        self.name = name

    def Metric(self, labels):  # noqa: N802  (Triton's name)
        return Metric(self.name)


class Metric:
    def __init__(self, name):
        self.name = name
        PAGE.setdefault(name, 0.0)

    def increment(self, value):
        PAGE[self.name] += value

    def set(self, value):
        PAGE[self.name] = value


class TritonError(Exception):
    UNAVAILABLE, INVALID_ARG, INTERNAL = "unavailable", "invalid", "internal"


class Response:
    def __init__(self, tensors=(), error=None):
        self.tensors, self.error = dict(tensors), error


class Logger:
    fails = False
    lines = []  # noqa: RUF012  (one log)

    @classmethod
    def log_error(cls, line):
        if cls.fails:
            raise RuntimeError("no memory for a line")
        cls.lines.append(line)


class Sender:
    """Takes responses; some of them are lost."""

    def __init__(self, lost=()):
        self.lost, self.count = lost, 0
        self.tokens, self.errors, self.ended = [], [], False
        self.text = ""

    def send(self, response, flags=0):
        self.count += 1
        if self.count - 1 in self.lost:
            raise TritonError("no memory for a response")
        assert not self.ended
        self.ended = bool(flags)
        if response.error is not None:
            self.errors.append(response.error.args)
        else:
            self.tokens += response.tensors["token_ids"].tolist()
            self.text += response.tensors["text_output"][0].decode()

    def is_cancelled(self):
        return False


class Request:
    def __init__(self, sender, **inputs):
        self.sender = sender
        self.given = {"return_finish_reason": np.array([True])} | {
            name: np.array([one.encode()], np.object_) if isinstance(one, str) else np.array(one)
            for name, one in inputs.items()
        }

    def get_response_sender(self):
        return self.sender

    def inputs(self):
        return [
            types.SimpleNamespace(name=lambda name=name: name, as_numpy=lambda one=one: one)
            for name, one in self.given.items()
        ]

    def parameters(self):
        return ""

    def requested_output_names(self):
        return ["text_output", "token_ids"]


class CountingModel:
    """Behind a token comes the next; some tokens fail the step that reads them."""

    slots, context = 2, 10**6
    bad = 18

    def read(self, first, rows, start):
        return self.write([int(row[-1]) for row in rows], start)

    def write(self, tokens, lengths):
        time.sleep(0.001)  # as a real one: the others get a turn
        if self.bad in tokens:
            raise RuntimeError("a bad token")
        logits = np.zeros((len(tokens), WORDS), np.float32)
        logits[np.arange(len(tokens)), [(token + 1) % 10 for token in tokens]] = 1.0
        return logits

    def move(self, source, target, length):
        pass


@pytest.fixture
def instance(monkeypatch, tmp_path):
    """Starts instances; they end with the test."""
    stub = types.ModuleType("triton_python_backend_utils")
    stub.__dict__.update(
        MetricFamily=MetricFamily, TritonError=TritonError, InferenceResponse=Response,
        Tensor=lambda name, values: (name, values), Logger=Logger,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, stub.__name__, stub)
    package = "harness.serving.generation"
    for name in ("triton_model", "triton_metrics"):
        monkeypatch.delitem(sys.modules, f"{package}.{name}", raising=False)
    module = importlib.import_module(f"{package}.triton_model")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "model.py"))
    monkeypatch.setattr(module, "_open", lambda *_: CountingModel())
    monkeypatch.setattr(module, "_warm_up", lambda *_: None)
    monkeypatch.setattr(Logger, "lines", [])
    monkeypatch.setattr(Logger, "fails", False)
    PAGE.clear()
    started = []

    def start(**settings):
        known = GeneratorSettings(1, 1, 1, WORDS, 10**6, (END,), None, **settings)
        (tmp_path / "generation.json").write_text(known.to_json())
        write_tokenizer(tmp_path / "tokenizer.json")
        given = {"slots": "2", "threads": "1", "context": "1000000", "queue_size": "9"}
        given["read_tokens"] = "64"
        config = {"parameters": {key: {"string_value": one} for key, one in given.items()}}
        made = module.TritonPythonModel()
        made.initialize({"model_config": json.dumps(config), "model_name": "writer"})
        started.append(made)
        return made

    yield start
    for one in started:
        one.finalize()
    for name in ("triton_model", "triton_metrics"):
        sys.modules.pop(f"{package}.{name}", None)


def write_tokenizer(path):
    words = {f"w{place}": place for place in range(WORDS - 1)} | {"</s>": END}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(path))


def ask(made, tokens, count=4, lost=(), **parameters):
    sender = Sender(lost)
    asked = json.dumps({"max_tokens": count, "ignore_eos": True} | parameters)
    made.execute([Request(sender, input_ids=tokens, sampling_parameters=asked)])
    return sender


def until(is_so):
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("log_fails", [False, True])
def test_a_failed_step_is_told_and_whoever_comes_next_is_served(instance, log_fails, monkeypatch):
    """Also where neither the client nor the log can be told."""
    made = instance()
    monkeypatch.setattr(Logger, "fails", log_fails)
    told = ask(made, [CountingModel.bad])
    until(lambda: told.ended)
    assert told.errors == [("a step failed: RuntimeError: a bad token", "internal")]
    untold = ask(made, [CountingModel.bad], lost=range(9))
    until(lambda: untold.count)
    following = ask(made, [2])
    until(lambda: following.ended)
    assert following.tokens == [3, 4, 5, 6]
    assert all(thread.is_alive() for thread in made._threads)
    assert bool(Logger.lines) is not log_fails


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("prompt", [{"text_input": "w1"}, {"input_ids": [1]}])
def test_a_text_that_begins_with_its_prompt_is_that_of_all_its_tokens(instance, prompt, streamed):
    """Also where the decoder puts no space before a text's first word, as SentencePiece's."""
    made, sender = instance(), Sender()
    asked = '{"max_tokens": 3}'
    flags = {"stream": [streamed], "exclude_input_in_output": [False]}
    made.execute([Request(sender, **prompt, **flags, sampling_parameters=asked)])
    until(lambda: sender.ended)
    assert sender.text == made._tokenizer.decode([1, *sender.tokens]) == "w1 w2 w3 w4"
    alone = ask(made, [1], 3)
    until(lambda: alone.ended)
    assert alone.text == "w2 w3 w4"


def test_who_is_refused_and_cannot_be_told_takes_nobody_along(instance):
    """Triton hands over several requests at once."""
    made, lost, served = instance(), Sender(lost=[0]), Sender()
    asked = '{"max_tokens": 2}'
    requests = [
        Request(lost, input_ids=[WORDS], sampling_parameters=asked),
        Request(served, input_ids=[1], sampling_parameters=asked),
    ]
    made.execute(requests)
    until(lambda: served.ended)
    assert (lost.count, served.tokens) == (1, [2, 3])


def test_a_stream_that_lost_a_response_ends_with_an_error(instance):
    made = instance()
    broken, whole = ask(made, [1], 500, lost=[2]), ask(made, [1], 30)
    until(lambda: broken.ended and whole.ended)
    assert (broken.tokens, len(whole.tokens)) == ([2, 3], 30)
    assert broken.errors == [("a response failed; the server's log says why", "internal")]
    assert any("no memory for a response" in line for line in Logger.lines)


def test_an_answer_that_fails_by_itself_is_an_error_of_its_own(instance, monkeypatch):
    made = instance()
    add = made._engine._add

    def failing(row, token):
        if row.request.prompt == [5]:
            raise IndexError("beyond")
        return add(row, token)

    monkeypatch.setattr(made._engine, "_add", failing)
    failed, other = ask(made, [5]), ask(made, [1], 30)
    until(lambda: failed.ended and other.ended)
    assert failed.errors == [("the answer failed: IndexError: beyond", "internal")]
    assert (len(other.tokens), other.errors) == (30, [])


def test_the_page_shows_what_runs_and_waits_on_all_instances(instance):
    """Two slots each; and nothing is left of an instance that ends."""
    one, other = instance(), instance()
    for made, requests in ((one, 3), (other, 4)):
        for _ in range(requests):
            ask(made, [1], 10**6)
    shown = ("generation_running", "generation_queued")
    until(lambda: [PAGE[name] for name in shown] == [4, 3])
    one.finalize()
    until(lambda: [PAGE[name] for name in shown] == [2, 2])
    other.finalize()
    assert [PAGE[name] for name in shown] == [0, 0]
    assert PAGE["generation_cancelled_total"] == 7


@pytest.mark.parametrize(("splits", "tokens"), [(False, [3, END, 4]), (True, [3, 0, 0, 0, 4])])
def test_a_special_token_s_name_in_a_text_is_text_where_the_tokenizer_splits_it(
    instance, splits, tokens
):
    made = instance(split_special_tokens=splits)
    text = np.array([b"w3 </s> w4"], np.object_)
    assert made._prompt({"text_input": text}) == tokens
