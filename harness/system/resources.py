"""Files that travel with the package: locustfiles and example studies.

In a checkout they lie at its root, where people look for them; in a wheel under
`harness/_bundled`, where the build puts them (see `force-include` in pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import EnvironmentFailure

_PACKAGE = Path(__file__).resolve().parents[1]


def bundled(name: str) -> Path:
    """Path of a bundled file or folder, for example `locustfiles/session.py`.

    Raises:
        EnvironmentFailure: the installation lacks it.
    """
    for root in (_PACKAGE / "_bundled", _PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise EnvironmentFailure(
        f"this installation of the harness lacks its file {name}",
        next_step="install it anew: pip install --force-reinstall triton-distillation-harness",
    )
