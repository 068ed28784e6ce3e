"""One stack of compose.yaml: brought up, asked, and taken down to the last container."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from engine import Engine

PATIENCE_S = 300
PORTS = (
    "TRITON_HTTP_PORT",
    "TRITON_GRPC_PORT",
    "TRITON_METRICS_PORT",
    "LOCUST_PORT",
    "PROMETHEUS_PORT",
    "GRAFANA_PORT",
)
SERVICES = ("export", "triton", "locust-master", "locust-worker", "prometheus")


@dataclass
class Stack:
    """A stack with its own name and ports, from its own checkout."""

    engine: Engine
    checkout: Path
    files: tuple[str, ...]
    project: str
    variables: dict[str, str]
    ports: dict[str, int] = field(
        default_factory=lambda: dict(zip(PORTS, free_ports(), strict=True))
    )

    def compose(self, *arguments: str, exit_code: int | None = 0, timeout_s: float = 900) -> str:
        """Run to the end and hold it to its exit code; what it printed on both outputs."""
        files = [part for file in self.files for part in ("-f", file)]
        done = subprocess.run(
            [*self.engine.compose, *files, *arguments], cwd=self.checkout, env=self._environment(),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_s,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        told = f"{shlex.join(done.args)}: exit {done.returncode}\n{done.stdout[-6000:]}"
        assert exit_code in {None, done.returncode}, told
        return done.stdout

    def containers(self, service: str = "", *, all_of_them: bool = False) -> list[str]:
        """Ids of those that run (or of all that there are)."""
        labels = {"project": self.project, **({"service": service} if service else {})}
        filters = [
            f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()
        ]
        every = ["--all"] if all_of_them else []
        return self.engine.run("ps", "--quiet", "--no-trunc", *every, *filters).split()

    def inspect(self, container: str) -> dict[str, Any]:
        """What the engine knows of it."""
        found: dict[str, Any] = json.loads(self.engine.run("inspect", container))[0]
        return found

    def logs(self, service: str) -> str:
        """Of all of a service's containers, those that ended too."""
        containers = self.containers(service, all_of_them=True)
        return "".join(self.engine.run("logs", one) for one in containers)

    def url(self, port: str, path: str = "") -> str:
        """From this machine."""
        return f"http://127.0.0.1:{self.ports[port]}/{path}"

    def text(self, port: str, path: str = "") -> str:
        """The body of an answer."""
        with urllib.request.urlopen(self.url(port, path), timeout=10) as answer:
            return str(answer.read().decode())

    def get(self, port: str, path: str) -> Any:
        """The JSON of an answer."""
        return json.loads(self.text(port, path))

    def post(self, port: str, path: str, **form: str) -> Any:
        """The JSON of the answer to a form."""
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(self.url(port, path), data=data, timeout=90) as answer:
            return json.loads(answer.read())

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Prometheus's answer to an instant query."""
        query = urllib.parse.urlencode({"query": expression})
        answer = self.get("PROMETHEUS_PORT", f"api/v1/query?{query}")
        found: list[dict[str, Any]] = answer["data"]["result"]
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
        logs = "\n".join(f"== {one}\n{self.logs(one)[-3000:]}" for one in SERVICES)
        raise AssertionError(f"{logs}\n{what}: not within {patience_s:.0f} s")

    def down(self) -> None:
        """Remove containers, networks and volumes."""
        # podman-compose removes containers in an order that leaves those in use, and their volumes,
        # to the end of the first `down`; and it knows of one worker, whatever `up` was told.
        if self.engine.name == "podman":
            self.compose("down", "--remove-orphans", timeout_s=180)
        self.compose("down", "--volumes", timeout_s=180)

    def leftovers(self) -> list[str]:
        """Whatever on this machine still bears the project's name."""
        things = {
            "container": ("ps", "--all", "--format={{.Names}}"),
            "network": ("network", "ls", "--format={{.Name}}"),
            "volume": ("volume", "ls", "--format={{.Name}}"),
            **(
                {"pod": ("pod", "ls", "--format={{.Name}}")} if self.engine.name == "podman" else {}
            ),
        }
        found = [
            f"{kind} {name}"
            for kind, command in things.items()
            for name in self.engine.run(*command).split()
        ]
        found += [
            f"process {shlex.join(command)}"
            for one in psutil.process_iter(["cmdline"])
            if (command := one.info["cmdline"])
        ]
        return [one for one in found if self.project in one]

    def _environment(self) -> dict[str, str]:
        ports = {name: str(port) for name, port in self.ports.items()}
        return {**os.environ, **ports, **self.variables, "COMPOSE_PROJECT_NAME": self.project}


def free_ports() -> list[int]:
    """One for each port that the stack publishes."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
