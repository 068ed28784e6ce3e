"""What is asked quietly says nothing below an error, and all is afterwards as it was."""

import logging
import warnings

import pytest
from transformers.utils import logging as transformers_logging

from harness.system.libraries import quiet


@pytest.fixture
def talkative():
    """A logger that somebody has let say everything."""
    logger = logging.getLogger("somebody.talkative")
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(logging.NOTSET)


def test_only_errors_are_logged_and_nothing_is_warned_of(talkative, caplog, recwarn):
    with quiet():
        talkative.warning("not this")
        logging.getLogger("torch.onnx").warning("nor this")
        logging.getLogger("transformers").error("this")
        talkative.error("and this")
        warnings.warn("not this either", stacklevel=1)
    assert {one.message for one in caplog.records} <= {"this", "and this"}
    assert "and this" in caplog.messages
    assert not recwarn.list


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_all_is_as_it_was(talkative, caplog, fails):
    bars = transformers_logging.is_progress_bar_enabled()
    try:
        with quiet():
            with quiet():
                pass
            talkative.warning("not this")
            assert not transformers_logging.is_progress_bar_enabled()
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    talkative.debug("this again")
    assert caplog.messages == ["this again"]
    assert transformers_logging.is_progress_bar_enabled() == bars


def test_what_was_muted_before_stays_so(talkative, caplog):
    logging.disable(logging.ERROR)
    try:
        with quiet():
            talkative.error("not this")
        talkative.error("nor this")
    finally:
        logging.disable(logging.NOTSET)
    assert not caplog.messages
