"""Images where no registry of images is reached: stand-ins of the public ones, and ours on them.

STACK_LAB names the script that installs podman and makes the stand-ins (`SCRIPT images`, with the
tags in its environment). Builds see this machine's pip settings and wheels.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from engine import Engine

STATE = Path(os.environ.get("LAB_STATE", "/var/tmp/harness-lab"))
IMAGES = {
    "localhost/harness-locust:local": "docker/locust.Dockerfile",
    "localhost/harness-export:local": "docker/export.Dockerfile",
    "localhost/harness-lab-triton:local": "tests/stack/triton.Dockerfile",
}


def make_images(script: str, checkout: Path) -> Engine:
    """Build what compose.yaml and compose.lab.yaml name; layers that exist are taken as they are.

    Returns:
        Podman, with the podman-compose of the script.
    """
    subprocess.run([script, "images"], check=True, env={**os.environ, **_tags(checkout)})
    settings = STATE / "pip.conf"
    settings.write_text(_pip_settings(), encoding="utf-8")
    mounts = [f"{settings}:/etc/pip.conf:ro"]
    mounts += [f"{one}:{one}:ro" for one in ("/opt/wheels", "/opt/pypi") if Path(one).is_dir()]
    for image, dockerfile in IMAGES.items():
        command = ["nice", "podman", "build", "--network=host"]
        command += [f"--volume={mount}" for mount in mounts]
        command += ["--build-arg=TORCH_INDEX=https://pypi.org/simple"]
        subprocess.run([*command, "-t", image, "-f", dockerfile, "."], check=True, cwd=checkout)
    return Engine("podman", (str(STATE / "venv/bin/podman-compose"),))


def _tags(checkout: Path) -> dict[str, str]:
    """Of the public images, as the files name them."""
    text = (checkout / "compose.yaml").read_text() + (
        checkout / "docker/locust.Dockerfile"
    ).read_text()
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


def _pip_settings() -> str:
    """This machine's, as a file."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    lines = {
        key: value
        for key, value in re.findall(r"^(?::env:|global)\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
        if key in {"cert", "find-links", "index-url", "default-timeout"}
    }
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())
