from hypothesis import given
from hypothesis import strategies as st

from harness.export.tensorrt import plan_profile

SIZES = st.lists(st.integers(1, 512), min_size=1, max_size=5)


@given(SIZES, SIZES)
def test_every_batch_and_length_of_a_study_is_inside(batches, lengths):
    profile = plan_profile(batches, lengths)
    for batch in range(1, max(batches) + 1):
        assert all(profile.holds(batch, length) for length in lengths)
    for axis in (0, 1):
        smallest, likeliest, largest = (
            shape[axis] for shape in (profile.smallest, profile.likeliest, profile.largest)
        )
        assert 1 <= smallest <= likeliest <= largest
    assert not profile.holds(max(batches) + 1, max(lengths))
    assert not profile.holds(1, max(lengths) + 1)
