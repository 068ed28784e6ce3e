"""What a load asks a generating model: prompts with the lengths of their answers, on disk and wire.

The whole pool is drawn before the load and written as JSON lines, so that every process sends the
same requests in the same order and none needs a tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import numpy as np
from pydantic import TypeAdapter

from harness.errors import DataError
from harness.load.requests.payloads import EncodedRequest
from harness.load.transports.address import Target
from harness.load.transports.contract import MARK
from harness.load.transports.grpc.messages import encode_infer_request
from harness.load.transports.http.http1 import post
from harness.load.transports.streams.grpc import GrpcStreamTransport
from harness.load.transports.streams.http import STREAMED
from harness.load.transports.streams.tokens import StreamRequest
from harness.system.storage import whole_file
from harness.types import Generation, StreamApi, WireProtocol
from harness.types.generation import (
    EXCLUDE_INPUT_IN_OUTPUT,
    INPUT_IDS,
    RETURN_FINISH_REASON,
    RETURN_NUM_INPUT_TOKENS,
    RETURN_NUM_OUTPUT_TOKENS,
    RETURN_QUEUE_TIME,
    SAMPLING_PARAMETERS,
    STREAM,
    TEXT_INPUT,
)

if TYPE_CHECKING:
    from harness.load.engine.streams import StreamTransport
    from harness.load.transports.contract import Transport

_OPTIONAL = (
    EXCLUDE_INPUT_IN_OUTPUT,
    RETURN_FINISH_REASON,
    RETURN_NUM_INPUT_TOKENS,
    RETURN_NUM_OUTPUT_TOKENS,
    RETURN_QUEUE_TIME,
)
"""Inputs that are asked of a model on Triton where it has them; all of them true."""


@dataclass(frozen=True)
class Turn:
    """What a person says next, after an answer."""

    prompt: str
    max_tokens: int
    think_s: float = 0.0
    """From the answer's last token to when this falls due."""


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt, or a conversation that begins with it, and how long an answer is asked for."""

    prompt: str
    """The prompt's text; empty where `messages` holds it."""
    max_tokens: int
    messages: tuple[Mapping[str, Any], ...] = ()
    """Messages of a chat; empty makes the prompt one message of a user."""
    input_tokens: int = 0
    """Tokens of the prompt, where a tokenizer has counted them."""
    input_ids: tuple[int, ...] = ()
    """The prompt's tokens, which a model on Triton is sent in the text's place: a chat that is in
    its template already. Empty sends the text."""
    leave_after: int = 0
    """Tokens after which the client goes away; 0: it stays."""
    turns: tuple[Turn, ...] = ()
    """What follows the answer; each is asked with all that was said before it."""


_REQUEST = TypeAdapter(GenerationRequest)


def write_requests(path: Path, requests: Sequence[GenerationRequest]) -> None:
    """Write a pool, whole or not at all.

    Raises:
        DataError: there are none.
        StorageError: the file cannot be written.
    """
    if not requests:
        raise DataError(f"{path}: there are no prompts to send")
    with whole_file(path, parents=True) as unfinished:
        lines = (json.dumps(asdict(one), ensure_ascii=False) for one in requests)
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_requests(path: Path) -> list[GenerationRequest]:
    """Read a pool back.

    Raises:
        DataError: it is none.
    """
    try:
        # Not `splitlines`: a prompt may hold what Unicode calls the end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_REQUEST.validate_json(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no pool of prompts: {error}") from error


def encode_requests(
    requests: Sequence[GenerationRequest],
    generation: Generation,
    protocol: WireProtocol,
    target: Target,
    model: str,
) -> list[EncodedRequest]:
    """Every request as it goes over the wire, but for a mark where its id will stand.

    Args:
        requests: the pool.
        generation: by which interface, with which sampling parameters.
        protocol: of Triton's interface; OpenAI's is HTTP.
        target: the server.
        model: its name there.
    """
    transport, is_chat = None, generation.api is StreamApi.CHAT
    if protocol is WireProtocol.GRPC:
        transport = GrpcStreamTransport(target, timeout_s=1.0)

    def encoded(one: GenerationRequest) -> EncodedRequest:
        if transport is not None:
            inputs = _tensors(one, generation)
            body = transport.encode_message(encode_infer_request(model, inputs))
        else:
            body = _over_http(one, generation, target, model)
        request = StreamRequest(body)
        request.max_tokens, request.leave_after = one.max_tokens, one.leave_after
        request.input_tokens = one.input_tokens
        follow = partial(next_turn, one, encoded, is_chat=is_chat) if one.turns else None
        return EncodedRequest(request, 1, frozenset(), layout=STREAMED.layout, follow=follow)

    return [encoded(one) for one in requests]


def next_turn(
    asked: GenerationRequest,
    encode: Callable[[GenerationRequest], EncodedRequest],
    transport: Transport,
    *,
    is_chat: bool,
) -> tuple[EncodedRequest, float]:
    """The next turn of a conversation, behind the server's own answer to the one before.

    Of a chat the answer is a message of the assistant; what was reasoned before it is not sent
    back. Interfaces that take one text get all that was said in a row.

    Args:
        asked: what was just answered; it has turns left.
        encode: makes a request of it.
        transport: a `StreamTransport`, whose stream is that answer.
        is_chat: whether messages are sent.

    Returns:
        The request, and how many seconds after the answer it falls due.
    """
    answer = cast("StreamTransport", transport).stream.answer
    turn, *rest = asked.turns
    if is_chat:
        said: tuple[Mapping[str, Any], ...] = (
            *_messages(asked),
            {"role": "assistant", "content": answer},
            {"role": "user", "content": turn.prompt},
        )
        following = GenerationRequest("", turn.max_tokens, said, turns=tuple(rest))
    else:
        text = f"{asked.prompt}{answer}{turn.prompt}"
        following = GenerationRequest(text, turn.max_tokens, turns=tuple(rest))
    return encode(following), turn.think_s


def _over_http(one: GenerationRequest, generation: Generation, target: Target, model: str) -> bytes:
    if generation.api is StreamApi.TRITON:
        path = f"/v2/models/{quote(model, safe='')}/generate_stream"
        body = _fields(one, generation)
    else:
        chat = generation.api is StreamApi.CHAT
        path = "/v1/chat/completions" if chat else "/v1/completions"
        body = {
            "model": model,
            **({"messages": _messages(one)} if chat else {"prompt": one.prompt}),
            "max_tokens": one.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **_sampling(generation),
        }
    return http_request(target, path, body)


def http_request(target: Target, path: str, body: Mapping[str, Any]) -> bytes:
    """Head and body of a request in JSON, with a mark for its id in `X-Request-Id`."""
    content = json.dumps(body, ensure_ascii=False).encode()
    fields = (
        ("Content-Type", "application/json"),
        ("Accept", "text/event-stream"),
        ("X-Request-Id", MARK.decode()),
    )
    return post(target, path, content, fields)


def _messages(one: GenerationRequest) -> list[Mapping[str, Any]]:
    return list(one.messages) or [{"role": "user", "content": one.prompt}]


def _sampling(generation: Generation) -> dict[str, Any]:
    parameters: dict[str, Any] = json.loads(generation.sampling or "{}")
    return parameters


def _fields(one: GenerationRequest, generation: Generation) -> dict[str, Any]:
    """Inputs by name, as `/generate_stream` takes them and `ModelStreamInfer` has as tensors."""
    parameters = {"max_tokens": one.max_tokens, **_sampling(generation)}
    fields: dict[str, Any] = (
        {INPUT_IDS: list(one.input_ids)} if one.input_ids else {TEXT_INPUT: one.prompt}
    )
    optional = {
        STREAM: True,
        SAMPLING_PARAMETERS: json.dumps(parameters),
        **dict.fromkeys(_OPTIONAL, True),
    }
    known = generation.inputs or (STREAM, SAMPLING_PARAMETERS)
    return fields | {name: value for name, value in optional.items() if name in known}


def _tensors(one: GenerationRequest, generation: Generation) -> dict[str, np.ndarray[Any, Any]]:
    return {
        name: _tensor(value, batched=generation.batched)
        for name, value in _fields(one, generation).items()
    }


def _tensor(value: str | bool | list[int], *, batched: bool) -> np.ndarray[Any, Any]:
    if isinstance(value, list):
        found = np.array(value, np.int32)
    elif isinstance(value, str):
        found = np.array([value.encode()], object)
    else:
        found = np.array([value], np.bool_)
    return found[None] if batched else found
