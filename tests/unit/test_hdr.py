"""That the vectorised histogram is HdrHistogram's own, value by value."""

from __future__ import annotations

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import hdr
from harness.types import SparseHistogram

EDGES_US = [0, 1, 1023, 1024, 2047, 2048, 4095, 4096, hdr.HIGHEST_US - 1, hdr.HIGHEST_US]
latencies_us = st.one_of(st.sampled_from(EDGES_US), st.integers(0, hdr.HIGHEST_US))


def histogram_of(values_us: list[int]) -> SparseHistogram:
    return hdr.of_nanoseconds(np.array(values_us, dtype=np.int64) * 1000)


def reference_of(values_us: list[int]) -> HdrHistogram:
    reference = HdrHistogram(hdr.LOWEST_US, hdr.HIGHEST_US, hdr.SIGNIFICANT_FIGURES)
    for value in values_us:
        assert reference.record_value(value)
    return reference


@settings(max_examples=30)  # HdrHistogram is slow to make and to read
@given(st.lists(latencies_us, min_size=1, max_size=60))
def test_it_counts_as_hdrhistogram_does(values_us: list[int]) -> None:
    reference = reference_of(values_us)
    seen = histogram_of(values_us)
    expected = {at: count for at, count in enumerate(reference.counts) if count}
    assert dict(zip(seen.buckets, seen.counts, strict=True)) == expected
    assert hdr.total(seen) == reference.get_total_count() == len(values_us)


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=150), st.integers(1, 100))
def test_a_quantile_is_the_smallest_value_that_so_many_do_not_exceed(values_us, percent) -> None:
    rank = -(-percent * len(values_us) // 100)
    exact_ms = sorted(values_us)[rank - 1] / 1000
    seen_ms = hdr.value_at(histogram_of(values_us), percent / 100)
    assert exact_ms <= seen_ms <= exact_ms * 1.001


@settings(max_examples=30)
@given(st.lists(latencies_us, max_size=60))
def test_its_encoded_form_is_the_standard_one(values_us: list[int]) -> None:
    encoded = hdr.encode(histogram_of(values_us))
    read = HdrHistogram.decode(encoded)
    assert list(read.counts) == list(reference_of(values_us).counts)
    assert hdr.decode(encoded) == histogram_of(values_us)
    assert hdr.decode(reference_of(values_us).encode().decode()) == histogram_of(values_us)


@given(st.lists(st.lists(latencies_us, max_size=20), max_size=5), st.randoms())
def test_merging_in_any_order_is_counting_all_at_once(parts, random) -> None:
    shuffled = random.sample(parts, len(parts))
    merged = hdr.merge(histogram_of(part) for part in shuffled)
    assert merged == histogram_of([value for part in parts for value in part])


def test_merging_keeps_large_counts_exactly() -> None:
    parts = [SparseHistogram((5, 7), (2**40 + 1, 3)), SparseHistogram((7,), (2**40,))]
    assert hdr.merge(parts) == SparseHistogram((5, 7), (2**40 + 1, 2**40 + 3))


@given(latencies_us)
def test_a_bucket_holds_its_values_within_a_thousandth(value_us: int) -> None:
    bucket = hdr.bucket_of(np.array([value_us]))
    lowest, highest = int(hdr.lowest_value_us(bucket)[0]), int(hdr.highest_value_us(bucket)[0])
    assert lowest <= value_us <= highest
    assert highest - lowest <= value_us / 1000
    assert int(hdr.bucket_of(np.array([highest + 1]))[0]) in {bucket[0] + 1, bucket[0]}


def test_what_is_out_of_range_goes_to_the_nearest_bucket() -> None:
    outside = hdr.bucket_of(np.array([-5, hdr.HIGHEST_US * 3]))
    assert outside.tolist() == hdr.bucket_of(np.array([0, hdr.HIGHEST_US])).tolist()
    assert outside.max() < 1 << hdr.INDEX_BITS


def test_nanoseconds_are_rounded_to_the_nearest_microsecond() -> None:
    seen = hdr.of_nanoseconds(np.array([499, 500, 1_499, 1_500]))
    assert seen == SparseHistogram((0, 1, 2), (1, 2, 1))


@given(st.lists(latencies_us, min_size=1, max_size=50))
def test_the_mean_is_off_by_half_a_bucket_at_most(values_us: list[int]) -> None:
    mean_ms = hdr.mean_ms(histogram_of(values_us))
    assert mean_ms == pytest.approx(np.mean(values_us) / 1e3, rel=0.0005)


def test_an_empty_histogram_has_no_quantile_and_no_mean() -> None:
    assert hdr.value_at(SparseHistogram(), 0.5) is None
    assert hdr.mean_ms(SparseHistogram()) is None
    assert hdr.merge([]) == hdr.merge([SparseHistogram(), SparseHistogram()]) == SparseHistogram()
