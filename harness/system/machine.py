"""What this machine is: written into every manifest, because a number without it means little."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import harness

# The packages whose release can change a measured number.
_PACKAGES = (
    "gevent", "grpcio", "locust", "numpy", "onnx", "onnxruntime", "scikit-learn", "scipy",
    "tokenizers", "torch", "transformers", "tritonclient",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """CPU, memory, kernel, Python and package versions, as JSON values."""
    return {
        "instance": cloud_instance(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpu_names(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "harness": harness.__version__,
        "packages": package_versions(),
    }


DMI = Path("/sys/class/dmi/id")


def cloud_instance(dmi: Path = DMI) -> str:
    """The cloud's instance type, as the firmware gives it; empty where it does not.

    Amazon's does (`g5.xlarge`); Google's and Microsoft's name the cloud alone.
    """
    try:
        vendor, product = (
            (dmi / name).read_text(encoding="utf-8").strip()
            for name in ("sys_vendor", "product_name")
        )
    except (OSError, UnicodeDecodeError):
        return ""
    return product if vendor == "Amazon EC2" else ""


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_names() -> list[str]:
    """Names of the NVIDIA GPUs, empty where there is no driver."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],  # noqa: S607  (where the driver put it)
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def package_versions() -> dict[str, str]:
    """Installed releases of the packages that can change a number."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def source_revision() -> str | None:
    """The checkout's commit, with '+changes' where it has uncommitted ones; None for a wheel."""
    root = Path(harness.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    # Without a lock, which would stay in the checkout where git is cut off: on a full disk, say.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return answer.stdout.strip()
