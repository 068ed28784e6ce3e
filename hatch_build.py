"""Puts plotly.js beside the report's templates when the package is installed or a wheel is built.

The report draws with plotly.js and has to work offline, so every installation carries it. Drawing
needs the partial bundle 'cartesian' only (1.5 MB instead of 4.8). That bundle is published for
npm, not for pip: where npm is at hand it is taken from there, pinned by its digest; elsewhere the
full bundle of the `plotly` wheel takes its place, and a report is about 1.4 MB larger.
The file itself is never committed.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PARTIAL = "plotly.js-cartesian-dist-min@4.1.1"
MEMBER = "package/plotly-cartesian.min.js"
SHA256 = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
TARGET = "harness/report/templates/plotly.min.js.gz"
NPM_TIMEOUT_S = 60.0


class PlotlyHook(BuildHookInterface[Any]):
    """Makes `TARGET` where it is not there yet."""

    PLUGIN_NAME = "plotly"

    def dependencies(self) -> list[str]:
        """The wheel that the full bundle comes from; nothing where a bundle is there already."""
        return [] if (Path(self.root) / TARGET).exists() else ["plotly>=6,<8"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Make the bundle, and have the wheel carry it."""
        make_bundle(Path(self.root))
        build_data["artifacts"].append(TARGET)


def make_bundle(root: Path) -> None:
    """Write the compressed bundle into a checkout, unless it is there."""
    target = root / TARGET
    if target.exists():
        return
    script = _partial_bundle() or _full_bundle()
    target.write_bytes(gzip.compress(script, compresslevel=9, mtime=0))


def _partial_bundle() -> bytes | None:
    """From npm; None where there is no npm or it cannot fetch the package."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                [npm, "pack", "--silent", PARTIAL],
                cwd=folder, check=True, capture_output=True, timeout=NPM_TIMEOUT_S,
            )  # fmt: skip
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                member = archive.extractfile(MEMBER)
                script = member.read() if member else b""
        except (OSError, subprocess.SubprocessError, StopIteration, tarfile.TarError, KeyError):
            return None
    if hashlib.sha256(script).hexdigest() != SHA256:
        sys.exit(f"{PARTIAL} is not the file that was checked: its digest differs")
    return script


def _full_bundle() -> bytes:
    found = find_spec("plotly")
    if found is None or found.origin is None:
        sys.exit("plotly.js is needed to build: neither npm nor the package plotly has it")
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_bytes()
