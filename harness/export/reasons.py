"""What a library's exception says, in one line for a person."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NARRATION = (
    "Failed to export the model with torch.export",
    "Failed to decompose the FX graph",
    "Failed to convert the exported program to an ONNX model",
    "This is step",
    "## ",
    "Next steps",
    "- ",
    "Refer to ",
)
"""How lines begin that say which step failed and whom to tell, not why."""


def plain_reason(error: BaseException) -> str:
    """The reason an exception gives, whole, on one line, without colours.

    torch's exporter wraps what it met in a page of advice to its own developers, with the reason
    as the cause: then the cause's words are taken.
    """
    cause = error
    while cause.__cause__ is not None and _is_narration(str(cause)):
        cause = cause.__cause__
    lines = [" ".join(line.split()) for line in _ESCAPES.sub("", str(cause)).splitlines()]
    told = [line for line in lines if line and not line.startswith(_NARRATION)]
    # A trace, or the source around it, follows the reason after a blank line.
    return f"{type(cause).__name__}: {' '.join(told)}" if told else repr(cause)


def _is_narration(text: str) -> bool:
    return _ESCAPES.sub("", text).lstrip().startswith(_NARRATION)
