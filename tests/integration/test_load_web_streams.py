"""Locust's tab 'Serving' on a model that writes: tokens, first tokens, gaps, and the engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from locust_command import end, locust, start
from selenium import webdriver
from selenium.webdriver.common.by import By
from token_server import FakeTokenServer, StreamScript, evenly
from web_rig import Page, chromium, wait_until

from tests.ports import free_port

pytestmark = pytest.mark.browser

TOKENS, RUNNING, WAITING = 6, 3, 5
ENGINE = (
    f'generation_running{{model="m"}} {RUNNING}\ngeneration_queued{{model="m"}} {WAITING}\n'
    'generation_running{model="another"} 99\ngeneration_queued{model="another"} 99\n'
)
OBJECTIVE = "ttft p95 < 60 s, itl p99 < 60 s, goodput > 0.01/s"


class _MetricsPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ENGINE.encode())

    def log_message(self, *_: object) -> None:
        """Quietly."""


@pytest.fixture
def metrics() -> Iterator[str]:
    """The page of an engine that has three requests on it and five before it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _MetricsPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


@pytest.fixture
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer(StreamScript(evenly(TOKENS, first_s=0.02, gap_s=0.01))) as made:
        yield made


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"prompt": f"word {at}", "max_tokens": TOKENS}) for at in range(5)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    chrome = chromium()
    yield chrome
    chrome.quit()


@pytest.mark.parametrize(("scheme", "api"), [("grpc", "triton")])
def test_the_serving_tab_shows_streams(
    browser: webdriver.Chrome,
    server: FakeTokenServer,
    prompts: Path,
    metrics: str,
    tmp_path: Path,
    scheme: str,
    api: str,
) -> None:
    port = str(free_port())
    process = start("--web-host", "127.0.0.1", "--web-port", port, log=tmp_path / "locust.log")
    page = Page(browser, f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: "exceptions" in page.get("exceptions"))
        page.show()
        page.wait_for(lambda: page.text("form"))
        page.fill(
            userCount="2", spawnRate="2", host=f"{scheme}://{getattr(server, scheme)}", model="m",
            generate=api, payloads=str(prompts), objective=OBJECTIVE, metricsUrl=metrics,
        )  # fmt: skip
        page.submit()
        page.wait_for(lambda: (shown := page.get("serving/data.json")["shown"])
                      and shown["streams"]["output_tokens"] > 20 * TOKENS)  # fmt: skip
        page.show("?tab=serving")
        charts = [f'[data-part="{name}"] svg' for name in ("ttft", "itl", "tokens", "engine")]
        page.wait_for(lambda: all(browser.find_elements(By.CSS_SELECTOR, one) for one in charts))
        tiles = page.text('[data-part="tiles"]')
        for name in ("output tokens/s", "TTFT p95", "ITL p99", "goodput, requests/s"):
            assert name in tiles
        assert f"running\n{RUNNING}" in tiles
        assert f"waiting\n{WAITING}" in tiles
        assert "nothing of answers that come token by token" in page.text('[data-part="where"]')
        page.press("Stop")
        page.wait_for(lambda: page.get("serving/data.json")["shown"]["verdict"]["final"])
        check_numbers(page, server)
    finally:
        end(process)


def check_numbers(page: Page, server: FakeTokenServer) -> None:
    """What the server itself says that it sent; the first prompt was asked twice beforehand."""
    document = page.get("serving/data.json")["shown"]
    streams, totals = document["streams"], document["totals"]
    assert document["load"].endswith("prompts of prompts.jsonl")
    assert streams["ttft"]["p50"] >= 20
    assert streams["itl"]["p50"] <= streams["itl"]["p99"]
    assert streams["good_per_s"] > 0
    assert {len(values) for values in streams["series"].values()} == {
        len(document["series"]["at_s"])
    }
    assert set(streams["engine"]["running"]) == {RUNNING}
    sent = sum(len(one.token_ns) for one in server.played)
    assert streams["output_tokens"] <= sent
    assert streams["output_tokens"] == pytest.approx(TOKENS * totals["requests"], abs=2 * TOKENS)


@pytest.mark.slow
def test_streams_without_the_page_over_openais_api(server: FakeTokenServer, prompts: Path) -> None:
    """Answered, judged, and every token counted: the exit code is the verdict's."""
    ended = locust(
        "--users", "2", "--run-time", "4s", "--host", f"http://{server.http}", "--model", "m",
        "--generate", "chat", "--payloads", str(prompts), "--objective", OBJECTIVE,
    )  # fmt: skip
    assert ended.returncode in {0, 4, 5}, ended.stderr
    assert "ITL" in ended.stdout + ended.stderr or ended.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--generate", "chat", "--model", "m"], "nothing to send"),
        (["--generate", "triton", "--model", "m", "--payloads", "p", "--client-batch-size", "4"],
         "--client-batch-size is of answers that come in one"),
        (["--generate", "chat", "--model", "m", "--payloads", "p", "--protocol", "grpc"],
         "spoken over HTTP"),
        (["--generate", "chat", "--model", "m", "--payloads", "nowhere.jsonl"],
         "no data set can be read"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(
    server: FakeTokenServer, arguments: list[str], said: str
) -> None:
    host = "http://127.0.0.1:8000" if "--protocol" in arguments else f"http://{server.http}"
    ended = locust("--users", "1", "--run-time", "2s", "--host", host, *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
