"""What a router does at every threshold: share routed, quality, and what a request then costs."""

from __future__ import annotations

from harness.planning.routing.guarantee import THRESHOLDS
from harness.planning.routing.rows import Mask, RoutedRows
from harness.statistics.intervals import Bounds, bounds, share_bounds, side_by_side
from harness.statistics.metrics import mean_sums
from harness.types.estimates import Interval
from harness.types.routing import RoutePoint, ServedModel

EVERYTHING = 2.0
"""A threshold above every confidence: all rows go to the teacher."""
_STEP = 0.05
"""Smallest step in the share routed from one point of the curve to the next."""


def point_at(
    rows: RoutedRows, threshold: float, served: tuple[ServedModel, ServedModel], *, seed: int
) -> RoutePoint:
    """What the router does at a threshold.

    Args:
        rows: that the threshold was not chosen on.
        threshold: below it a row goes to the teacher.
        served: the student's numbers and the teacher's.
        seed: of the interval of the share kept.
    """
    deferred, right = rows.deferred(threshold), rows.right(threshold)
    routed = float(deferred.mean())
    student, teacher = served
    return RoutePoint(
        threshold,
        routed=_interval(routed, share_bounds(int(deferred.sum()), rows.size)),
        accuracy=accuracy_of(right),
        kept=kept_share(rows.right(threshold), rows.teacher_right, seed=seed),
        gained=float((deferred & rows.teacher_right & ~rows.student_right).mean()),
        lost=float((deferred & ~rows.teacher_right & rows.student_right).mean()),
        latency_ms=_mixed(student.latency_ms, teacher.latency_ms, routed),
        usd_per_million=_mixed(student.usd_per_million, teacher.usd_per_million, routed),
    )


def curve_of(
    rows: RoutedRows, served: tuple[ServedModel, ServedModel], *, seed: int
) -> tuple[RoutePoint, ...]:
    """Points at least 5% of the rows apart, from the student alone to the teacher alone."""
    places, last = [0.0], 0.0
    for threshold in reversed(THRESHOLDS):
        routed = float(rows.deferred(threshold).mean())
        if last + _STEP <= routed < 1:
            places.append(threshold)
            last = routed
    return tuple(point_at(rows, one, served, seed=seed) for one in [*places, EVERYTHING])


def kept_share(right: Mask, teacher_right: Mask, *, seed: int) -> Interval | None:
    """A router's accuracy over the teacher's on the same rows, with its 95% interval.

    Args:
        right: whether the router's answer is right, (rows,).
        teacher_right: the teacher's likewise.
        seed: of the interval.

    Returns:
        None where that has no interval, as where the teacher is never right.
    """
    if not teacher_right.any():
        return None
    router, teacher = (mean_sums(one, limits=(0.0, 1.0)) for one in (right, teacher_right))
    value = float(right.mean() / teacher_right.mean())
    found = bounds(side_by_side(router, teacher), seed=seed)
    return _interval(value, found) if found.low is not None else None


def accuracy_of(right: Mask) -> Interval:
    """The share of right rows, with its 95% interval."""
    return _interval(float(right.mean()), share_bounds(int(right.sum()), len(right)))


def _interval(value: float, found: Bounds) -> Interval:
    """A value and bounds that are known."""
    assert found.low is not None  # noqa: S101  (told the types, which know both or neither)
    assert found.high is not None  # noqa: S101
    return Interval(value, found.low, found.high)


def _mixed(student: float | None, teacher: float | None, routed: float) -> float | None:
    if student is None or teacher is None:
        return None
    return student + routed * teacher
