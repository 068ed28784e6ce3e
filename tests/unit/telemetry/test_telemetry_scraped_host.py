"""The server's machine out of Prometheus' samples: Triton's GPU series, node_exporter's, DCGM's."""

from __future__ import annotations

from typing import Any

import pytest

from harness.telemetry.prometheus.client import Prometheus, Series
from harness.telemetry.prometheus.host import host_metrics
from harness.types import HostMetrics

SECONDS = tuple(float(at) for at in range(12))
HERE = HostMetrics(cpu_utilization=0.9, memory_used_bytes=7, server_cpu=1.5)


def series(name: str, values: list[float], **labels: str) -> Series:
    return Series({"__name__": name, **labels}, SECONDS, tuple(values))


def gauge(name: str, value: float, **labels: str) -> Series:
    return series(name, [value] * 12, **labels)


def counter(name: str, a_second: float, **labels: str) -> Series:
    return series(name, [a_second * at for at in range(12)], **labels)


class Known(Prometheus):
    """Has what it is given, whoever asks; notes the selectors."""

    found: list[Series]
    asked: list[str]

    def samples(self, selector: str, **_: Any) -> list[Series]:
        self.asked.append(selector)
        return [one for one in self.found if one.labels["__name__"] in selector]


def known(*found: Series, host_match: str = "") -> Known:
    made = Known("http://p", host_match=host_match)
    object.__setattr__(made, "found", list(found))
    object.__setattr__(made, "asked", [])
    return made


def test_gpu_figures_are_tritons_own() -> None:
    prometheus = known(
        gauge("nv_gpu_utilization", 0.4, gpu_uuid="0"),
        gauge("nv_gpu_utilization", 0.8, gpu_uuid="1"),
        gauge("nv_gpu_memory_used_bytes", 1e9, gpu_uuid="0"),
        counter("nv_energy_consumption", 250.0, gpu_uuid="0"),
        counter("nv_energy_consumption", 50.0, gpu_uuid="1"),
    )
    host = host_metrics(prometheus, ["[::1]:8002"], HERE, (1.3, 9.8))
    assert host.gpu_utilization == pytest.approx(0.6)
    assert host.gpu_memory_bytes == 1_000_000_000
    assert host.gpu_power_w == pytest.approx(300)
    assert (host.cpu_utilization, host.server_cpu) == (0.9, 1.5), "this machine's stay"
    assert r'instance=~"\\[::1\\]:8002"' in prometheus.asked[0]


def test_the_exporters_stand_for_the_machine_that_is_named() -> None:
    prometheus = known(
        counter("node_cpu_seconds_total", 3.0, mode="idle"),
        counter("node_cpu_seconds_total", 0.5, mode="iowait"),
        counter("node_cpu_seconds_total", 0.5, mode="user"),
        counter("node_cpu_seconds_total", 0.5, mode="guest"),
        gauge("node_memory_MemTotal_bytes", 100),
        gauge("node_memory_MemAvailable_bytes", 30),
        gauge("DCGM_FI_DEV_GPU_UTIL", 55),
        gauge("DCGM_FI_DEV_FB_USED", 2),
        gauge("DCGM_FI_DEV_POWER_USAGE", 120),
        host_match='instance="gpu1:9100"',
    )
    host = host_metrics(prometheus, ["a:1"], HERE, (1.3, 9.8))
    assert host.cpu_utilization == pytest.approx(0.125)
    assert host.memory_used_bytes == 70
    assert host.gpu_utilization == pytest.approx(0.55)
    assert host.gpu_memory_bytes == 2 * 2**20
    assert host.gpu_power_w == 120


def test_what_nobody_exports_is_missing() -> None:
    prometheus = known(host_match='instance="gpu1:9100"')
    host = host_metrics(prometheus, ["a:1"], HERE, (1.3, 9.8))
    assert host.cpu_utilization is None
    assert host.memory_used_bytes is None
    assert host.gpu_utilization is None
    assert host_metrics(known(), [], HERE, (1.3, 9.8)) == HERE
