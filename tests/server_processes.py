"""Servers that somebody has started on this machine, found by what their command line names."""

from __future__ import annotations

from pathlib import Path

import psutil


def servers_on(repository: Path, *, below: psutil.Process | None = None) -> list[int]:
    """Process ids of the Tritons on a model repository.

    Args:
        repository: as the server was given it.
        below: only what this process has started, where others may serve the same repository.
    """
    named = f"--model-repository={repository}"
    family = psutil.process_iter() if below is None else below.children(recursive=True)
    return [one.pid for one in family if any(named in word for word in _command(one))]


def _command(process: psutil.Process) -> list[str]:
    """Empty for a process that has ended, or is none of ours."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
