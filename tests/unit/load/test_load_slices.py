"""Slices that come from many places, added up where they belong."""

from __future__ import annotations

import random

import pytest

from harness.load.engine.slices import ADDED_TOGETHER, SliceSums, added_up
from harness.types import Latencies, SparseHistogram, TimeSlice


def slice_at(index: int, bucket: int) -> TimeSlice:
    response = SparseHistogram((bucket,), (1,))
    return TimeSlice(
        index, ok=Latencies({"response": response}), failures={"timeout": 1}, completed=2
    )


@pytest.mark.parametrize("count", [1, ADDED_TOGETHER - 1, ADDED_TOGETHER, 3 * ADDED_TOGETHER + 1])
def test_sums_are_those_of_all_slices_however_they_come_and_whenever_they_are_looked_at(
    count: int,
) -> None:
    drawn = random.Random(count)
    slices = [slice_at(drawn.randrange(5), drawn.randrange(40)) for _ in range(count)]
    sums = SliceSums()
    for at in range(0, count, 7):
        part = slices[at : at + 7]
        assert sums.add(part) == {one.index for one in part}
        if drawn.random() < 0.3:
            assert sums.at(2) == added_up((one for one in slices[: at + 7] if one.index == 2), 2)
    places = sorted({one.index for one in slices})
    whole = [added_up((one for one in slices if one.index == at), at) for at in places]
    assert sums.before(3) == [one for one in whole if one.index < 3]
    assert len(sums) == len(whole)
    assert sums.last == max(one.index for one in slices)
    assert list(sums) == whole


def test_what_is_forgotten_or_popped_is_gone_whether_it_was_looked_at_or_not() -> None:
    sums = SliceSums()
    sums.add([slice_at(0, 3), slice_at(1, 3), slice_at(2, 3)])
    assert sums.at(1).completed == 2
    sums.forget_before(2)
    assert [one.index for one in sums] == [2]
    assert sums.pop(2) == slice_at(2, 3)
    assert list(sums) == []
    assert sums.pop(7) == TimeSlice(7)
    assert sums.last == 0
