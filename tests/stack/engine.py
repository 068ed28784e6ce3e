"""The container engine of this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """What runs containers here."""

    name: str
    """docker or podman: what lists, enters and kills a container."""
    compose: tuple[str, ...]

    def run(self, *arguments: str, timeout_s: float = 120) -> str:
        """A command of the engine itself, whatever its exit code; both of its outputs."""
        done = subprocess.run(
            [self.name, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout

    def do(self, *arguments: str) -> None:
        """A command of the engine that has to succeed."""
        done = subprocess.run(
            [self.name, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{shlex.join(done.args)}: {done.stderr}"


def find_engine() -> Engine | None:
    """Docker with Compose v2, else podman with podman-compose; STACK_COMPOSE names another."""
    asked = os.environ.get("STACK_COMPOSE")
    if asked:
        return Engine("podman" if shutil.which("podman") else "docker", tuple(shlex.split(asked)))
    if _works("docker", "info") and _works("docker", "compose", "version"):
        return Engine("docker", ("docker", "compose"))
    if shutil.which("podman") and shutil.which("podman-compose"):
        return Engine("podman", ("podman-compose",))
    return None


def _works(*command: str) -> bool:
    if not shutil.which(command[0]):
        return False
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    return done.returncode == 0
