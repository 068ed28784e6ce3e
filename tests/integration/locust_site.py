"""Locust's page with two workers, driven as a browser would, without one."""

from __future__ import annotations

import json
import signal
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from load_rig import wait_until
from locust_command import LIMIT_S, end, start

from tests.ports import free_port


class Site:
    """A page with two workers, without a browser.

    Args:
        folder: for the logs.
        hosts: HOST:PORT of the server by protocol.
        payloads: what is sent to it.
        model: to which model.
        locustfile: the workers', instead of the product's.
        masters_locustfile: the master's, likewise.
    """

    def __init__(
        self,
        folder: Path,
        hosts: Mapping[str, str],
        payloads: Path,
        model: str,
        *,
        locustfile: Path | None = None,
        masters_locustfile: Path | None = None,
    ) -> None:
        self.port, bind = free_port(), str(free_port())
        self.log = folder / "master.log"
        self.hosts, self.payloads, self.model = hosts, payloads, model
        self.master = start(
            "--master", "--master-bind-port", bind, "--web-host", "127.0.0.1",
            "--web-port", str(self.port), log=self.log, locustfile=masters_locustfile,
        )  # fmt: skip
        self.workers = [
            start(
                *("--worker", "--master-port", bind),
                log=folder / f"worker-{one}.log",
                locustfile=locustfile,
            )
            for one in range(2)
        ]

    def close(self) -> None:
        """End all of it, whatever state it is in."""
        self.wake()
        end(self.master, *self.workers)

    def wait_for_both(self) -> None:
        """Until Locust has both workers."""
        wait_until(lambda: self.workers_there() == 2, patience_s=LIMIT_S)

    def workers_there(self) -> int:
        """As Locust counts them; none while its page is not up yet."""
        try:
            return int(self.get("worker-count")["worker_count"])
        except OSError:
            return 0

    def get(self, path: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/{path}"
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            return json.loads(answer.read())

    def begin(self, users: int, protocol: str = "http", **form: str | int) -> None:
        """Fill the whole form in, for Locust keeps what the last one said; returns once it runs."""
        before = self.shown["number"]
        self.swarm(users, protocol, **form)
        wait_until(lambda: self.shown["number"] > before)

    def swarm(self, users: int, protocol: str = "http", **form: str | int) -> None:
        """Send the form: what runs has so many users from now on, and what does not begins."""
        fields: dict[str, object] = {
            "user_count": users, "spawn_rate": 100, "model": self.model, "payloads": self.payloads,
            "host": f"{protocol}://{self.hosts[protocol]}", "objective": "p95 < 5 s",
            "rate": "", "arrivals": "", "records": "", "run_time": "", **form,
        }  # fmt: skip
        self.post("swarm", urllib.parse.urlencode(fields))

    def stop(self) -> None:
        """Returns when all was reported that will be."""
        self.post("stop", "")
        wait_until(lambda: self.shown["verdict"]["final"])

    def post(self, path: str, form: str) -> None:
        url = f"http://127.0.0.1:{self.port}/{path}"
        with urllib.request.urlopen(url, data=form.encode(), timeout=LIMIT_S) as answer:
            assert json.loads(answer.read())["success"]

    def wake(self) -> None:
        """Let the workers go on."""
        for one in self.workers:
            one.send_signal(signal.SIGCONT)

    @property
    def shown(self) -> Any:
        """Of the newest test; its number is 0 while there is none."""
        return self.get("serving/data.json")["shown"] or {"number": 0, "totals": {"requests": 0}}
