"""Events of server-sent streams, as OpenAI and Triton write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from token_server.records import Played, Protocol
from token_server.scripts import Opening, Piece, StreamScript, Usage
from token_server.timeline import Kind

CREATED = 1_700_000_000


def encoded(value: object) -> bytes:
    """JSON whose lone surrogates are single bytes, right UTF-8 or not."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def usage_of(script: StreamScript, played: Played, tokens: int) -> dict[str, int]:
    """The counts as the server tells them."""
    told = tokens if script.told_tokens is None else script.told_tokens
    asked = len(played.prompt.split())
    return {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}


class OpenAIEvents:
    """Chunks of chat completions, or of completions."""

    def __init__(self, script: StreamScript, played: Played, pieces: Sequence[Piece]) -> None:
        self._script, self._played = script, played
        self._tokens = sum(piece.tokens for piece in pieces)
        self._is_chat = played.protocol is Protocol.CHAT
        self._head = {
            "id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{played.ordinal}",
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": CREATED,
            "model": played.asked.get("model", ""),
        }

    def encode(self, kind: Kind, piece: Piece | None, finish_reason: str | None) -> bytes:
        """The event's bytes."""
        end = self._script.line_end.encode() * 2
        if kind is Kind.COMMENT:
            return b": keep-alive" + end
        if kind is Kind.DONE:
            return b"data: [DONE]" + end
        return b"data: " + encoded(self._chunk(kind, piece, finish_reason)) + end

    def error(self) -> bytes:
        """What an error in the middle of a stream looks like."""
        body = {"error": {"message": "the engine died", "type": "server_error", "code": 500}}
        return b"data: " + encoded(body) + self._script.line_end.encode() * 2

    def _chunk(self, kind: Kind, piece: Piece | None, finish_reason: str | None) -> dict[str, Any]:
        if kind is Kind.USAGE:
            return {
                **self._head,
                "choices": [],
                "usage": usage_of(self._script, self._played, self._tokens),
            }
        if kind is Kind.OPENING and self._script.opening is Opening.NO_CHOICES:
            return {**self._head, "choices": []}
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
        text = "" if piece is None else piece.text
        if not self._is_chat:
            choice["text"] = text
        elif piece is not None and piece.reasoning:
            choice["delta"] = {self._script.reasoning_field: text}
        elif kind is Kind.FINISH:
            choice["delta"] = {}
        else:
            role = kind is Kind.OPENING and self._script.opening is Opening.ROLE
            choice["delta"] = {**({"role": "assistant"} if role else {}), "content": text}
        if finish_reason and self._script.usage is Usage.WITH_FINISH:
            told = usage_of(self._script, self._played, self._tokens)
            return {**self._head, "choices": [choice], "usage": told}
        return {**self._head, "choices": [choice]}

    def whole(self, pieces: Sequence[Piece], finish_reason: str) -> bytes:
        """The answer in one."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason}
        text = "".join(piece.text for piece in pieces if not piece.reasoning)
        if self._is_chat:
            reasoning = "".join(piece.text for piece in pieces if piece.reasoning)
            thought = {self._script.reasoning_field: reasoning} if reasoning else {}
            choice["message"] = {"role": "assistant", "content": text, **thought}
        else:
            choice["text"] = text
        name = "chat.completion" if self._is_chat else "text_completion"
        body = {**self._head, "object": name, "choices": [choice]}
        return encoded({**body, "usage": usage_of(self._script, self._played, self._tokens)})


class TritonEvents:
    """Events of `/generate_stream`: the output tensors of each response as JSON."""

    def __init__(self, script: StreamScript, played: Played, pieces: Sequence[Piece]) -> None:
        self._script, self._played = script, played
        self._count = len(played.prompt.split())
        self._model = {"model_name": played.asked.get("model", "m"), "model_version": "1"}

    def encode(self, kind: Kind, piece: Piece | None, finish_reason: str | None) -> bytes:
        """The event's bytes; none for what Triton has not."""
        end = self._script.line_end.encode() * 2
        if kind is Kind.COMMENT:
            return b": keep-alive" + end
        if kind not in {Kind.PIECE, Kind.FINISH}:
            return b""
        text, tokens = ("", 0) if piece is None else (piece.text, piece.tokens)
        return b"data: " + encoded(self._body(text, tokens, finish_reason)) + end

    def error(self) -> bytes:
        """What an error in the middle of a stream looks like."""
        return b'data: {"error":"the engine died"}' + self._script.line_end.encode() * 2

    def whole(self, pieces: Sequence[Piece], finish_reason: str) -> bytes:
        """The answer of `/generate`."""
        text = "".join(piece.text for piece in pieces)
        return encoded(self._body(text, sum(piece.tokens for piece in pieces), finish_reason))

    def _body(self, text: str, tokens: int, finish_reason: str | None) -> dict[str, Any]:
        asked, body = self._played.asked, {**self._model, "text_output": text}
        if asked.get("return_finish_reason"):
            body["finish_reason"] = finish_reason or ""
        if asked.get("return_num_input_tokens"):
            body["num_input_tokens"] = self._count
        if asked.get("return_num_output_tokens"):
            body["num_output_tokens"] = tokens
        return body
