"""Locust's web page with the harness's tables, as people use it: in Chromium."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import Behaviour, FakeServer, constant
from load_rig import checkout, make_payloads
from locust_command import end, response_of, start
from locust_fleet import master_that_waits
from selenium import webdriver
from selenium.webdriver.common.by import By
from web_rig import CACHED_S, PATIENCE_S, Page, chromium, wait_until

from harness import hdr
from tests.ports import free_port

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    chrome = chromium()
    yield chrome
    chrome.quit()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.02))) as made:
        yield made


@pytest.fixture
def page(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    port = str(free_port())
    process = start("--web-host", "127.0.0.1", "--web-port", port, log=tmp_path / "locust.log")
    made = Page(browser, f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: "exceptions" in made.get("exceptions"))
        yield made
    finally:
        end(process)


def test_a_test_is_started_watched_reset_stopped_and_started_again(
    page: Page, server: FakeServer, tmp_path: Path
) -> None:
    page.show()
    page.wait_for(lambda: page.text("form"))
    page.fill(userCount="2", spawnRate="2", host=f"http://{server.http}")
    page.submit()
    alert = page.wait_for(lambda: page.text(".MuiAlert-message"))
    assert "--model and --payloads say what" in alert
    assert page.get("stats/requests")["state"] == "ready"
    assert "--model and --payloads" in page.get("exceptions")["exceptions"][0]["msg"]

    page.fill(model="m", payloads=str(make_payloads(tmp_path)))
    page.submit()
    # Locust remembers its answers for two seconds: a page opened just now must not read "ready".
    page.wait_for(lambda: page.get("stats/requests") and server.served)
    assert page.get("stats/requests")["state"] in {"spawning", "running"}
    page.wait_for(lambda: len(server.served) > 50)
    page.show("?tab=hdr-latency")
    shown = page.wait_for(lambda: "schedule delay" in (found := page.text("table")) and found)
    assert "p99.9 (ms)" in shown
    tables = page.tables()
    first = tables["hdr-latency"][0]
    assert (first["latency"], first["window"]) == ("response", "whole test")
    assert float(first["p50"]) >= 20
    assert tables["generators"][0]["process"] == "this process"
    page.wait_for(lambda: page.tables()["outcomes"][0]["requests"] > 50)

    before = len(server.served)
    page.press("Reset")
    counted = page.tables()["outcomes"][0]["requests"]
    assert counted <= len(server.served) - before

    page.press("Stop")
    page.wait_for(lambda: page.get("stats/requests")["state"] == "stopped")
    server.served.clear()
    form = f"user_count=3&spawn_rate=3&host=grpc://{server.grpc}".encode()
    with urllib.request.urlopen(f"{page.address}/swarm", data=form, timeout=PATIENCE_S) as answer:
        assert json.loads(answer.read())["success"]
    page.wait_for(lambda: len(server.served) > 50)
    time.sleep(CACHED_S)
    page.show()
    page.press("Stop")
    page.wait_for(lambda: page.get("stats/requests")["state"] == "stopped")
    time.sleep(CACHED_S)
    statistics = page.get("stats/requests")["stats"]
    assert [one["method"] for one in statistics[:-1]] == ["gRPC"]
    assert statistics[-1]["num_requests"] == len(server.served)
    document = page.get("hdr-histograms.json")
    assert hdr.total(response_of(document)) == len(server.served)


def test_the_serving_tab_shows_a_test_of_two_workers_of_which_one_dies(
    browser: webdriver.Chrome, server: FakeServer, tmp_path: Path
) -> None:
    """Filled in, started, watched, a worker killed, stopped, downloaded, and in the dark."""
    repository = tmp_path / "repository"
    make_payloads(repository / "m")
    (repository / "m" / "manifest.json").touch()
    web, bind, out = str(free_port()), str(free_port()), tmp_path / "run"
    master = start(
        "--master", "--master-bind-port", bind, "--web-host", "127.0.0.1", "--web-port", web,
        "--repository", str(repository), "--out", str(out), log=tmp_path / "master.log",
        locustfile=master_that_waits(tmp_path, seconds=1.0),
    )  # fmt: skip
    workers = [
        start("--worker", "--master-port", bind, log=tmp_path / f"worker-{one}.log")
        for one in range(2)
    ]
    page = Page(browser, f"http://127.0.0.1:{web}")
    try:
        wait_until(lambda: page.get("worker-count")["worker_count"] == 2)
        start_after_a_refusal(page, server, repository / "m" / "payloads.npz")
        watch_it_run(page)
        workers[1].kill()
        page.wait_for(lambda: "was lost" in page.text(".serving"))
        page.press("Stop")
        page.wait_for(lambda: page.get("serving/data.json")["shown"]["verdict"]["final"])
        page.wait_for(lambda: "Invalid" in page.text('[data-part="verdict"]'))
        assert page.text(".serving").count("its share of the load is missing since") == 1
        check_what_is_kept(page, out)
        browser.execute_script("localStorage.theme = 'dark'")
        page.show("?tab=serving")
        page.wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, '.serving[data-theme="dark"]'))
    finally:
        browser.execute_script("localStorage.removeItem('theme')")
        end(master, *workers)


def start_after_a_refusal(page: Page, server: FakeServer, payloads: Path) -> None:
    """An objective that does not parse is said in the form; then the test of a variant starts."""
    page.show()
    page.wait_for(lambda: page.text("form"))
    page.fill(
        userCount="4", spawnRate="4", host=f"http://{server.http}",
        model="m", payloads=str(payloads), objective="p95 < nothing",
    )  # fmt: skip
    page.submit()
    alert = page.wait_for(lambda: page.text(".MuiAlert-message"))
    assert "the objective does not parse" in alert
    form = f"user_count=4&spawn_rate=4&host=http://{server.http}&objective=p95 < 60 s"
    form += "&variant=m&model=&payloads="
    url = f"{page.address}/swarm"
    with urllib.request.urlopen(url, data=form.encode(), timeout=PATIENCE_S) as answer:
        assert json.loads(answer.read())["success"]


def watch_it_run(page: Page) -> None:
    """The tab says what it knows and what is missing, and its numbers move."""
    page.wait_for(lambda: page.get("stats/requests")["state"] == "running")
    page.show("?tab=serving")
    page.wait_for(lambda: page.text('[data-part="title"]') == "m")
    page.wait_for(lambda: page.browser.find_elements(By.CSS_SELECTOR, ".serving polyline"))
    missing = page.wait_for(lambda: page.text('[data-part="where"]'))
    assert "server's statistics are missing" in missing
    assert "Missing: the metrics page is unknown" in page.text('[data-part="gpu"]')
    before = page.get("serving/data.json")["shown"]["totals"]["requests"]
    page.wait_for(
        lambda: page.get("serving/data.json")["shown"]["totals"]["requests"] > before + 20
    )
    page.wait_for(lambda: len(page.get("serving/data.json")["shown"]["generators"]) == 2)


def check_what_is_kept(page: Page, out: Path) -> None:
    """The tables to download, the run folder and the tab tell of the same test."""
    assert "was lost" in page.read("serving/trials.csv")
    assert page.read("serving/series.csv").count("measured") > 2
    shown = page.get("serving/data.json")["shown"]["totals"]["requests"]
    (line,) = (out / "journal.jsonl").read_text().splitlines()
    assert json.loads(line)["data"]["requests"] == shown > 0


SLOW_STYLE = """
import sys, time
sys.path.insert(0, {locustfiles!r})
from locustfile import *
from locust import events
from flask import request

@events.init.add_listener
def slow(web_ui, **_):
    @web_ui.app.before_request
    def wait():
        if request.path.endswith(".css") and request.path not in seen:
            seen.add(request.path)
            time.sleep(3)  # once: by then the charts are drawn

seen = set()
"""
STROKES = """
return [...document.querySelectorAll('.serving polyline')].map(
    (line) => [getComputedStyle(line).stroke, getComputedStyle(line).fill])
"""
WIDTHS = """
return [...document.querySelectorAll('.serving .chart svg')].map(
    (svg) => [svg.getBoundingClientRect().width, svg.parentElement.clientWidth])
"""
STYLED = """
const grid = document.querySelector('.serving .grid:not([hidden])');
return getComputedStyle(grid).display === 'grid';
"""
TAB = """
const box = document.querySelector('[role=tab][aria-selected=true]').getBoundingClientRect();
return [box.left, box.right, document.documentElement.clientWidth];
"""


@pytest.mark.slow
def test_the_charts_survive_a_late_stylesheet_and_the_tab_is_in_view(
    browser: webdriver.Chrome, server: FakeServer, tmp_path: Path
) -> None:
    """What was drawn before the style came has its colours, and its size once it came."""
    locustfile = tmp_path / "slow.py"
    locustfile.write_text(SLOW_STYLE.format(locustfiles=str(checkout() / "locustfiles")))
    port, log = str(free_port()), tmp_path / "locust.log"
    process = start(
        "--web-host", "127.0.0.1", "--web-port", port, "--autostart", "--users", "2",
        "--host", f"http://{server.http}", "--model", "m",
        "--payloads", str(make_payloads(tmp_path)), log=log, locustfile=locustfile,
    )  # fmt: skip
    page = Page(browser, f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: (page.get("serving/data.json")["shown"] or {"series": {"at_s": []}})
                   ["series"]["at_s"][2:])  # fmt: skip
        page.show("?tab=serving")
        strokes = page.wait_for(lambda: browser.execute_script(STROKES))
        assert {fill for _, fill in strokes} == {"none"}
        assert "rgb(37, 99, 235)" in {stroke for stroke, _ in strokes}
        page.wait_for(lambda: browser.execute_script(STYLED))
        page.wait_for(
            lambda: (
                (widths := browser.execute_script(WIDTHS))
                and all(svg <= box for svg, box in widths)
            )
        )
        for width in (1440, 700, 390):
            browser.set_window_size(width, 900)
            page.show("?tab=serving")
            page.wait_for(lambda: page.text('[data-part="title"]') == "m")
            page.wait_for(
                lambda: (box := browser.execute_script(TAB)) and 0 <= box[0] < box[1] <= box[2]
            )
    finally:
        browser.set_window_size(1440, 900)
        end(process)


FIELDS = """
const form = document.querySelector('form [name="objective"]').closest('.MuiAccordion-root');
const shown = (one) => one.getClientRects().length > 0;
return {
    groups: [...form.querySelectorAll('.form-group')].map(
        (one) => [one.textContent, one.getAttribute('aria-expanded')]),
    shown: [...form.querySelectorAll('[name]')].filter(shown).map((one) => one.name),
    all: [...form.querySelectorAll('[name]')].map((one) => one.name),
};
"""


def test_the_form_is_grouped_and_folded(page: Page) -> None:
    """Without a repository a model and its payloads have to be named: their group is open."""
    page.show()
    found = page.wait_for(
        lambda: (seen := page.browser.execute_script(FIELDS))["groups"] and seen["shown"] and seen
    )
    assert found["groups"] == [
        ["What is tested", "true"],
        ["Model and payloads", "true"],
        ["Open loop: when requests fall due", "false"],
        ["Closed loop: users over time", "false"],
        ["Connection", "false"],
        ["What is kept", "false"],
    ]
    assert {"objective", "rate", "model", "payloads"} <= set(found["shown"])
    assert not {"sweep", "arrivals", "insecure", "records"} & set(found["shown"])
    assert {"sweep", "arrivals", "insecure", "records"} <= set(found["all"])
    page.press("Connection")
    page.wait_for(lambda: "caFile" in page.browser.execute_script(FIELDS)["shown"])
    page.press("Connection")
    page.wait_for(lambda: "caFile" not in page.browser.execute_script(FIELDS)["shown"])
