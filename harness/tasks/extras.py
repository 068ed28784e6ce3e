"""Optional dependencies: asked for by name, so that a missing one is said in plain words."""

from __future__ import annotations

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
