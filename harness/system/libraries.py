"""Other libraries: asked for by extra, kept quiet, and their exceptions put in one line."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from harness.errors import MissingExtraError

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


def require_extra(*packages: str, extra: str = "export", needed_by: str = "this command") -> None:
    """Check that packages of an extra are installed, without importing them.

    Args:
        packages: by the names they are imported by.
        extra: of ours that installs them.
        needed_by: what asks for them, in words.

    Raises:
        MissingExtraError: with the command that installs the extra.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra, needed_by=needed_by)


@contextmanager
def quiet() -> Iterator[None]:
    """Mute warnings, log lines below error, and transformers' progress bars; then restore them."""
    from transformers.utils import logging as transformers_logging

    # Of all loggers at once: with torch there are hundreds, and a level set at one of them makes
    # each forget what it knows, which takes milliseconds.
    disabled = logging.root.manager.disable
    bars = transformers_logging.is_progress_bar_enabled()
    try:
        logging.disable(max(disabled, logging.WARNING))
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # unannotated there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # likewise
