"""Locust's own options of its page, together with what the harness adds to it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import Behaviour, FakeServer, constant
from load_rig import make_payloads, wait_until
from locust_command import LIMIT_S, end, start

from tests.ports import free_port

OURS = (
    "serving/data.json", "serving/trials.csv", "serving/series.csv", "serving/static/serving.js",
    "hdr-histograms.json", "metrics",
)  # fmt: skip


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.01))) as made:
        yield made


def answer_of(url: str) -> tuple[int, str]:
    """Status and text, once there is somebody to answer."""
    found: list[tuple[int, str]] = []

    def answered() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
                found.append((answer.status, answer.read().decode()))
        except urllib.error.HTTPError as error:
            found.append((error.code, error.read().decode()))
        except OSError:
            return False
        return True

    wait_until(answered, patience_s=LIMIT_S)
    return found[0]


@pytest.mark.parametrize(
    "distributed",
    [
        pytest.param(False, id="one process"),
        pytest.param(True, id="master and workers", marks=pytest.mark.slow),
    ],
)
def test_autostart_sends_the_rate_and_no_more(
    server: FakeServer, tmp_path: Path, distributed: bool
) -> None:
    bind, web = str(free_port()), str(free_port())
    master = ["--master", "--master-bind-port", bind, "--expect-workers", "2"]
    process = start(
        *(master if distributed else ()),
        *("--web-host", "127.0.0.1", "--web-port", web, "--autostart", "--autoquit", "0"),
        *("--host", f"http://{server.http}", "--model", "m"),
        *("--payloads", str(make_payloads(tmp_path)), "--rate", "60", "--arrivals", "constant"),
        *("--run-time", "2s"),
        log=tmp_path / "locust.log",
    )  # fmt: skip
    workers = [
        start("--worker", "--master-port", bind, log=tmp_path / f"worker-{one}.log")
        for one in range(2 if distributed else 0)
    ]
    try:
        assert process.wait(LIMIT_S) == 0, (tmp_path / "locust.log").read_text()
    finally:
        end(process, *workers)
    assert len(server.served) == 2 * 60


def test_autostart_with_a_mistake_is_one_line_and_exit_2(tmp_path: Path) -> None:
    log = tmp_path / "locust.log"
    process = start("--autostart", "--web-port", str(free_port()), "--rate", "60", log=log)
    try:
        assert process.wait(LIMIT_S) == 2, log.read_text()
    finally:
        end(process)
    (line,) = [one for one in log.read_text().splitlines() if "ERROR" in one]
    assert "nothing to send" in line


def test_all_of_the_page_moves_behind_a_base_path(tmp_path: Path) -> None:
    port = free_port()
    process = start(
        "--web-host", "127.0.0.1", "--web-port", str(port), "--web-base-path", "/load",
        log=tmp_path / "locust.log",
    )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}/load"
        assert './serving/static/serving.js"' in answer_of(f"{base}/")[1]
        found = {path: answer_of(f"{base}/{path}")[0] for path in OURS}
        assert [path for path, status in found.items() if status == 404] == ["hdr-histograms.json"]
        assert "no test" in answer_of(f"{base}/hdr-histograms.json")[1]
        outside = [answer_of(f"http://127.0.0.1:{port}/{path}")[0] for path in OURS]
        assert outside == [404] * len(OURS)
    finally:
        end(process)


def test_nothing_is_told_without_the_login(tmp_path: Path) -> None:
    """Nobody can log in with this locustfile alone; so nobody sees anything."""
    port = free_port()
    process = start(
        "--web-host", "127.0.0.1", "--web-port", str(port), "--web-login",
        log=tmp_path / "locust.log",
    )  # fmt: skip
    try:
        for path in OURS:
            _, said = answer_of(f"http://127.0.0.1:{port}/{path}")
            assert "auth exception" in said, path
    finally:
        end(process)
