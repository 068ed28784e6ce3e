"""Bodies of chat completions and completions: what is taken, what is left alone, what is refused.

A field that would change the answer and is not supported here is refused, never ignored: a client
that asked for log probabilities or five answers must not take what it gets for that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.serving.openai.errors import ApiError
from harness.types.generation import ParameterError, SamplingParameters

Message = dict[str, str]
"""A message of a chat: `role`, `content`, and where the client gives one `name`."""

DEFAULT_TEMPERATURE = 1.0
"""OpenAI's, where the request says none. Triton's tensors have 0, the likeliest token."""
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's `max_tokens` of a completion that says none. A chat has the rest of the context."""

_SAMPLING = ("temperature", "top_p", "top_k", "seed", "stop", "ignore_eos", "min_tokens")
_LIMITS = ("max_completion_tokens", "max_tokens")
"""The first that is there counts; the second is the former name."""
_COMMON = {"model", "stream", "stream_options", *_SAMPLING, *_LIMITS}
_WITHOUT_EFFECT = {
    "metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user",
}  # fmt: skip
"""Fields about bookkeeping: they change no answer."""
_ONLY_AS_DEFAULT: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "presence_penalty": (0,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "skip_special_tokens": (True,),
}
"""Fields that are not supported: the values that ask for nothing."""
_ROLES = ("system", "developer", "user", "assistant")
_OF_A_MESSAGE = ("role", "content", "name")
_OF_STREAMS = ("include_usage", "continuous_usage_stats")
_LARGEST_ID = 2**31 - 1


@dataclass(frozen=True)
class ApiRequest:
    """A request of either kind, checked."""

    model: str | None
    """Name of the model; None where it is not named, and there is only one."""
    prompt: str | tuple[int, ...] | None
    """Text or token ids; None: it is a chat."""
    messages: tuple[Message, ...]
    sampling: SamplingParameters
    stream: bool
    usage: bool
    """Whether a last chunk is to carry the counts of tokens."""
    usage_in_each: bool
    """Every chunk tells them as they stand."""


def read_body(raw: bytes) -> dict[str, Any]:
    """Parse a request's body.

    Raises:
        ApiError: it is no JSON object, or has a text that no UTF-8 holds.
    """
    try:
        body = json.loads(raw)
        if b"\\u" in raw:
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ApiError(f"the body has a text with half a surrogate pair: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError("the body must be a JSON object")
    return {name: value for name, value in body.items() if value is not None}


def model_named(body: Mapping[str, Any]) -> str | None:
    """The model that a body asks for; None where it names none.

    Raises:
        ApiError: it is no text.
    """
    name: str | None = _typed(body, "model", str, default=None)
    return name


def chat_request(body: Mapping[str, Any], *, context: int) -> ApiRequest:
    """Read a chat completion's body.

    Args:
        body: without the fields that are null.
        context: the limit of tokens where the request has none.

    Raises:
        ApiError: a field is missing, wrong, unknown or not supported.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError("messages must be a list with at least one message", param="messages")
    read = tuple(_message(one, f"messages[{at}]") for at, one in enumerate(messages))
    return _request(body, "messages", None, read, limit=context)


def completion_request(body: Mapping[str, Any]) -> ApiRequest:
    """Read a completion's body.

    Args:
        body: without the fields that are null.

    Raises:
        ApiError: a field is missing, wrong, unknown or not supported.
    """
    prompt = _prompt(body.get("prompt"))
    return _request(body, "prompt", prompt, (), limit=DEFAULT_COMPLETION_TOKENS)


def _request(
    body: Mapping[str, Any],
    own: str,
    prompt: str | tuple[int, ...] | None,
    messages: tuple[Message, ...],
    *,
    limit: int,
) -> ApiRequest:
    _refuse_unsupported({name: body[name] for name in body if name != own})
    stream = _typed(body, "stream", bool, default=False)
    options = _typed(body, "stream_options", dict, default={})
    if options and not stream:
        raise ApiError("stream_options are for stream: true", param="stream_options")
    for name, value in options.items():
        if value and name not in _OF_STREAMS:
            raise ApiError(f"stream_options has no {name!r} here", param=f"stream_options.{name}")
    return ApiRequest(
        model=model_named(body),
        prompt=prompt,
        messages=messages,
        sampling=_sampling(body, limit),
        stream=stream,
        usage=_typed(options, "include_usage", bool, default=False),
        usage_in_each=_typed(options, "continuous_usage_stats", bool, default=False),
    )


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if name in _COMMON or name in _WITHOUT_EFFECT:
            continue
        if name not in _ONLY_AS_DEFAULT:
            raise ApiError(f"this server has no field {name!r}", param=name, code="unknown_field")
        # To Python 0 is False; `logprobs: 0` asks for some.
        wanted = _ONLY_AS_DEFAULT[name]
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool)
                   for one in wanted):  # fmt: skip
            only = " or ".join(json.dumps(one) for one in wanted)
            raise ApiError(
                f"{name} is not supported here: leave it out (or {only})",
                param=name,
                code="unsupported_parameter",
            )


def _sampling(body: Mapping[str, Any], limit: int) -> SamplingParameters:
    fields = {"temperature": DEFAULT_TEMPERATURE, "max_tokens": limit}
    fields |= {name: body[name] for name in _SAMPLING if name in body}
    told = next((name for name in _LIMITS if name in body), None)
    if told is not None:
        fields["max_tokens"] = body[told]
        if body[told] == 0:
            raise ApiError(f"{told} must be at least 1", param=told)
    try:
        return SamplingParameters.from_json(json.dumps(fields))
    except ParameterError as error:
        param = next((name for name in fields if str(error).startswith(f"{name} ")), None)
        raise ApiError(str(error), param=told if param == "max_tokens" else param) from None


def _message(value: Any, place: str) -> Message:
    if not isinstance(value, dict) or value.get("role") not in _ROLES:
        known = ", ".join(_ROLES)
        raise ApiError(f"{place} needs a role, one of {known}", param=place)
    for name, told in value.items():
        # What OpenAI's clients send back of an answer has further fields that are null or empty.
        if told and name not in _OF_A_MESSAGE:
            raise ApiError(f"{place}: {name} is not supported here", param=f"{place}.{name}")
    message = {"role": value["role"], "content": _content(value.get("content"), f"{place}.content")}
    if not isinstance(value.get("name", ""), str | None):
        raise ApiError(f"{place}.name must be a text", param=f"{place}.name")
    return message | ({"name": value["name"]} if value.get("name") else {})


def _content(value: Any, place: str) -> str:
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = [_text(one) for one in parts]
    if None in texts:
        raise ApiError(f"{place} must be a text, or a list of parts of type text", param=place)
    return "".join(text for text in texts if text)


def _text(part: Any) -> str | None:
    is_text = isinstance(part, dict) and part.get("type") == "text"
    text = part.get("text") if is_text else None
    return text if isinstance(text, str) else None


def _prompt(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], int):
        value = value[0]  # a batch of one
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(type(one) is int for one in value):
        if not all(0 <= one <= _LARGEST_ID for one in value):
            raise ApiError(f"prompt: token ids are from 0 to {_LARGEST_ID}", param="prompt")
        return tuple(value)
    raise ApiError(
        "prompt must be one text, or one list of token ids: several prompts are several requests",
        param="prompt",
    )


def _typed(body: Mapping[str, Any], name: str, kind: type, *, default: Any) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise ApiError(f"{name} must be of type {kind.__name__}", param=name)
    return value
