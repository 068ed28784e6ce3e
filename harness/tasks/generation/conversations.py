"""Prompts that are conversations, as data files hold them: a text, or a list of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.tasks.generation.chat import Message
from harness.tasks.rows import DataTable, refuse
from harness.tasks.spelt_lists import spelt

_FORM = 'a prompt is a text, or a list of messages: [{"role": "user", "content": "..."}]'


def read_conversations(table: DataTable, column: str) -> list[tuple[Message, ...]]:
    """The messages of each row's prompt.

    Raises:
        DataError: with every row that holds none, or one whose messages hold more than texts.
    """
    found = [_messages(row.get(column)) for row in table.rows]
    refuse(
        table.source,
        [
            f"{table.place(row)}: '{column}' is no conversation that a model could answer"
            for row, messages in enumerate(found)
            if messages is None
        ],
        next_step=f"{_FORM}, of which the last is the user's",
    )
    conversations = [messages for messages in found if messages is not None]
    more = [(row, key) for row, one in enumerate(conversations) for key in _beside_text(one)]
    refuse(
        table.source,
        [
            f"{table.place(row)}: a message of '{column}' has '{key}' beside its text"
            for row, key in more
        ],
        next_step="drop these rows, or write into the messages' content what the model is to read: "
        "prompts are made of role and content alone",
    )
    return [
        tuple({"role": one["role"], "content": one["content"]} for one in messages)
        for messages in conversations
    ]


_WRITTEN_TOO = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
"""What a message may have that chat templates write beside its text."""


def _beside_text(messages: Sequence[Mapping[str, object]]) -> list[str]:
    """What the messages have that would be left out, each once."""
    return [key for key in _WRITTEN_TOO if any(message.get(key) for message in messages)]


def _messages(value: object) -> tuple[Mapping[str, Any], ...] | None:
    """Messages of a text or a list (in a CSV it is spelt in its field); None of another."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = spelt(value)  # of a text that begins with a bracket: itself
        except ValueError:
            return None
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        return None
    if not all(_is_message(one) for one in value) or value[-1]["role"] == "assistant":
        return None
    return tuple(value)


def _is_message(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), str)
        and bool(value["content"].strip())
    )


def in_one_text(messages: Sequence[Message]) -> str:
    """A conversation as one text, for people."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{one['role']}: {one['content']}" for one in messages)
