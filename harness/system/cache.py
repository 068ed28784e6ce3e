"""Where the harness keeps what it makes once: the server environment, the reference models."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "HARNESS_CACHE_DIR"


def cache_root() -> Path:
    """The user's cache folder of the harness, or `HARNESS_CACHE_DIR` where that is set.

    The folder need not exist yet: who writes into it makes it.
    """
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override).expanduser().resolve()
    return platformdirs.user_cache_path("triton-distillation-harness")
