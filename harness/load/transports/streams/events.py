"""What a stream's events say: OpenAI's chunks and the events of Triton's `/generate_stream`.

Events of one answer differ in their text alone, nearly always. So the first one that is read in
full lends its bytes before and behind the text, and whatever has both around another text is
recognised without being parsed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from harness.load.transports.contract import RequestFailure
from harness.load.transports.streams.tokens import BAD_TEXT, CACHED, NO_DONE, TokenStream
from harness.types.generation import (
    FINISH_REASON,
    NUM_INPUT_TOKENS,
    NUM_OUTPUT_TOKENS,
    QUEUE_TIME_US,
    TEXT_OUTPUT,
    TOKEN_IDS,
)

DONE = b"[DONE]"
NO_REASON = "None"
"""The finish reason that Triton's vLLM backend writes while an answer goes on: Python's None."""
_QUOTE, _BACKSLASH = b'"\\'
"""As numbers: CPython looks a byte up in bytes ten times faster than bytes of length one."""
_LONGEST_QUOTE = 300
_NOT_YET = sys.maxsize
"""In the place of the number of the event with which an answer begins."""
_ONE_ID = re.compile(rb'"token_ids":\s*(\d+)(?=\s*[,}])')
"""Triton writes a tensor of one element as a plain value: the id of the event's one token."""
_TEXTS = ("content", "refusal")
_REASONING = ("reasoning", "reasoning_content")
"""Fields of a chat chunk's delta whose text is of tokens. vLLM and SGLang name the reasoning so;
vLLM writes it under both names, the later of which it wants to drop."""


class EventReader:
    """Reads the events of one answer into its `TokenStream`.

    Args:
        stream: what is filled in.
        parse: takes an event that is not recognised: the stream, its JSON, when it came. Returns
            what the form may be learnt by; None where it may not.
    """

    __slots__ = ("_number", "_parse", "_prefix", "_suffix", "_tokens", "stream")

    def __init__(self, stream: TokenStream, parse: Parse) -> None:
        self.stream = stream
        self._parse = parse
        self._prefix = self._suffix = b""
        self._number: tuple[bytes, bytes] | None = None
        """What stands before and behind the one number of the form that varies; None: none does."""
        self._tokens = 0
        """Tokens that each event of the form carries."""

    def take(self, events: Sequence[bytes], at_ns: int) -> None:
        """Take in the data of events that came at one instant.

        This loop is what a streamed token costs a load generator.

        Raises:
            RequestFailure: one says that the request failed, or is no JSON.
        """
        add = self.stream.texts.append
        prefix, suffix = self._prefix, self._suffix
        start, end, known = len(prefix), -len(suffix), 0
        for data in events:
            if prefix and data.startswith(prefix) and data.endswith(suffix):
                text = data[start:end]
                # A quote would end the string; a backslash at its end would escape the next one.
                if text and _QUOTE not in text and _BACKSLASH not in text:
                    add(text)
                    known += 1
                    continue
            elif self._number is not None and (text := self._beside_its_number(data)):
                add(text)
                known += 1
                continue
            if known:
                self.stream.extend(at_ns, self._tokens, known)
                known = 0
            self._read(data, at_ns)
            if self._prefix is not prefix:
                prefix, suffix = self._prefix, self._suffix
                start, end = len(prefix), -len(suffix)
        if known:
            self.stream.extend(at_ns, self._tokens, known)

    def recognise(self, data: bytes, at_ns: int) -> bool:
        """Take in the data of an event of the form; false: it is none, and was not taken in."""
        prefix, suffix = self._prefix, self._suffix
        if prefix and data.startswith(prefix) and data.endswith(suffix):
            text = data[len(prefix) : len(data) - len(suffix)]
            if _QUOTE in text or _BACKSLASH in text:
                return False
        elif self._number is not None:
            text = self._beside_its_number(data)
        else:
            return False
        if text:
            self.stream.add(at_ns, self._tokens, text)
        return bool(text)

    def _beside_its_number(self, data: bytes) -> bytes:
        """The text of an event of the form whose number is another; empty where it is none."""
        assert self._number is not None  # noqa: S101  (the caller has looked)
        before, behind = self._number
        start = len(self._prefix)
        end = data.find(b'"', start)
        number = end + len(before)
        if not (
            data.startswith(self._prefix)
            and data.startswith(before, end)
            and data.endswith(behind)
            and data[number : len(data) - len(behind)].isdigit()
        ):
            return b""
        text = data[start:end]
        return b"" if _BACKSLASH in text else text

    def _read(self, data: bytes, at_ns: int) -> None:
        """Read an event in full."""
        if data.strip() == DONE:
            self.stream.done = True
            return
        event = self._json_of(data)
        try:
            found = self._parse(self.stream, event, at_ns)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            said = f"an event whose fields are not the interface's ({error}): {_quoted(data)}"
            raise RequestFailure("malformed", said) from error
        if found is not None:
            self._learn(data, *found)

    def _json_of(self, data: bytes) -> Mapping[str, Any]:
        try:
            value = from_json(data)
        except ValueError:
            value = self._mended(data)
        if not isinstance(value, dict):
            raise RequestFailure("malformed", f"an event that is no JSON object: {_quoted(data)}")
        return value

    def _mended(self, data: bytes) -> Any:
        """The JSON of an event whose text is no UTF-8: a server cut a character in two."""
        try:
            value = from_json(data.decode(errors="replace"))
        except ValueError as error:
            said = f"an event that is not JSON ({error}): {_quoted(data)}"
            raise RequestFailure("malformed", said) from error
        self.stream.irregular.add(BAD_TEXT)
        return value

    def _learn(self, data: bytes, field: str, text: str, tokens: int) -> None:
        """Recognise from now on what has these bytes around another text."""
        key = f'"{field}":'.encode()
        start = data.find(key) + len(key)
        if start < len(key):
            return
        start = data.find(b'"', start) + 1
        end = data.find(b'"', start)
        if start and end > start and data[start:end] == text.encode():
            self._prefix, self._suffix, self._tokens = data[:start], data[end:], tokens
            varies = _ONE_ID.search(self._suffix)
            self._number = varies and (
                self._suffix[: varies.start(1)],
                self._suffix[varies.end(1) :],
            )


Learnt = tuple[str, str, int]
"""A field, its text, and the tokens of the event."""
Parse = Callable[[TokenStream, Mapping[str, Any], int], Learnt | None]


def parse_openai(stream: TokenStream, event: Mapping[str, Any], at_ns: int) -> Learnt | None:
    """A chunk of chat completions or of completions.

    Raises:
        RequestFailure: `stream_error`: it is an error, under whatever status the answer began.
        AttributeError, LookupError, TypeError, ValueError: a field has another type.
    """
    check_error(event)
    usage = event.get("usage")
    choices = event.get("choices") or ()
    choice = choices[0] if choices else {}
    learnt, text = _text_of(choice)
    told = _tokens_told(choice)
    if usage:
        runs = stream.told or not stream.times_ns
        if choice and told is None and runs and (text or stream.told):
            # A running usage, there from the first token on: what it has grown by since the last
            # event, which may lag behind the text. A total that comes with the last token only is
            # none.
            told = _whole(usage.get("completion_tokens") or 0) - sum(stream.tokens)
            told = max(told, int(bool(text)))
        reported = usage.get("completion_tokens")
        stream.reported_tokens = None if reported is None else _whole(reported)
        stream.input_tokens = _whole(usage.get("prompt_tokens") or 0) or stream.input_tokens
        _note_cached(stream, usage)
    if choice.get("finish_reason"):
        stream.finish_reason, stream.finished_ns = str(choice["finish_reason"]), at_ns
    if text:
        # An event of another kind than the one before is read in full, so this sees each change.
        _note_answer(stream, begun=bool(answer_text(event)))
    if told is not None:
        stream.told = True
        stream.add(at_ns, told, text.encode(errors="replace"))
        return None
    if not text:
        return None
    stream.add(at_ns, 1, text.encode(errors="replace"))
    # With a finish reason or a usage it is not the form of the others.
    return None if usage or choice.get("finish_reason") or learnt is None else (*learnt, 1)


def _note_cached(stream: TokenStream, usage: Mapping[str, Any]) -> None:
    """Note a prompt of which the server had half or more in its prefix cache.

    Less than that is what all prompts of a chat template begin with.
    """
    cached = _whole((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    if cached and 2 * cached >= stream.input_tokens:
        stream.irregular.add(CACHED)


def _text_of(choice: Mapping[str, Any]) -> tuple[tuple[str, str] | None, str]:
    """Field and text to learn the form by, where there is one only; and all text of tokens."""
    delta = choice.get("delta")
    if delta is None:
        text = choice.get("text") or ""
        return ("text", text), text
    names = [name for name in _REASONING if delta.get(name)]
    found = [(name, delta[name]) for name in (*names[:1], *_TEXTS) if delta.get(name)]
    calls = [
        call.get("function", {}).get("arguments") or call.get("function", {}).get("name") or ""
        for call in delta.get("tool_calls") or ()
    ]
    text = "".join([*(text for _, text in found), *calls])
    is_one = len(found) == 1 and len(names) < len(_REASONING) and not calls
    return (found[0] if is_one else None), text


def _note_answer(stream: TokenStream, *, begun: bool) -> None:
    """Where the answer begins, behind the reasoning that its stream began with."""
    if not begun and not stream.texts:
        stream.answer_begins = _NOT_YET
    elif begun and stream.answer_begins == _NOT_YET:
        stream.answer_begins = len(stream.texts)


def answer_text(event: Mapping[str, Any]) -> str:
    """The text that a chunk adds to the answer itself: reasoning, refusals and calls are none."""
    choice: Mapping[str, Any] = next(iter(event.get("choices") or ()), {})
    delta = choice.get("delta")
    text: str = (choice.get("text") if delta is None else delta.get("content")) or ""
    return text


def _tokens_told(choice: Mapping[str, Any]) -> int | None:
    """How many tokens a chunk carries, where it says so."""
    if (ids := choice.get("token_ids")) is not None:
        return len(ids)
    logprobs = choice.get("logprobs") or {}
    for name in ("content", "tokens"):
        if logprobs.get(name) is not None:
            return len(logprobs[name])
    return None


def finish_openai(stream: TokenStream) -> None:
    """Hold the end of an OpenAI stream against what it should be.

    Raises:
        RequestFailure: `unfinished`: nothing says that the answer is whole.
    """
    if stream.done:
        return
    if stream.finish_reason is None:
        raise RequestFailure(
            "unfinished", "the stream ended without [DONE] and without a finish reason"
        )
    stream.irregular.add(NO_DONE)


def parse_generate(stream: TokenStream, event: Mapping[str, Any], at_ns: int) -> Learnt | None:
    """An event of `/generate_stream`: a response's outputs by name.

    Raises:
        RequestFailure: `stream_error`.
    """
    check_error(event)
    text = event.get(TEXT_OUTPUT) or ""
    alone = isinstance(text, str)
    if not alone:
        text = "".join(map(str, text))
    ids = event.get(TOKEN_IDS)
    count = add_response(
        stream,
        at_ns,
        text.encode(errors="replace"),
        tokens=_count(event.get(NUM_OUTPUT_TOKENS)),
        ids=None if ids is None else len(ids) if isinstance(ids, list) else 1,
        reason=str(_first(event.get(FINISH_REASON)) or ""),
        input_tokens=_count(event.get(NUM_INPUT_TOKENS)),
    )
    if QUEUE_TIME_US in event:
        stream.queue_us = _count(event[QUEUE_TIME_US])
    is_last = stream.finish_reason is not None
    return (TEXT_OUTPUT, text, count) if alone and text and count and not is_last else None


def add_response(
    stream: TokenStream,
    at_ns: int,
    text: bytes,
    *,
    tokens: int | None,
    ids: int | None,
    reason: str,
    input_tokens: int | None,
) -> int:
    """Take in a response of a generating model on Triton.

    Args:
        stream: what is filled in.
        at_ns: when it came.
        text: its `text_output`.
        tokens: its `num_output_tokens`, where it has that.
        ids: how many its `token_ids` are, where it has those.
        reason: its `finish_reason`; empty, or `NO_REASON`, while it goes on.
        input_tokens: its `num_input_tokens`.

    Returns:
        How many tokens it carries.
    """
    told = ids if tokens is None else tokens
    stream.told |= told is not None
    if reason != NO_REASON:
        stream.finish_reason = reason or stream.finish_reason
    stream.input_tokens = input_tokens or stream.input_tokens
    count = int(bool(text)) if told is None else told
    stream.add(at_ns, count, text)
    return count


def finish_generate(stream: TokenStream) -> None:
    """What the events told of their tokens is the server's usage."""
    if stream.told:
        stream.reported_tokens = sum(stream.tokens)


def _count(tensor: Any) -> int | None:
    value = _first(tensor)
    return None if value is None else _whole(value)


def _whole(value: Any) -> int:
    """A count of tokens.

    Raises:
        TypeError: it is none.
    """
    if type(value) not in {int, float} or not float(value).is_integer():
        raise TypeError(f"{value!r} is no number of tokens")
    return int(value)


def _first(value: Any) -> Any:
    return (value[0] if value else None) if isinstance(value, list) else value


def check_error(event: Mapping[str, Any]) -> None:
    """Refuse an event that says that the request failed.

    Some servers have OpenAI's error object in place of a chunk, without `error` around it.

    Raises:
        RequestFailure: `stream_error`.
    """
    error = event.get("error") or (event.get("object") == "error" and event)
    if error:
        said = error.get("message") if isinstance(error, dict) else error
        raise RequestFailure("stream_error", str(said or error)[:_LONGEST_QUOTE])


def _quoted(data: bytes) -> str:
    return repr(data[:_LONGEST_QUOTE].decode(errors="replace"))
