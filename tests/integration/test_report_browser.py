"""The report as people see it: opened in Chromium, on a laptop and on a phone."""

import shutil
from dataclasses import replace
from datetime import date

import pytest
from sample_card import run_with_card
from sample_run import sample_run
from sample_scaling import sample_scaling
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait
from unusual_runs import UNUSUAL

from harness.planning.cost.catalogue import read_catalogue
from harness.planning.cost.costs import CostQuestion, costs_of
from harness.report.build import build_report
from harness.report.page import page_of
from harness.runs.documents import write_document
from harness.types import Role
from harness.types.estimates import Demand
from tests.held_up import PATIENCE_S

pytestmark = pytest.mark.browser

LAPTOP, PHONE = (1440, 900), (390, 844)
UNUSUAL_ALWAYS = ("no_trials", "nothing_answered", "hostile", "unbounded")
"""Nothing to draw, nothing to draw a trial by, names that are markup, bounds without an end. A
browser takes five seconds for each; `make check-slow` opens the others too."""
DRAWN = """
return [...document.querySelectorAll('[data-plot]')].filter(
  (box) => box.querySelector('.main-svg')).map((box) => ({
  key: box.dataset.plot,
  marks: box.querySelectorAll(
    '.scatterlayer .point, .barlayer .point path, .heatmaplayer image').length,
  inside: [...box.querySelectorAll('.scatterlayer .point, .barlayer .point path')]
    .every((mark) => mark.getBBox().width > 0 || mark.getBBox().height > 0),
  width: box.querySelector('.main-svg').getBoundingClientRect().width,
  room: box.clientWidth,
}))
"""
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(23, 27, 32)"
BACKGROUNDS = """
return [...document.querySelectorAll('.plot .main-svg')]
  .filter((svg) => !svg.closest('details:not([open])'))
  .map((svg) => svg.style.background).filter((colour) => colour);
"""


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its chromedriver on this machine (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    # To unfold a page for paper draws all its plots in one script.
    chrome.set_script_timeout(PATIENCE_S)
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return build_report(sample_run(), tmp_path_factory.mktemp("report"))[0]


def show(browser, path, size=LAPTOP, scheme="light"):
    """Open a page; returns what the browser complained of."""
    emulate(browser, scheme)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE},
    )
    browser.get_log("browser")
    browser.get(path.as_uri())
    wait(
        browser,
        lambda: browser.execute_script("return 'drawn' in document.documentElement.dataset"),
    )
    return [entry["message"] for entry in browser.get_log("browser")]


def wait(browser, until):
    WebDriverWait(browser, PATIENCE_S).until(lambda _: until())


def unfold(browser):
    """Open every part of the page, as a reader does one by one."""
    browser.execute_script(
        "for (const one of document.querySelectorAll('details')) one.open = true"
    )
    whole = "return document.querySelectorAll('[data-plot]').length"
    drawn = "return document.querySelectorAll('[data-plot] > .plot-container').length"
    wait(browser, lambda: browser.execute_script(drawn) == browser.execute_script(whole))


def emulate(browser, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def backgrounds(browser):
    """Background colours of all plots."""
    return set(browser.execute_script(BACKGROUNDS))


def overflow(browser):
    return browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def test_the_verdict_is_on_the_first_screen(browser, report):
    assert show(browser, report) == []
    badge = browser.find_element("css selector", ".verdict .badge")
    summary = browser.find_element("css selector", ".verdict .summary")
    assert badge.text.split() == ["✓", "Pass"]
    assert "Serve topics-student-int8" in summary.text
    assert summary.is_displayed()
    assert summary.rect["y"] + summary.rect["height"] < LAPTOP[1]


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(LAPTOP, "light", id="light-laptop"),
        pytest.param(PHONE, "dark", id="dark-phone"),
        pytest.param(PHONE, "light", id="light-phone", marks=pytest.mark.slow),
        pytest.param(LAPTOP, "dark", id="dark-laptop", marks=pytest.mark.slow),
    ],
)
def test_every_plot_is_drawn_with_data_and_nothing_overflows(browser, report, size, scheme):
    assert show(browser, report, size, scheme) == []
    assert 0 < len(browser.execute_script(DRAWN)) < len(page_of(sample_run()).plots)
    assert overflow(browser) == 0
    unfold(browser)
    plots = browser.execute_script(DRAWN)
    assert len(plots) == len(page_of(sample_run()).plots)
    for plot in plots:
        assert plot["marks"] > 0, plot
        assert plot["inside"], plot
        assert abs(plot["width"] - plot["room"]) <= 1, plot
    assert overflow(browser) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report.html", "card.html"])
def test_the_report_card_is_drawn_on_a_phone(browser, tmp_path, name):
    run = run_with_card()
    build_report(run, tmp_path)
    assert show(browser, tmp_path / name, PHONE) == []
    unfold(browser)
    plots = [p for p in browser.execute_script(DRAWN) if "-card-" in p["key"]]
    assert len(plots) == 6
    for plot in plots:
        assert plot["marks"] > 0, plot
        assert abs(plot["width"] - plot["room"]) <= 1, plot
    assert overflow(browser) == 0


def test_plots_follow_the_colour_scheme_on_load_and_on_change(browser, report):
    show(browser, report, scheme="dark")
    assert backgrounds(browser) == {DARK}
    emulate(browser, "light")
    # The browser tells the page of the change with its next frame.
    WebDriverWait(browser, PATIENCE_S).until(lambda chrome: backgrounds(chrome) == {LIGHT})


@pytest.mark.slow
def test_print_is_light_whatever_the_reader_prefers(browser, report):
    show(browser, report, scheme="dark")
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert backgrounds(browser) == {LIGHT}
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert backgrounds(browser) == {DARK}


@pytest.mark.slow
def test_print_unfolds_everything_and_folds_it_again(browser, report):
    show(browser, report)
    folds = "return document.querySelectorAll('details:not([open])').length"
    before = browser.execute_script(folds)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(folds) == 0
    assert len(browser.execute_script(DRAWN)) == len(page_of(sample_run()).plots)
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(folds) == before > 10


def test_the_opened_page_is_short(browser, report):
    show(browser, report, (1280, 900))
    assert browser.execute_script("return document.documentElement.scrollHeight") <= 8_000


def test_a_link_to_a_folded_part_unfolds_it(browser, report):
    show(browser, report)
    for link, part in (("#trials", "table.trials"), ("#study", "#study pre")):
        found = browser.find_element("css selector", f'a[href="{link}"]')
        browser.execute_script("arguments[0].click()", found)
        # The browser tells the page of the link only after the click.
        wait(browser, browser.find_element("css selector", part).is_displayed)


def column(browser, title):
    """Sort values of a column of the trials' table, top to bottom."""
    return browser.execute_script(
        """
        const table = document.querySelector('table.trials');
        const header = [...table.tHead.rows[0].cells]
          .find((cell) => cell.textContent.startsWith(arguments[0]));
        return [...table.tBodies[0].rows].map((row) => row.cells[header.cellIndex].dataset.sort);
        """,
        title,
    )


def press(browser, title):
    button = browser.find_element(
        "xpath", f"//table[contains(@class,'trials')]//th/button[starts-with(., '{title}')]"
    )
    browser.execute_script("arguments[0].click()", button)
    return button.find_element("xpath", "..").get_attribute("aria-sort")


def test_trials_sort_by_number_both_ways(browser, report):
    show(browser, report)
    measured = [float(value) for value in column(browser, "Throughput")]
    assert measured != sorted(measured)
    assert press(browser, "Throughput") == "ascending"
    assert [float(value) for value in column(browser, "Throughput")] == sorted(measured)
    assert press(browser, "Throughput") == "descending"
    assert [float(v) for v in column(browser, "Throughput")] == sorted(measured, reverse=True)


def test_what_was_not_measured_sorts_last_both_ways(browser, tmp_path):
    page = build_report(UNUSUAL["nothing_answered"](), tmp_path)[0]
    show(browser, page)
    for _ in range(2):
        press(browser, "p95")
        values = column(browser, "p95")
        assert values == sorted(values, key=lambda value: value == "")


def test_a_variant_is_hidden_and_shown_in_all_plots_of_its_family(browser, report):
    show(browser, report)
    count = "return document.querySelectorAll('.scatterlayer .point').length"
    before = browser.execute_script(count)
    button = browser.find_element("css selector", ".key button")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert browser.execute_script(count) < before
    button.click()
    assert browser.execute_script(count) == before


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in UNUSUAL_ALWAYS else pytest.mark.slow)
        for name in UNUSUAL
    ],
)
def test_unusual_runs_open_without_complaint_on_a_phone(browser, tmp_path, name):
    page = build_report(UNUSUAL[name](), tmp_path)[0]
    assert show(browser, page, PHONE) == []
    assert overflow(browser) == 0
    assert browser.title != "1"
    for plot in browser.execute_script(DRAWN):
        assert plot["marks"] > 0, plot


@pytest.mark.parametrize("size", [pytest.param(LAPTOP, marks=pytest.mark.slow), PHONE])
def test_what_is_planned_of_the_whole_run_is_drawn_too(browser, tmp_path, size):
    """Costs and policies belong to no family, and come last: no plot before them may fail."""
    run = priceable(sample_run())
    variant = next(one.name for one in run.variants if one.role is Role.STUDENT)
    question = CostQuestion(
        date(2026, 11, 29), ("c7i.large", "c7i.xlarge"), measured_on="c7i.large"
    )
    costs = costs_of(run, Demand(300.0), read_catalogue(today=question.today), question)
    assert variant in {one.variant for one in costs.costs}
    write_document(tmp_path, "cost", costs)
    write_document(tmp_path, "autoscale", scaling := sample_scaling())
    assert show(browser, build_report(run, tmp_path)[0], size) == []
    unfold(browser)
    drawn = {plot["key"]: plot for plot in browser.execute_script(DRAWN)}
    first = [one for one in costs.costs if one.family == costs.costs[0].family]
    assert drawn["cost-1"]["marks"] == len(first)
    assert drawn["autoscaling-front"]["marks"] == len(scaling.outcomes) + 1  # the chosen, twice
    assert {"autoscaling-course", "autoscaling-in-time"} <= drawn.keys()
    assert overflow(browser) <= 0


def priceable(run):
    """The run with throughputs that have intervals, as costs need them."""
    trials = tuple(
        replace(
            one,
            throughput_low_inferences_per_s=0.9 * one.throughput_inferences_per_s,
            throughput_high_inferences_per_s=1.1 * one.throughput_inferences_per_s,
        )
        for one in run.trials
    )
    return replace(run, trials=trials)
