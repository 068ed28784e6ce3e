"""Optional dependencies: asked for by name, so that a missing one is said in plain words."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from harness.errors import MissingExtraError


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


_TALKATIVE = ("root", "torch.onnx", "torch.export", "onnxscript", "onnx_ir", "transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Mute warnings, log lines below error, and transformers' progress bars; then restore them."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(None if name == "root" else name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # unannotated there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # likewise
