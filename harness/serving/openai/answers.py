"""Answers in OpenAI's words: whole, or chunk by chunk as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from harness.serving.openai.triton import GeneratedPiece

DONE = b"data: [DONE]\n\n"


@dataclass
class ApiAnswer:
    """One answer as it grows: a chat completion's, or a completion's."""

    model: str
    is_chat: bool
    usage: bool = False
    """Whether a last chunk carries the counts of tokens."""
    usage_in_each: bool = False
    """Every chunk tells them as they stand."""
    text: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    finish_reason: str = ""
    created_s: int = field(default_factory=lambda: int(time.time()))
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def id(self) -> str:
        """The id of the answer that the client is told."""
        return f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.identity}"

    def add(self, piece: GeneratedPiece) -> bytes:
        """Take a piece; returns its chunks as events, none for one that has nothing to show.

        The role comes with the first text, so that no chunk looks like a token and is none. The
        last piece brings everything that ends a stream.
        """
        is_first = not self.text
        self.text += piece.text
        self.tokens += piece.tokens
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        chunks = [self._chunk([self._choice(piece.text, is_first)])] if piece.text else []
        if not piece.finish_reason:
            return _events(chunks)
        self.finish_reason = piece.finish_reason
        chunks.append(self._chunk([self._last_choice()]))
        if self.usage:
            chunks.append({**self._head(streamed=True), "choices": [], "usage": self._usage()})
        return _events(chunks) + DONE

    def whole(self) -> dict[str, Any]:
        """The answer as one JSON object, not streamed."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": self.finish_reason}
        if self.is_chat:
            choice["message"] = {"role": "assistant", "content": self.text}
        else:
            choice["text"] = self.text
        return {**self._head(streamed=False), "choices": [choice], "usage": self._usage()}

    def _head(self, *, streamed: bool) -> dict[str, Any]:
        name = "text_completion"
        if self.is_chat:
            name = "chat.completion.chunk" if streamed else "chat.completion"
        return {"id": self.id, "object": name, "created": self.created_s, "model": self.model}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {**self._head(streamed=True), "choices": choices}
        if self.usage_in_each:
            chunk["usage"] = self._usage()
        return chunk

    def _choice(self, text: str, is_first: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None}
        if self.is_chat:
            role = {"role": "assistant"} if is_first else {}
            choice["delta"] = {**role, "content": text}
        else:
            choice["text"] = text
        return choice

    def _last_choice(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"delta": {}} if self.is_chat else {"text": ""}
        return {"index": 0, **shown, "logprobs": None, "finish_reason": self.finish_reason}

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        }


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event with a JSON object in it."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _events(chunks: list[dict[str, Any]]) -> bytes:
    return b"".join(event(one) for one in chunks)
