import dataclasses
from pathlib import Path

import pytest
from sample_run import sample_run

from harness.report.profile.findings import bound_of, scaling_sentence
from harness.report.profile.page import build_profile, profile_page, profile_summary
from harness.types.card import RepeatedMeasure, Runtime
from harness.types.profiles import (
    OperatorCost,
    OperatorProfile,
    Peak,
    Roofline,
    Scaling,
    ScalingStep,
    VariantProfile,
)
from tests.unit.report.test_report_terminal import printed

GIGA = 1e9
ROOFLINE = Roofline(
    machine="a processor",
    threads=1,
    memory_bytes_per_s=10 * GIGA,
    memory_array_bytes=128_000_000,
    cache_bytes_per_s=50 * GIGA,
    cache_array_bytes=2_000_000,
    peaks=(
        Peak(Runtime.PYTORCH, "fp32", 50 * GIGA),
        Peak(Runtime.ONNX_RUNTIME, "fp32", 50 * GIGA),
        Peak(Runtime.ONNX_RUNTIME, "int8", 200 * GIGA),
    ),
    measured_utc="2026-11-25T19:40:00+00:00",
)


def product(intensity, billion_per_s, *, moved=1e5, datatype="fp32"):
    operations = intensity * moved
    return OperatorCost(
        "dense", "MatMul", 1, operations / billion_per_s / 1e3, datatype, operations, moved
    )


def profiled(*costs, runtime=Runtime.ONNX_RUNTIME, batch=16):
    return OperatorProfile(
        runtime, batch, 32, 20, RepeatedMeasure(1.0, 0.9, 1.4), costs, f"traces/{runtime}.json"
    )


@pytest.mark.parametrize(
    ("cost", "word"),
    [
        (product(20, 45), "compute-bound"),
        (product(0.5, 22), "memory-bound"),
        (product(20, 3), "overhead-bound"),
        (product(20, 45, datatype="int8"), "overhead-bound"),
        # Operands that no cache holds: the ridge lies at 5 and not at 1.
        (product(3, 25, moved=1e9), "memory-bound"),
    ],
)
def test_a_bound_is_told_by_the_roof_of_its_datatype_and_memory(cost, word):
    bound = bound_of(profiled(cost), ROOFLINE)
    assert bound.word == word
    assert bound.word in bound.sentence
    assert bound.counted_share == 1


def test_mixed_datatypes_are_each_held_against_their_own_roof():
    both = profiled(product(20, 50), product(40, 200, datatype="int8"))
    bound = bound_of(both, ROOFLINE)
    assert bound.achieved_per_s == pytest.approx(bound.roof_per_s)
    assert "100.0% of their roof" in bound.sentence


def test_time_outside_the_products_is_told():
    rest = OperatorCost("gelu", "Gelu", 1, 1e4, "", None, 1e5)
    assert "around them" in bound_of(profiled(product(20, 45), rest), ROOFLINE).sentence
    nothing = bound_of(profiled(rest), ROOFLINE)
    assert nothing.word == "unknown"


def step(batch, rate, growth=None):
    bounds = (None, None) if growth is None else (growth - 0.02, growth + 0.02)
    return ScalingStep(
        batch, RepeatedMeasure(rate, rate * 0.97, rate * 1.02), growth, *bounds, rounds=6
    )


def scaling(runtime):
    steps = (step(1, 400), step(2, 700, 0.75), step(4, 1100, 0.57), step(8, 1130, 0.03))
    return Scaling(runtime, 32, 0.1, steps, 4, "doubling brings less than 10%, with confidence")


def test_the_knee_is_told_with_what_doubling_brings_and_jobs_an_hour():
    text = scaling_sentence(scaling(Runtime.PYTORCH))
    for part in ("batch 4", "3.0%", "3,960,000 samples per hour", "4,068,000"):
        assert part in text
    endless = dataclasses.replace(scaling(Runtime.PYTORCH), knee=None, ended="it was enough")
    assert "it was enough" in scaling_sentence(endless)


@pytest.fixture
def profile():
    rest = OperatorCost("gelu", "Gelu", 1, 20, "", None, 1e5)
    return VariantProfile(
        variant=sample_run().variants[3],
        threads=1,
        seed=20,
        roofline=ROOFLINE,
        operators=(
            profiled(product(8, 10), rest, runtime=Runtime.PYTORCH, batch=1),
            profiled(product(20, 45), rest, runtime=Runtime.PYTORCH),
            profiled(product(9, 15, datatype="int8"), rest, batch=1),
            profiled(product(20, 120, datatype="int8"), product(4, 30), rest),
        ),
        scaling=(scaling(Runtime.PYTORCH), scaling(Runtime.ONNX_RUNTIME)),
        versions={"pytorch": "2.13.0", "onnxruntime": "1.32.0"},
        instructions=("avx512_vnni",),
        environment={"cpu": "a processor", "cores": 2},
        created_utc="2026-11-25T19:40:00+00:00",
    )


def test_the_page_is_whole_and_needs_no_network(profile, tmp_path):
    path = build_profile(profile, tmp_path)
    text = path.read_text()
    for part in ("avx512_vnni", "compute-bound", "returns diminish", "Where the time goes"):
        assert part in text
    assert 'src="http' not in text
    page = profile_page(profile)
    assert set(page.plots) == {
        "kinds-pytorch", "kinds-onnxruntime", "roofline-pytorch", "roofline-onnxruntime", "scaling",
    }  # fmt: skip
    assert path == Path(tmp_path / "profile.html")


def test_no_point_of_the_sample_lies_above_its_roofs(profile):
    for one in profile.operators:
        bound = bound_of(one, profile.roofline)
        assert bound.achieved_per_s <= bound.roof_per_s


def test_the_terminal_has_a_sentence_a_runtime_and_batch(profile):
    text = printed(profile_summary(profile))
    assert text.count("batch 16:") == 2
    assert text.count("returns diminish") == 2


def test_the_axis_of_throughput_reaches_to_the_ends_of_its_intervals(profile):
    steps = (*scaling(Runtime.PYTORCH).steps[:-1], ScalingStep(
        8, RepeatedMeasure(1130, 90.0, 9000.0), 0.03, 0.01, 0.05, rounds=6
    ))  # fmt: skip
    wide = dataclasses.replace(scaling(Runtime.PYTORCH), steps=steps)
    page = profile_page(dataclasses.replace(profile, scaling=(wide,)))
    low, high = (10**end for end in page.plots["scaling"]["layout"]["yaxis"]["range"])
    assert low < 90.0
    assert high > 9000.0
