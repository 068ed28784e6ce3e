"""Locust's web page as people use it: Chromium, and the page that it shows."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import load_rig
import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

TYPE_IN = """
const [field, text] = arguments;
const kind = field.tagName === 'SELECT' ? HTMLSelectElement : HTMLInputElement;
Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(field, text);
field.dispatchEvent(new Event('input', {bubbles: true}));
field.dispatchEvent(new Event('change', {bubbles: true}));
"""
PATIENCE_S = 180
CACHED_S = 2.1
"""Locust gives the statistics of up to two seconds ago."""
WINDOW = "--window-size=1440,900"


def chromium() -> webdriver.Chrome:
    """A headless one; skips the test where there is none."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("no Chromium with its chromedriver on this machine (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", WINDOW):
        options.add_argument(argument)
    return webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )


class Page:
    """The page of a Locust that was started without a plan."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser, self.address = browser, address

    def read(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.address}/{path}", timeout=PATIENCE_S) as answer:
            text: str = answer.read().decode()
        return text

    def get(self, path: str) -> Any:
        return json.loads(self.read(path))

    def show(self, query: str = "") -> None:
        self.browser.get(f"{self.address}/{query}")

    def field(self, name: str) -> WebElement:
        return self.browser.find_element(By.NAME, name)

    def fill(self, **values: str) -> None:
        for name, value in values.items():
            field = self.field(name)
            if field.tag_name == "select":
                Select(field).select_by_value(value)
            else:
                self.browser.execute_script(TYPE_IN, field, value)

    def submit(self) -> None:
        self.browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()

    def press(self, title: str) -> None:
        """Click a button, once it is there and has unfolded so far that it can be clicked."""
        at = f"//button[normalize-space()='{title}']"
        self.wait_for(lambda: self.browser.find_element(By.XPATH, at).click() is None)

    def wait_for(self, found: Callable[[], Any]) -> Any:
        """What `found` gives once it is true of something; what the page shows, where it is not."""
        try:
            return WebDriverWait(self.browser, PATIENCE_S, ignored_exceptions=[Exception]).until(
                lambda _: found()
            )
        except TimeoutException:
            shown = f"{self.browser.current_url} shows:\n{self.text('body')}"
            told = json.dumps(self.get("stats/requests"))
            pytest.fail(f"{shown}\nwhile the server tells:\n{told}")

    def text(self, selector: str) -> str:
        return self.browser.find_element(By.CSS_SELECTOR, selector).text

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """What is shown beneath each tab, by its name."""
        time.sleep(CACHED_S)
        tables = self.get("stats/requests")["extended_stats"]
        return {table["key"]: table["data"] for table in tables}


def wait_until(true: Callable[[], object], *, patience_s: float = 2 * PATIENCE_S) -> None:
    """Until it is true, whatever refuses to answer before."""

    def answered() -> object:
        try:
            return true()
        except OSError:
            return False

    load_rig.wait_until(answered, patience_s=patience_s)
