"""One answer of a generating model as its client has it: the whole stream, once it has ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.types.generation import FinishReason


@dataclass(frozen=True)
class StreamedAnswer:
    """What all responses of a stream bring together."""

    text: str
    tokens: tuple[int, ...]
    """New tokens; the one that ended the text is the last."""
    finish_reason: FinishReason
    prompt_logprobs: NDArray[np.float32] | None = None
    """(prompt,) log probability of each prompt token after those before it; None where the server
    did not tell."""
    prompt_ranks: NDArray[np.int64] | None = None
    """1 where a prompt token is the likeliest in its place, (prompt,); None with it."""
