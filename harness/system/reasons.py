"""What a library's exception says, in one line for a person."""

from __future__ import annotations

import re

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_STEP_FAILED = (
    "Failed to export the model with torch.export",
    "Failed to decompose the FX graph",
    "Failed to convert the exported program to an ONNX model",
    "Error when translating node",
)
"""How the exporter's own exceptions begin: they say which step failed, and the cause says why."""
_FOR_ITS_DEVELOPERS = (
    "Caused by:",
    "For more information, run with",
    "For extended logs",
    "If you suspect the guard",
    "For more debugging help",
    "For C++ stack trace",
    "consider using data-dependent friendly APIs",
    "The error above occurred when calling",
    "(Refer to the full stack trace",
)
"""How lines begin that are no reason: settings of torch's tracer, places in its source."""


def plain_reason(error: BaseException) -> str:
    """The reason an exception gives, whole, on one line, without colours.

    torch's exporter wraps what it met in a page of advice to its own developers, with the reason
    as the cause: then the cause's words are taken.
    """
    while error.__cause__ is not None and _clean(error).startswith(_STEP_FAILED):
        error = error.__cause__
    lines = [" ".join(line.split()) for line in _clean(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_FOR_ITS_DEVELOPERS)]
    return f"{type(error).__name__}: {' '.join(told)}" if told else type(error).__name__


def _clean(error: BaseException) -> str:
    return _ESCAPES.sub("", str(error)).strip()
