"""Silence for lm-evaluation-harness, which narrates and draws bars; we show our own progress."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod

from harness.system.libraries import quiet

_TALKATIVE = ("lm_eval", "datasets", "huggingface_hub")
_ONE_PROCESS = "DISABLE_MULTIPROC"
"""lm-eval's: its bootstrap would fork this process, which holds gRPC channels."""


@contextmanager
def lm_eval_quiet() -> Iterator[None]:
    """Mute log lines below error and every bar; keep lm-eval's bootstrap in this process."""
    from tqdm import tqdm

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    drawing = tqdm.__init__
    before = os.environ.get(_ONE_PROCESS)
    os.environ[_ONE_PROCESS] = "1"
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        tqdm.__init__ = partialmethod(drawing, disable=True)
        with quiet():
            yield
    finally:
        tqdm.__init__ = drawing
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if before is None:
            os.environ.pop(_ONE_PROCESS, None)
        else:
            os.environ[_ONE_PROCESS] = before
