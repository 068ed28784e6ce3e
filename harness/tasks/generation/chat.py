"""Conversations in a tokenizer's chat template, which is a program of the checkpoint's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
"""One turn of a conversation: its `role` and `content`."""


def templated(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    rows: Sequence[int],
) -> list[tuple[int, ...]]:
    """Conversations in tokens, each up to where the model's turn begins.

    Args:
        tokenizer: with its chat template.
        conversations: of the data.
        rows: where each is in the data, counted from 0.

    Raises:
        DataError: there is no template, it refuses a conversation, or it leaves out messages.
    """
    if not tokenizer.chat_template:
        raise DataError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template",
            next_step="leave out the task's chat_template for a model that was not trained on "
            "conversations, or save its template beside the tokenizer (chat_template.jinja)",
        )
    lost = [
        _of_row(tokenizer, one, row, left_out) for one, row in zip(conversations, rows, strict=True)
    ]
    cut = [place for place, messages in enumerate(lost) if messages]
    if cut:
        message = lost[cut[0]][0]
        raise DataError(
            f"the chat template of {tokenizer.name_or_path} leaves out messages of {len(cut)} "
            f"prompts, the first in row {rows[cut[0]]} of the data, counted from 0: message "
            f"{message} there, of the role {conversations[cut[0]][message]['role']}",
            next_step="give these messages a role that the template writes (system, user), or "
            "drop them from the data",
        )
    return [
        _of_row(tokenizer, one, row, _ids) for one, row in zip(conversations, rows, strict=True)
    ]


def _of_row(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    row: int,
    made: Callable[[PreTrainedTokenizerBase, Sequence[Message]], tuple[int, ...]],
) -> tuple[int, ...]:
    """What is made of a conversation by its template, if that takes it.

    Raises:
        DataError: with the template's own words; Gemma's takes no system message, for one.
    """
    from jinja2 import TemplateError

    try:
        return made(tokenizer, messages)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"the chat template of {tokenizer.name_or_path} fails on the conversation in row {row} "
            f"of the data, counted from 0 ({roles}): {error}",
            next_step="give its messages the roles and the order that the template takes, drop "
            "such rows, or mend the template (chat_template.jinja)",
        ) from error


def _ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[int, ...]:
    turns = [dict(message) for message in messages]
    encoded: Any = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=True
    )
    return tuple(encoded["input_ids"])


def left_out(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[int, ...]:
    """Positions of the messages whose text the chat template leaves out, whatever it is.

    Templates pass over roles that they do not know, without a word. Asked with a mark at the end
    of every text: a template may cut what stands before (an answer's reasoning, white space).

    Raises:
        jinja2.TemplateError: the template refuses such messages.
    """
    marks = [f"mark{number}of{len(messages)}messages" for number in range(len(messages))]
    marked = [
        {**message, "content": f"{message['content']} {mark}"}
        for message, mark in zip(messages, marks, strict=True)
    ]
    written = str(tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=True))
    return tuple(
        number
        for number, mark in enumerate(marks)
        if mark not in written and messages[number]["content"].strip()
    )
