"""Shapes of a load over time, their integral and its inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.load.schedule.shapes import elapsed_at, level, nominal_seconds, peak
from harness.types import LoadShape, ShapeKind
from harness.types.workloads import parse_shape, shape_text

RAMP = LoadShape(ShapeKind.RAMP, 0.2, 1.0, 10)
STEP = LoadShape(ShapeKind.STEP, 0.5, 2.0, 10)
SPIKE = LoadShape(ShapeKind.SPIKE, 1.0, 5.0, 10)
SINE = LoadShape(ShapeKind.SINE, 0.2, 1.0, 10)

shapes = st.builds(
    LoadShape,
    kind=st.sampled_from(ShapeKind),
    low=st.floats(0, 5, allow_subnormal=False),
    high=st.floats(0.1, 5),
    period_s=st.floats(0.5, 500),
)


@pytest.mark.parametrize(
    ("shape", "at", "factor"),
    [
        (LoadShape(), 1e6, 1.0),
        (RAMP, 0, 0.2),
        (RAMP, 5, 0.6),
        (RAMP, 10, 1.0),
        (RAMP, 99, 1.0),
        (STEP, 9.99, 0.5),
        (STEP, 10, 2.0),
        (STEP, 25, 2.0),
        (SPIKE, 4.49, 1.0),
        (SPIKE, 4.5, 5.0),
        (SPIKE, 5.49, 5.0),
        (SPIKE, 5.51, 1.0),
        (SPIKE, 25.0, 5.0),
        (SINE, 0, 0.2),
        (SINE, 2.5, 0.6),
        (SINE, 5, 1.0),
        (SINE, 20, 0.2),
    ],
)
def test_the_factor_at_a_time(shape: LoadShape, at: float, factor: float) -> None:
    assert level(shape, at) == pytest.approx(factor)
    assert level(shape, np.array([at, at])) == pytest.approx([factor, factor])


@given(shapes, st.floats(0, 3))
def test_what_was_let_through_is_the_integral_of_the_factor(
    shape: LoadShape, periods: float
) -> None:
    end_s = periods * shape.period_s
    middles = (np.arange(20_000) + 0.5) / 20_000 * end_s
    integral = float(np.mean(level(shape, middles))) * end_s
    through = float(nominal_seconds(shape, np.array([end_s]))[0])
    assert through == pytest.approx(integral, rel=1e-3, abs=1e-3 * shape.period_s)


@given(shapes, st.lists(st.floats(0.001, 3), min_size=1, max_size=20))
def test_a_time_is_found_by_what_was_let_through(shape: LoadShape, periods: list[float]) -> None:
    through = nominal_seconds(shape, np.sort(np.array(periods)) * shape.period_s)
    found = elapsed_at(shape, through)
    assert (np.diff(found) >= 0).all()
    # Not the time itself is compared: while the factor is 0, nothing tells times apart.
    error = np.abs(nominal_seconds(shape, found) - through)
    assert error.max() < 1e-5 * shape.period_s * peak(shape)


def test_a_load_that_ends_at_nothing_lets_no_more_through() -> None:
    ending = LoadShape(ShapeKind.RAMP, 2.0, 0.0, 10)  # 10 nominal seconds in all
    found = elapsed_at(ending, np.array([7.5, 10.0, 10.1]))
    assert found == pytest.approx([5.0, 10.0, np.inf])


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("flat", LoadShape()),
        ("ramp:0.2..1.0/60s", LoadShape(ShapeKind.RAMP, 0.2, 1.0, 60)),
        ("step:1..3/30s", LoadShape(ShapeKind.STEP, 1, 3, 30)),
        ("spike:1..5/10min", LoadShape(ShapeKind.SPIKE, 1, 5, 600)),
        ("sine:0..1/1.5h", LoadShape(ShapeKind.SINE, 0, 1, 5400)),
    ],
)
def test_shapes_are_written_in_one_line(text: str, shape: LoadShape) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize(
    "shape",
    [
        LoadShape(),
        LoadShape(ShapeKind.SINE, 0.123456789, 1e-5, 5400.25),
        LoadShape(ShapeKind.STEP, 1, 300000.5, 600),
    ],
)
def test_a_shape_reads_back_as_it_was_written(shape: LoadShape) -> None:
    assert parse_shape(shape_text(shape)) == shape


@pytest.mark.parametrize(
    "text",
    ["", "ramp", "ramp:0.2", "ramp:1..2", "ramp:1..2/60", "ramp:-1..2/60s", "ramp:1..2/-5s",
     "wave:1..2/60s", "flat:1..2/60s", "ramp:a..b/60s", "ramp:1.2.3..2/60s"],
)  # fmt: skip
def test_what_is_no_shape_shows_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match="is not a shape") as caught:
        parse_shape(text)
    assert "ramp:0.2..1/60s" in caught.value.next_step


@pytest.mark.parametrize(
    ("text", "why"), [("sine:0..0/60s", "one above 0"), ("step:1..2/0s", "must be above 0")]
)
def test_shapes_that_send_nothing_are_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_shape(text)
