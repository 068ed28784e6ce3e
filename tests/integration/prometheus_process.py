"""A real Prometheus (Debian's) for a test, on its own port."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from tests.ports import free_port

PATIENCE_S = 240
"""A busy machine takes minutes to start Locust; nothing is measured meanwhile."""


class PrometheusProcess:
    """Scrapes targets, by job, as often as it is told to; a context manager."""

    def __init__(self, folder: Path, targets: Mapping[str, str], *, interval: str) -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            pytest.skip("no Prometheus on this machine (Debian: prometheus)")
        folder.mkdir(parents=True)
        self._log = folder / "log"
        configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]}
                for job, target in targets.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self._command = [
            binary, f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}",
        ]  # fmt: skip

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._is_ready, self._log.read_text)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(20)

    def query(self, expr: str, path: str = "query", **form: str) -> list[dict[str, Any]]:
        """The result; the test fails where Prometheus refuses it."""
        data = urllib.parse.urlencode({"query": expr, **form}).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", data, timeout=20) as answer:
            return json.loads(answer.read())["data"]["result"]

    def wait_for(self, expr: str) -> list[dict[str, Any]]:
        """The result, once there is one."""
        return wait_until(lambda: self.query(expr), lambda: f"nothing for {expr}")

    def _is_ready(self) -> bool:
        try:
            return bool(self.query("vector(1)"))
        except OSError:
            return False


def wait_until(found: Callable[[], Any], why: Callable[[], str]) -> Any:
    """What `found` gives once it is true of something."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (result := found()):
        assert time.monotonic() < deadline_s, why()
        time.sleep(0.1)
    return result
