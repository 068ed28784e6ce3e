"""Shares as they are typed after an option."""

from __future__ import annotations

import pytest

from harness.cli.options import parse_share
from harness.errors import UsageError


def test_a_share_is_a_percentage_or_a_number():
    assert (parse_share("95%", "--chance"), parse_share("0.95", "--chance")) == (0.95, 0.95)
    assert parse_share("0%", "--tolerance", none_too=True) == 0


@pytest.mark.parametrize("text", ["0%", "100%", "nan", "much", "-5%", ""])
def test_what_is_no_share_is_refused_with_a_right_one(text):
    with pytest.raises(UsageError, match="a share is above 0% and below 100%") as raised:
        parse_share(text, "--chance")
    assert raised.value.next_step == "write it as --chance 95%"


@pytest.mark.parametrize("text", ["100%", "-1%", "nan"])
def test_where_none_is_a_share_less_is_not(text):
    with pytest.raises(UsageError, match=r"--tolerance .*: a share is 0% or more and below 100%"):
        parse_share(text, "--tolerance", none_too=True)


def test_what_to_write_instead_is_a_share_that_makes_sense_there():
    with pytest.raises(UsageError) as raised:
        parse_share("0%", "--error", usual="5%")
    assert raised.value.next_step == "write it as --error 5%"
