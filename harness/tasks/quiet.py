"""Silence for libraries that narrate (transformers, torch's exporter): we show our own progress."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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
