"""The application: routes, and how a request becomes an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from harness.serving.openai.answers import ApiAnswer, event
from harness.serving.openai.chat import ChatTemplate
from harness.serving.openai.errors import FAILED, ApiError, failed
from harness.serving.openai.requests import (
    ApiRequest,
    Message,
    chat_request,
    completion_request,
    model_named,
    read_body,
)
from harness.serving.openai.triton import GeneratedPiece, GenerationClient

LARGEST_BODY = 2**24
"""Bytes of a request."""
SHORT_CHAT = 4000
"""Characters; they are made token ids in well under a millisecond."""
OWNER = "harness"
_CONTINUOUS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratingModel:
    """A model that the front end offers."""

    name: str
    """Name of the model, on Triton and for the clients."""
    tokenizer: Path
    """Folder of the checkpoint's tokenizer, with its chat template if it has one."""
    context: int
    """Tokens of prompt and answer together, at most."""


class OpenAIFrontEnd:
    """Answers OpenAI's requests by asking Triton.

    Args:
        client: of the Triton.
        models: at least one.
        created_s: since when they are there, in seconds of the epoch.
    """

    def __init__(
        self, client: GenerationClient, models: Mapping[str, GeneratingModel], created_s: int
    ) -> None:
        self._client, self._models, self._created_s = client, models, created_s
        self._templates: dict[str, ChatTemplate] = {}

    @cached_property
    def application(self) -> web.Application:
        """The aiohttp application with all routes."""
        made = web.Application(middlewares=[_told_as_openai], client_max_size=LARGEST_BODY)
        made.router.add_get("/health", self._health)
        made.router.add_get("/v1/models", self._list)
        made.router.add_get("/v1/models/{name:.+}", self._describe)
        made.router.add_post("/v1/chat/completions", self._chat)
        made.router.add_post("/v1/completions", self._complete)
        return made

    async def read_templates(self) -> None:
        """Read every model's chat template; takes seconds."""
        for name, model in self._models.items():
            self._templates[name] = await asyncio.to_thread(ChatTemplate, model.tokenizer)

    async def _health(self, _: web.Request) -> web.Response:
        if await self._client.ready():
            return web.Response()
        raise ApiError(
            "the model's server is not ready", status=HTTPStatus.SERVICE_UNAVAILABLE, kind=FAILED
        )

    async def _list(self, _: web.Request) -> web.Response:
        data = [self._described(name) for name in self._models]
        return web.json_response({"object": "list", "data": data})

    async def _describe(self, request: web.Request) -> web.Response:
        return web.json_response(self._described(self._found(request.match_info["name"]).name))

    def _described(self, name: str) -> dict[str, Any]:
        length = self._models[name].context
        return {
            "id": name,
            "object": "model",
            "created": self._created_s,
            "owned_by": OWNER,
            "max_model_len": length,
        }

    def _found(self, name: str | None) -> GeneratingModel:
        if name is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        if name is None:
            raise ApiError(f"model is missing: one of {', '.join(self._models)}", param="model")
        if name not in self._models:
            raise ApiError(
                f"there is no model {name!r} here, but {', '.join(self._models)}",
                status=HTTPStatus.NOT_FOUND,
                param="model",
                code="model_not_found",
            )
        return self._models[name]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = read_body(await request.read())
        model = self._found(model_named(body))
        asked = chat_request(body, context=model.context)
        ids = await self._token_ids(self._templates[model.name], asked.messages)
        return await self._answer(request, asked, model, ids, is_chat=True)

    async def _token_ids(
        self, template: ChatTemplate, messages: Sequence[Message]
    ) -> tuple[int, ...]:
        """A short chat costs less than a thread's waking; a long one would hold up the others."""
        if sum(len(one["content"]) for one in messages) <= SHORT_CHAT:
            return template.token_ids(messages)
        return await asyncio.to_thread(template.token_ids, messages)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = read_body(await request.read())
        asked = completion_request(body)
        assert asked.prompt is not None  # noqa: S101  (completions have one)
        model = self._found(asked.model)
        return await self._answer(request, asked, model, asked.prompt, is_chat=False)

    async def _answer(
        self,
        request: web.Request,
        asked: ApiRequest,
        model: GeneratingModel,
        prompt: str | tuple[int, ...],
        *,
        is_chat: bool,
    ) -> web.StreamResponse:
        answer = ApiAnswer(model.name, is_chat, asked.usage, asked.usage_in_each)
        pieces = self._client.generate(model.name, prompt, asked.sampling, answer.id)
        async with aclosing(pieces):  # type: ignore[type-var]
            # Nothing is said before the model has: a refusal still has a status of its own.
            first = await anext(pieces, None)
            if first is None:
                raise _unfinished()
            if asked.stream:
                return await _stream(request, answer, first, pieces)
            answer.add(first)
            async for piece in pieces:
                answer.add(piece)
            if not answer.finish_reason:
                raise _unfinished()
            return web.json_response(answer.whole())


async def _stream(
    request: web.Request,
    answer: ApiAnswer,
    first: GeneratedPiece,
    pieces: AsyncIterator[GeneratedPiece],
) -> web.StreamResponse:
    response = web.StreamResponse(headers=_CONTINUOUS)
    await response.prepare(request)
    if chunks := answer.add(first):
        await response.write(chunks)
    try:
        async for piece in pieces:
            if chunks := answer.add(piece):
                await response.write(chunks)
        if not answer.finish_reason:
            raise _unfinished()
    except ConnectionError:
        raise
    except Exception as problem:  # noqa: BLE001  (the status has been sent)
        await response.write(event(_as_error(problem, request).body))
    return response


def _unfinished() -> ApiError:
    return failed("the model ended the stream without a finish reason")


@web.middleware
async def _told_as_openai(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Errors of every kind, as OpenAI's clients read them."""
    try:
        return await handler(request)
    except ConnectionError:
        raise
    except Exception as problem:  # noqa: BLE001  (the client is told)
        error = _as_error(problem, request)
    return web.json_response(error.body, status=error.status, headers=error.headers)


def _as_error(problem: Exception, request: web.Request) -> ApiError:
    if isinstance(problem, ApiError):
        return problem
    place = f"{request.method} {request.path}"
    if isinstance(problem, web.HTTPException):
        return ApiError(f"{place}: {problem.reason}", status=problem.status)
    _log.error("%s", place, exc_info=problem)
    return failed("the front end failed; its log says where")
