"""Images where no registry of images is reached: stand-ins of the public ones, and ours on them.

STACK_LAB names the script that installs podman and makes the stand-ins (`SCRIPT images`, with the
tags in its environment). Builds see this machine's pip settings and wheels.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import Engine

STATE = Path(os.environ.get("LAB_STATE", "/var/tmp/harness-lab"))
IMAGES = {
    "localhost/harness-locust:local": "docker/locust.Dockerfile",
    "localhost/harness-export:local": "docker/export.Dockerfile",
    "localhost/harness-lab-triton:local": "tests/stack/triton.Dockerfile",
}
PATIENCE_S = 3600
"""For each step; most of what it takes is the network's."""
DEFAULT_INDEX = "https://pypi.org/simple"


def make_images(script: str, checkout: Path, tell: Callable[[str], None]) -> Engine:
    """Build what compose.yaml and compose.lab.yaml name; layers that exist are taken as they are.

    Returns:
        Podman, with the podman-compose of the script.
    """
    _run(["bash", script, "images"], env={**os.environ, **_tags(checkout)})
    if not shutil.which("iptables"):  # podman's networks need it; Debian only recommends it
        _run(["apt-get", "install", "-y", "-qq", "iptables"])
    mounts = _package_settings()
    for image, dockerfile in IMAGES.items():
        command = ["nice", "podman", "build", "--quiet", "--network=host"]
        command += [f"--volume={mount}:ro" for mount in mounts]
        if "export" in dockerfile:
            command += [f"--build-arg=TORCH_INDEX={DEFAULT_INDEX}"]
        started_s = time.monotonic()
        _run([*command, "-t", image, "-f", dockerfile, "."], cwd=checkout)
        seconds = time.monotonic() - started_s
        tell(f"{image}: {_size_bytes(image) / 1e6:,.0f} MB, built in {seconds:.0f} s")
    return Engine("podman", (str(STATE / "venv/bin/podman-compose"),))


def _run(command: list[str], **where: Any) -> None:
    """To the end; what it printed, where it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=PATIENCE_S, **where,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-6000:]}"


def _size_bytes(image: str) -> int:
    return int(subprocess.check_output(["podman", "image", "inspect", "--format={{.Size}}", image]))


def _tags(checkout: Path) -> dict[str, str]:
    """Of the public images, as the files name them."""
    files = ("compose.yaml", "docker/locust.Dockerfile")
    text = "".join((checkout / one).read_text() for one in files)
    names = {
        "TRITON_TAG": "tritonserver",
        "PROMETHEUS_TAG": "prom/prometheus",
        "PYTHON_TAG": "library/python",
    }
    return {
        variable: match[1]
        for variable, name in names.items()
        if (match := re.search(rf"{name}:(\S+)", text))
    }


def _package_settings() -> list[str]:
    """Where a build finds this machine's pip settings, for pip and for uv, and its wheels."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = dict(re.findall(r"^(?::env:|global)\.([\w-]+)='(.*)'$", told, re.MULTILINE))
    pip = [
        f"{key} = {settings[key]}" for key in ("cert", "find-links", "index-url") if key in settings
    ]
    wheels = settings.get("find-links", "").split()
    index = settings.get("index-url", DEFAULT_INDEX)
    uv = ["native-tls = true", f"find-links = {wheels}", f'index-url = "{index}"']
    made = {"/etc/pip.conf": ["[global]", *pip], "/etc/uv/uv.toml": uv}
    mounts = []
    for target, lines in made.items():
        file = STATE / Path(target).name
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        mounts.append(f"{file}:{target}")
    return mounts + [f"{one}:{one}" for one in wheels if Path(one).is_dir()]
