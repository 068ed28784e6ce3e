"""The container engine of this machine, and one stack that it runs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 300
PORTS = (
    "TRITON_HTTP_PORT",
    "TRITON_GRPC_PORT",
    "TRITON_METRICS_PORT",
    "LOCUST_PORT",
    "PROMETHEUS_PORT",
    "GRAFANA_PORT",
)


@dataclass(frozen=True)
class Engine:
    """What runs containers here."""

    name: str
    """docker or podman: what lists, enters and kills a container."""
    compose: tuple[str, ...]


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


@dataclass
class Stack:
    """A stack of its own name and ports, out of a checkout of its own."""

    engine: Engine
    checkout: Path
    files: tuple[str, ...]
    variables: dict[str, str]
    ports: dict[str, int] = field(
        default_factory=lambda: dict(zip(PORTS, free_ports(), strict=True))
    )
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def project(self) -> str:
        return self.variables["COMPOSE_PROJECT_NAME"]

    def compose(self, *arguments: str, timeout_s: float = 900) -> str:
        """Run to the end; what it printed on both."""
        files = [part for file in self.files for part in ("-f", file)]
        done = subprocess.run(
            [*self.engine.compose, *files, *arguments], cwd=self.checkout, env=self._environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(done.args)}\n{done.stdout[-6000:]}"
        return done.stdout

    def containers(self, service: str = "", *, all_of_them: bool = False) -> list[str]:
        """Ids of those that run (or of all that there are)."""
        labels = {"project": self.project, **({"service": service} if service else {})}
        filters = [
            f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()
        ]
        every = ["--all"] if all_of_them else []
        return self.run("ps", "--quiet", "--no-trunc", *every, *filters).split()

    def run(self, *arguments: str) -> str:
        """A command of the engine itself; both of its outputs."""
        done = subprocess.run(
            [self.engine.name, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.stdout

    def logs(self, service: str) -> str:
        return "".join(self.run("logs", one) for one in self.containers(service, all_of_them=True))

    def url(self, port: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.ports[port]}/{path}"

    def get(self, port: str, path: str) -> Any:
        with urllib.request.urlopen(self.url(port, path), timeout=10) as answer:
            return json.loads(answer.read())

    def text(self, port: str, path: str = "") -> str:
        with urllib.request.urlopen(self.url(port, path), timeout=10) as answer:
            return str(answer.read().decode())

    def post(self, port: str, path: str, **form: str) -> Any:
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(self.url(port, path), data=data, timeout=90) as answer:
            return json.loads(answer.read())

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Prometheus's answer to an instant query."""
        query = urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = self.get("PROMETHEUS_PORT", f"api/v1/query?{query}")["data"][
            "result"
        ]
        return found

    def wait_for(self, found: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """What `found` gives once it is true of something; the logs where it never is."""
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            try:
                if value := found():
                    return value
            except (OSError, urllib.error.URLError, ValueError, KeyError):
                pass  # not up yet
            time.sleep(0.5)
        logs = "\n".join(
            f"== {service}\n{self.logs(service)[-3000:]}"
            for service in ("export", "triton", "locust-master", "locust-worker", "prometheus")
        )
        raise AssertionError(f"{what}: not within {patience_s:.0f} s\n{logs}")

    def keep_checking_health(self) -> None:
        """Podman leaves health checks to systemd's timers; without it nobody runs them."""
        if self.engine.name == "podman":
            threading.Thread(target=self._check_health, daemon=True).start()

    def down(self) -> None:
        """Remove containers, networks and volumes."""
        self._over.set()
        self.compose("down", "--volumes", timeout_s=180)

    def _check_health(self) -> None:
        while not self._over.wait(2):
            for container in self.containers():
                self.run("healthcheck", "run", container)

    def _environment(self) -> dict[str, str]:
        ports = {name: str(port) for name, port in self.ports.items()}
        return {**os.environ, **ports, **self.variables}


def free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _works(*command: str) -> bool:
    if not shutil.which(command[0]):
        return False
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    return done.returncode == 0
