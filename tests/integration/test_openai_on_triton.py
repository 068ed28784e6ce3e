"""OpenAI's API in front of the real Triton: its streams, its errors' statuses, its cancellation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from word_streams import MODEL, SLOTS, ends, word_streams

from harness.serving.openai.app import GeneratingModel
from harness.serving.openai.server import OpenAIServer
from tests.openai_rig import CONTEXT, PATIENCE_S, TEMPLATE, client_of, make_tokenizer

pytestmark = pytest.mark.triton
CHAT: Any = [{"role": "user", "content": "one two"}]
LONG = 2000
"""Tokens of an answer that nobody waits for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("words")


@pytest.fixture(scope="module")
def client(server_environment, folder: Path) -> Iterator[openai.OpenAI]:
    tokenizer = make_tokenizer(folder / "tokenizer", TEMPLATE)
    with (
        word_streams(server_environment, folder) as triton,
        OpenAIServer([GeneratingModel(MODEL, tokenizer, CONTEXT)], triton.endpoint.grpc) as server,
    ):
        yield client_of(server)


def wait_for_ends(folder: Path, count: int) -> list[str]:
    deadline = time.monotonic() + PATIENCE_S
    while len(ends(folder)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return ends(folder)


def test_chats_and_completions_streamed_and_not(client):
    whole = client.completions.create(model=MODEL, prompt="a b c", max_tokens=3)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("w0 w1 w2 ", "length")
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 3)
    chat = client.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=2)
    assert chat.choices[0].message.content == "w0 w1 "
    assert chat.usage.prompt_tokens == 5  # <s> [user] one two [assistant]
    chunks = client.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=2, stream=True)
    assert [one.choices[0].delta.content for one in chunks] == ["w0 ", "w1 ", None]


def test_the_models_errors_have_their_own_status(client):
    with pytest.raises(openai.BadRequestError, match="9 tokens are too many"):
        client.completions.create(model=MODEL, prompt="a " * 9)


def test_tokens_come_as_they_are_made(client, folder):
    """The first is read while the model still has thousands to make."""
    begun = len(ends(folder))
    stream = client.completions.create(model=MODEL, prompt="a", max_tokens=LONG, stream=True)
    assert next(iter(stream)).choices[0].text == "w0 "
    stream.close()
    wait_for_ends(folder, begun + 1)


def test_a_client_that_goes_away_frees_the_models_slot(client, folder):
    before = len(ends(folder))
    for _ in range(2 * SLOTS):  # more than there are at a time
        stream = client.completions.create(model=MODEL, prompt="a", max_tokens=LONG, stream=True)
        next(iter(stream))
        stream.close()
        before += 1
        assert wait_for_ends(folder, before)[-1] == "cancelled"
    client.completions.create(model=MODEL, prompt="a", max_tokens=1)
    assert wait_for_ends(folder, before + 1)[-1] == "whole"


def test_a_full_queue_is_429(client, folder):
    begun = len(ends(folder))
    streams = [
        client.completions.create(model=MODEL, prompt="a", max_tokens=LONG, stream=True)
        for _ in range(SLOTS)
    ]
    with pytest.raises(openai.RateLimitError, match="the queue is full") as refused:
        client.completions.create(model=MODEL, prompt="a")
    assert refused.value.response.headers["Retry-After"] == "1"
    for stream in streams:
        stream.close()
    wait_for_ends(folder, begun + SLOTS)


def test_answers_at_a_time_do_not_mix(client):
    def ask(tokens: int) -> str:
        return client.completions.create(model=MODEL, prompt="a", max_tokens=tokens).choices[0].text

    with ThreadPoolExecutor(SLOTS) as pool:
        texts = list(pool.map(ask, [5, 9]))
    assert texts == ["".join(f"w{n} " for n in range(count)) for count in (5, 9)]
