"""OpenAI's front end before the tests' server of tokens, and clients of it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from token_server import FakeTokenServer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from harness.serving.openai.app import GeneratingModel
from harness.serving.openai.server import OpenAIServer

PATIENCE_S = 60.0
MODEL, PLAIN = "m", "plain"
"""A model with a chat template, and one without."""
CONTEXT = 128
WORDS = ("<s>", "[user]", "[assistant]", "one", "two", "three", "be", "brief", "[system]")
TEMPLATE = (
    "<s>{% for message in messages %}"
    "{% if message.role == 'developer' %}{{ raise_exception('no developers here') }}{% endif %}"
    "[{{ message.role }}] {{ message.name }} {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
DEAF_TEMPLATE = (
    "<s>{% for message in messages %}"
    "{% if message.role in ('user', 'assistant') or (message.role == 'system' and loop.first) %}"
    "[{{ message.role }}] {{ message.content.split('three')[-1] | trim }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Passes over roles that it does not know, over a later system message, and over what stands before
a word, as templates pass over an earlier answer's reasoning."""


def make_tokenizer(folder: Path, template: str | None) -> Path:
    """Save a tokenizer of a few words that begins every text with <s>, as Llama's does."""
    backend = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<s>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<s>")
    made.chat_template = template
    made.save_pretrained(folder)
    return folder


def offered(folder: Path) -> list[GeneratingModel]:
    """Both models, with their tokenizers in a folder."""
    templates = {MODEL: TEMPLATE, PLAIN: None}
    return [
        GeneratingModel(name, make_tokenizer(folder / name, template), CONTEXT)
        for name, template in templates.items()
    ]


@contextmanager
def front_end(folder: Path, tokens: FakeTokenServer, **settings: Any) -> Iterator[OpenAIServer]:
    """The front end before a server of tokens, for the length of a `with`."""
    with OpenAIServer(offered(folder), tokens.grpc, **settings) as server:
        yield server


def client_of(server: OpenAIServer) -> openai.OpenAI:
    """OpenAI's own client; it asks once."""
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=PATIENCE_S)


def ask(
    server: OpenAIServer, path: str, body: Any, *, verb: str = "POST"
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of an answer in one; `body` may be bytes."""
    connection = http.client.HTTPConnection(server.address, timeout=PATIENCE_S)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(verb, path, raw)
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    return answer.status, dict(answer.headers), json.loads(read) if read else None


def events(server: OpenAIServer, path: str, body: dict[str, Any]) -> list[Any]:
    """The data of each event of a stream, parsed where it is JSON."""
    connection = http.client.HTTPConnection(server.address, timeout=PATIENCE_S)
    connection.request("POST", path, json.dumps(body | {"stream": True}))
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    found = [line.removeprefix("data: ") for line in answer.read().decode().split("\n") if line]
    return [json.loads(one) if one.startswith("{") else one for one in found]
