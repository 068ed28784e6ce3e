"""Servers that somebody has started on this machine, found by what their command line names."""

from __future__ import annotations

from pathlib import Path

import psutil


def servers_on(repository: Path) -> list[int]:
    """Process ids of the Tritons on a model repository."""
    named = f"--model-repository={repository}"
    return [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if any(named in word for word in one.info["cmdline"] or [])
    ]
