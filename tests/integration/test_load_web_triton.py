"""The serving page on the real Triton: its own counts, the workers' and the page's are the same."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from load_rig import make_payloads
from locust_command import end, start
from locust_fleet import patched_locustfile
from selenium import webdriver
from selenium.webdriver.common.by import By
from tiny_model import make_tiny_variant
from web_rig import Page, chromium, wait_until

from harness.runs.folder import read_run
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from tests.ports import free_port

pytestmark = [pytest.mark.browser, pytest.mark.triton]
VARIANTS = ("small-teacher", "small-student")
UNHURRIED = """
from harness_locust import serving_watch
from tests.held_up import unhurried

serving_watch.BOOKED_WITHIN_S = 2.0  # a busy Triton takes its time to count what it has answered
lasting = unhurried()
lasting.__enter__()
"""


@dataclass
class Stack:
    """The page, the server that it drives, and the run folder of the session."""

    page: Page
    triton: EmbeddedTriton
    out: Path
    warmed: dict[str, tuple[int, int]]
    """Requests and rows by variant, before any load."""

    def start(self, number: int, **form: str) -> None:
        """Fill the form in, press its button, and see the test's numbers move."""
        self.page.wait_for(lambda: self.page.field("variant").is_displayed())
        self.page.fill(**form)
        self.page.submit()
        self.page.wait_for(lambda: self.shown()["number"] == number)
        self.page.show("?tab=serving")
        self.page.wait_for(lambda: self.page.text('[data-part="title"]') == form["variant"])
        before = self.page.wait_for(lambda: self.shown()["totals"]["requests"])
        self.page.wait_for(lambda: self.shown()["totals"]["requests"] > before)
        self.page.wait_for(lambda: self.shown()["server"]["batch_sizes"])
        self.page.wait_for(lambda: self.shown()["verdict"]["window_s"])

    def stop(self) -> None:
        """And see that it is over."""
        self.page.press("Stop")
        self.page.wait_for(lambda: self.shown()["verdict"]["final"])

    def download(self, name: str) -> Path:
        """Press the tab's link and wait for the file."""
        folder = self.out.parent / "downloads"
        self.page.browser.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
        )
        link = f'.serving a[href$="serving/{name}"]'
        self.page.wait_for(lambda: self.page.browser.find_element(By.CSS_SELECTOR, link)).click()
        kind = name.removesuffix(".csv")
        (file,) = self.page.wait_for(lambda: list(folder.glob(f"{kind}-*.csv")))
        return Path(file)

    def shown(self) -> Any:
        return self.page.get("serving/data.json")["shown"]

    def counted_by_triton(self, variant: str) -> tuple[int, int]:
        """Successful requests and rows beyond those of the model's warm-up."""
        warm_requests, warm_rows = self.warmed[variant]
        requests, rows = counted(self.triton, variant)
        return requests - warm_requests, rows - warm_rows


def counted(triton: EmbeddedTriton, variant: str) -> tuple[int, int]:
    """Loads the model where it is not."""
    with TritonClient(triton.endpoint) as client:
        client.load(variant)
        statistics = client.statistics(variant) or {}
    requests = statistics["inference_stats"]["success"]["count"]
    return int(requests), int(statistics["inference_count"])


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    chrome = chromium()
    yield chrome
    chrome.quit()


@pytest.fixture
def stack(
    browser: webdriver.Chrome, server_environment: ServerEnvironment, tmp_path: Path
) -> Iterator[Stack]:
    repository, web, bind = tmp_path / "repository", str(free_port()), str(free_port())
    for one in VARIANTS:
        make_payloads(make_tiny_variant(repository, one).path)
        (repository / one / "manifest.json").touch()
    log = tmp_path / "triton.log"
    with EmbeddedTriton(server_environment, repository, log_file=log) as triton:
        master = start(
            "--master", "--master-bind-port", bind, "--web-host", "127.0.0.1", "--web-port", web,
            "--repository", str(repository), "--out", str(tmp_path / "run"),
            "--host", f"http://{triton.endpoint.http}", log=tmp_path / "master.log",
            locustfile=patched_locustfile(tmp_path, UNHURRIED),
        )  # fmt: skip
        workers = [
            start("--worker", "--master-port", bind, log=tmp_path / f"worker-{one}.log")
            for one in range(2)
        ]
        page = Page(browser, f"http://127.0.0.1:{web}")
        try:
            wait_until(lambda: page.get("worker-count")["worker_count"] == 2)
            page.show()
            warmed = {one: counted(triton, one) for one in VARIANTS}
            yield Stack(page, triton, tmp_path / "run", warmed)
        finally:
            end(master, *workers)


@pytest.mark.slow
def test_two_tests_of_the_form_agree_with_tritons_own_counts(stack: Stack) -> None:
    """An open loop on one variant, a closed loop on the other, in the same page."""
    page = stack.page
    stack.start(
        1, variant="small-teacher", protocol="http", clientBatchSize="2", loadMode="open",
        rate="60", lengthMix="8:1,16:1", objective="p95 < 60 s",
    )  # fmt: skip
    assert "open loop, 60 requests/s, batch 2" in page.text('[data-part="subtitle"]')
    stack.stop()
    first = stack.shown()
    requests, rows = stack.counted_by_triton("small-teacher")
    assert first["server"]["requests"] == requests
    assert rows == 2 * requests
    assert first["server"]["where"]["queue_ms"] is not None
    assert first["server"]["where"]["compute_infer_ms"] is not None
    assert len(first["generators"]) == 2

    page.show()
    page.press("New")
    stack.start(
        2, userCount="4", spawnRate="4", variant="small-student", loadMode="closed", rate="",
        objective="p95 < 60 s",
    )  # fmt: skip
    stack.stop()
    second = stack.shown()
    assert second["server"]["requests"] == stack.counted_by_triton("small-student")[0]

    downloaded = stack.download("trials.csv").read_text()
    assert downloaded == page.read("serving/trials.csv")
    assert "measured" in stack.download("series.csv").read_text()
    trials = list(csv.DictReader(io.StringIO(downloaded)))
    assert [one["variant"] for one in trials] == list(VARIANTS)
    shown = [first["verdict"]["decision"], second["verdict"]["decision"]]
    # What is stopped after some seconds may be too little to decide on.
    for one in (first, second):
        reasons = "; ".join(one["verdict"]["reasons"])
        assert "Triton answered" not in reasons, reasons
        assert one["verdict"]["decision"] in {"pass", "undecided"}, reasons
    assert [one["decision"] for one in trials] == shown
    stored = read_run(stack.out).trials
    assert [one.decision for one in stored] == shown
    assert [one.requests for one in stored] == [int(one["requests"]) for one in trials]
    assert [one["variant"] for one in page.get("serving/data.json")["tests"]] == list(VARIANTS)
    histograms = page.get("hdr-histograms.json")
    everything = sum(one["completed"] for one in histograms["phases"])
    assert everything == second["server"]["requests"]
