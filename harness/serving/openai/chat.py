"""Chats as token ids, by the checkpoint's own chat template."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.serving.openai.errors import ApiError
from harness.tasks.generation.chat import left_out
from harness.tasks.tokenizers import open_bare

_NO_TEMPLATE = "no_chat_template"


class ChatTemplate:
    """The chat template of a tokenizer's folder; safe to use from several threads.

    The rendered text is tokenised here, without special tokens: templates write their own, and the
    model's server would add its own to a text once more.
    """

    def __init__(self, tokenizer: Path) -> None:
        """Read the folder.

        Raises:
            CheckpointError: there is no tokenizer, or it cannot be read.
            MissingExtraError: the package `transformers` is missing.
        """
        self._tokenizer: Any = open_bare(tokenizer)
        self._lock = threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether the checkpoint has a template at all."""
        return bool(self._tokenizer.chat_template)

    def token_ids(self, messages: Sequence[dict[str, str]]) -> tuple[int, ...]:
        """The prompt that asks for the next message of the assistant.

        Args:
            messages: each with `role` and `content`.

        Raises:
            ApiError: there is no template, or it does not take these messages, or leaves one out.
        """
        if not self.exists:
            raise ApiError(
                "the checkpoint has no chat template: ask /v1/completions, with the prompt as the "
                "model wants it",
                param="messages",
                code=_NO_TEMPLATE,
            )
        from jinja2 import TemplateError

        try:
            with self._lock:
                ids = self._tokenizer.apply_chat_template(
                    self._taken(messages),
                    tokenize=True,
                    add_generation_prompt=True,
                    return_dict=False,
                )
        except TemplateError as error:
            raise ApiError(
                f"the checkpoint's chat template does not take these messages: {error}",
                param="messages",
            ) from error
        return tuple(ids)

    def _taken(self, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """Messages that the template writes, all of them.

        `developer` is a newer name of `system`: what a template leaves out as the one is sent as
        the other.
        """
        lost = left_out(self._tokenizer, messages)
        renamed = [
            one | {"role": "system"} if place in lost and one["role"] == "developer" else one
            for place, one in enumerate(messages)
        ]
        if renamed != list(messages):
            lost = left_out(self._tokenizer, renamed)
        if lost:
            place = f"messages[{lost[0]}]"
            raise ApiError(
                f"the checkpoint's chat template leaves out {place}, of the role "
                f"{messages[lost[0]]['role']}: give it another role, or leave it out",
                param=place,
            )
        return renamed
