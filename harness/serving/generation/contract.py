"""What the engine of continuous batching asks of a decoder, is asked by its clients, and tells.

Runs in the server's environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.serving.generation.prompt_scores import PromptScores
from harness.types.generation import FinishReason, GeneratorSettings, SamplingParameters

Logits = NDArray[np.float32]


class Decoder(Protocol):
    """What runs the model; see `SlotDecoder`."""

    slots: int
    context: int

    def read(self, first: int, rows: list[NDArray[np.int64]], start: list[int]) -> Logits:
        """Read several new tokens of neighbouring slots; logits behind each row's last."""
        ...

    def read_all(self, first: int, rows: list[NDArray[np.int64]], start: list[int]) -> Logits:
        """Read equally many new tokens of neighbouring slots; logits behind each token."""
        ...

    def write(self, tokens: list[int], lengths: list[int]) -> Logits:
        """Read one new token of each of the first slots; logits behind each."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first tokens to another slot, and with an encoder its prompt."""
        ...


class DecoderWithEncoder(Decoder, Protocol):
    """What runs an encoder-decoder; see `SourcedDecoder`."""

    def encode(self, slot: int, tokens: NDArray[np.int64]) -> None:
        """Read a whole prompt into a slot."""
        ...


class RejectedRequestError(ValueError):
    """A request that is not taken, in words for the client."""

    def __init__(self, message: str, *, is_busy: bool = False) -> None:
        super().__init__(message)
        self.is_busy = is_busy
        """Whether it would be taken at another time."""


@dataclass(frozen=True)
class Piece:
    """What one step adds to an answer."""

    text: str
    tokens: tuple[int, ...]
    reason: FinishReason
    """Not NONE: this is the last piece."""
    prompt: PromptScores | None = None
    """Scores of the prompt; in the first piece, if the request asks for them."""
    queue_s: float = 0.0
    """Seconds that the request waited for a slot; known in the last piece."""
    error: str = ""
    """Why this request alone cannot be answered further; then this is the last piece."""


@dataclass(frozen=True)
class QueuedRequest:
    """One prompt, and what is to be done with the answer."""

    prompt: Sequence[int]
    parameters: SamplingParameters
    emit: Callable[[Piece], None]
    """Called once for each step; must return at once."""
    is_cancelled: Callable[[], bool] = lambda: False
    """Whether the client went away; asked between steps."""


@dataclass
class EngineCounters:
    """What the engine has done since it started; sums only grow."""

    queued: int = 0
    """Requests that wait now."""
    running: int = 0
    """Requests that hold a slot now."""
    prompt_tokens: int = 0
    """Prompt tokens read."""
    output_tokens: int = 0
    """Tokens written."""
    finished: int = 0
    cancelled: int = 0
    rejected: int = 0
    read_steps: int = 0
    write_steps: int = 0
    read_s: float = 0.0
    """Time in which prompts were read (prefill)."""
    write_s: float = 0.0
    """Time in which tokens were written (decode)."""
    queue_s: float = 0.0
    """Time that requests waited for a slot, over all that got one."""
    draft_s: float = 0.0
    """Part of `write_s` in which a draft proposed tokens."""
    draft_tokens: int = 0
    """Proposed by a draft."""
    draft_accepted: int = 0
    """Of these, those that are in the answers."""


def check_request(request: QueuedRequest, settings: GeneratorSettings, context: int) -> None:
    """Refuse a request that this model cannot answer.

    Args:
        request: as the client sent it.
        settings: of the model.
        context: tokens that prompt and answer have room for in the decoder.

    Raises:
        RejectedRequestError: a prompt without a token, with tokens that the model does not know, or
            with no room for an answer.
    """
    if not len(request.prompt):
        raise RejectedRequestError("the prompt is empty: it has no token to begin with")
    given = request.parameters.decoder_prompt
    for what, tokens in (("the prompt", request.prompt), ("decoder_prompt", given)):
        least, most = min(tokens, default=0), max(tokens, default=0)
        if least < 0 or most >= settings.vocabulary:
            raise RejectedRequestError(
                f"{what} has a token {least if least < 0 else most}; the model knows "
                f"0 to {settings.vocabulary - 1}"
            )
    _check_room(request, settings, context)


def _check_room(request: QueuedRequest, settings: GeneratorSettings, context: int) -> None:
    given = len(request.parameters.decoder_prompt)
    tokens, answer = len(request.prompt), min(1, request.parameters.max_tokens)
    if not settings.has_encoder:
        if given:
            raise RejectedRequestError("decoder_prompt is for models with an encoder")
        if tokens + answer > context:
            raise RejectedRequestError(
                f"the prompt has {tokens} tokens; prompt and answer have room for {context}"
            )
        return
    if tokens > settings.source_context:
        raise RejectedRequestError(
            f"the prompt has {tokens} tokens; the encoder reads {settings.source_context} at most"
        )
    if 1 + given + answer > context:
        raise RejectedRequestError(
            f"decoder_prompt has {given} tokens; with the start token and the answer there is "
            f"room for {context}"
        )
