"""Reading a scrape of Triton's metrics page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.telemetry.triton import MetricsPage, scrape

PAGE = """\
# HELP nv_inference_request_failure Number of failed inference requests, all batch sizes
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="a",reason="REJECTED",version="1"} 4
nv_inference_request_failure{model="a",reason="REJECTED",version="2"} 1
nv_inference_request_failure{model="a",reason="OTHER",version="1"} 0
nv_inference_request_failure{model="b",reason="OTHER",version="1"} 9
# HELP nv_inference_pending_request_count Instantaneous number of pending requests
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="a",version="1"} 3
# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-0"} 0.25
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.75
"""


def test_failures_are_summed_by_reason_over_versions_of_one_model() -> None:
    page = MetricsPage.parse(PAGE)

    assert page.failed_by_reason("a") == {"REJECTED": 5, "OTHER": 0}
    assert page.failed_by_reason("b") == {"OTHER": 9}


def test_a_model_without_a_series_offers_nothing() -> None:
    assert MetricsPage.parse(PAGE).failed_by_reason("c") is None


def test_gauges_are_read_by_name_and_label() -> None:
    page = MetricsPage.parse(PAGE)

    assert page.values("nv_gpu_utilization") == [0.25, 0.75]
    assert page.values("nv_inference_pending_request_count", model="a") == [3.0]
    assert page.values("nv_inference_pending_request_count", model="b") == []


@pytest.mark.parametrize("text", [None, "", "<html>404</html>", 'a{b="', "a NaN"])
def test_a_page_in_another_format_holds_nothing(text: str | None) -> None:
    assert MetricsPage.parse(text).samples == ()


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    assert MetricsPage.parse(text).failed_by_reason("no such model") is None


def test_an_address_where_nothing_listens_gives_no_page() -> None:
    assert scrape("http://127.0.0.1:9/metrics") is None
