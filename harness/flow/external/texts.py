"""Whole texts of a model on an external server, over the interface and the transport of its loads.

What is scored is so what a load gets: OpenAI's chat or completions, or Triton's streams by text.
Such an interface takes texts or messages, and no tokens; it tells no tokens either, so that texts
are compared by their characters.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from harness.errors import ServerError
from harness.load.engine.streams import StreamTransport
from harness.load.requests.generation import GenerationRequest, encode_requests
from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.opening import stream_opener
from harness.load.transports.streams.events import Learnt, answer_text, finish_openai, parse_openai
from harness.load.transports.streams.http import HttpStreamTransport
from harness.load.transports.streams.tokens import TokenStream
from harness.tasks.generation.streamed import StreamedAnswer
from harness.types import Generation, WireProtocol
from harness.types.generation import FinishReason, SamplingParameters

BUSY = frozenset({"http_429", "http_503"})
"""Kinds of failure after which a prompt is asked again: the server said that it is busy."""
RESTS_S = (1.0, 2.0, 4.0)
"""Before each further attempt."""
EMPTY = "empty_answer"
"""A load's failure, and yet an answer: the model ended its text at once."""


@dataclass(frozen=True)
class TextEndpoint:
    """Where and how texts are asked for."""

    target: Target
    protocol: WireProtocol
    generations: Mapping[str, Generation]
    """By the model's name on the server."""
    timeout_s: float
    """The longest wait for a first or next token."""


class EndpointTexts:
    """Puts prompts to models on an external server (a `Writer`); may be shared by threads.

    Args:
        endpoint: the server.
        prompts: by the model's name there, what is sent for a prompt of these tokens.
    """

    def __init__(
        self,
        endpoint: TextEndpoint,
        prompts: Mapping[str, Mapping[tuple[int, ...], GenerationRequest]],
    ) -> None:
        self._endpoint = endpoint
        self._prompts = prompts
        self._local = threading.local()
        self._open: list[StreamTransport] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            transports, self._open = self._open, []
        for one in transports:
            one.close()

    def write(
        self, model: str, token_ids: Sequence[int], sampling: SamplingParameters
    ) -> StreamedAnswer:
        """The whole answer to a prompt of the study, which its tokens name.

        Raises:
            ServerError: the request failed, or its stream did not end.
        """
        asked = replace(self._prompts[model][tuple(token_ids)], max_tokens=sampling.max_tokens)
        generation = replace(self._endpoint.generations[model], sampling=greedy(sampling.stop))
        (request,) = encode_requests(
            [asked], generation, self._endpoint.protocol, self._endpoint.target, model
        )
        for rest_s in (*RESTS_S, None):
            try:
                return self._answer(generation, request.body, sampling.max_tokens)
            except RequestFailure as failure:
                if failure.kind not in BUSY or rest_s is None:
                    raise ServerError(f"model {model}: {failure}") from failure
                time.sleep(rest_s)
        raise AssertionError("the last attempt returns or raises")

    def _answer(self, generation: Generation, request: bytes, max_tokens: int) -> StreamedAnswer:
        transport, texts = self._transport(generation)
        texts.clear()
        try:
            transport.send(request)
        except RequestFailure as failure:
            if failure.kind != EMPTY or transport.stream.finish_reason is None:
                raise
        stream = transport.stream
        text = (
            "".join(texts)
            if generation.api.is_openai
            else b"".join(stream.texts).decode(errors="replace")
        )
        return StreamedAnswer(text, (), why_it_ended(stream, max_tokens))

    def _transport(self, generation: Generation) -> tuple[StreamTransport, list[str]]:
        """This thread's, and the list in which an OpenAI answer's texts are gathered."""
        known: dict[Generation, tuple[StreamTransport, list[str]]]
        known = self._local.__dict__.setdefault("known", {})
        # One connection serves all models that are spoken to alike.
        key = replace(generation, sampling="", traffic="", inputs=(), tokenizer=None)
        if key not in known:
            known[key] = self._connected(key)
            with self._lock:
                self._open.append(known[key][0])
        return known[key]

    def _connected(self, generation: Generation) -> tuple[StreamTransport, list[str]]:
        texts: list[str] = []
        where, timeout_s = self._endpoint, self._endpoint.timeout_s
        if generation.api.is_openai:
            parse = partial(_parse_and_gather, texts)
            return HttpStreamTransport(
                where.target, parse, finish_openai, timeout_s=timeout_s
            ), texts
        opener: Any = stream_opener(generation, where.protocol, where.target, timeout_s=timeout_s)
        return opener(), texts


def greedy(stop: Sequence[str]) -> str:
    """Sampling parameters, in JSON, of the likeliest token each time.

    The temperature is sent in so many words: the default of OpenAI's API and of vLLM is 1.
    """
    return json.dumps({"temperature": 0, **({"stop": list(stop)} if stop else {})})


def why_it_ended(stream: TokenStream, max_tokens: int) -> FinishReason:
    """Why an answer that is whole ended; by its length where the server gave no reason.

    Raises:
        RequestFailure: for a reason that makes it no text of the model's own.
    """
    told = stream.finish_reason
    if told is None:
        counted = stream.reported_tokens or sum(stream.tokens)
        return FinishReason.LENGTH if counted >= max_tokens else FinishReason.STOP
    try:
        reason = FinishReason(told)
    except ValueError:
        reason = FinishReason.CANCELLED
    if reason is FinishReason.CANCELLED:
        raise RequestFailure("unfinished", f"the text ended for the reason '{told}'")
    return reason


def _parse_and_gather(
    texts: list[str], stream: TokenStream, event: Mapping[str, Any], at_ns: int
) -> Learnt | None:
    """Read a chunk in full, each time, and keep its text; what was reasoned before it is none."""
    parse_openai(stream, event, at_ns)
    texts.append(answer_text(event))
    return None
