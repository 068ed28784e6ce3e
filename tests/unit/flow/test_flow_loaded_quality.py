"""Work beside a load: begun when it is steady, and the load ends when it is done."""

from __future__ import annotations

import threading

import pytest

from harness.errors import GeneratorError, ServerError
from harness.flow.work_watch import WorkWatch

TIMEOUT_S = 60


def test_the_load_goes_on_until_the_work_is_done():
    begun, may_end = threading.Event(), threading.Event()

    def work():
        begun.set()
        assert may_end.wait(TIMEOUT_S)
        return "scores"

    with WorkWatch(work) as watch:
        assert not watch.decided(())
        assert not begun.is_set()  # nothing before the load is steady
        watch.on_window_start()
        assert begun.wait(TIMEOUT_S)
        assert not watch.decided(())
        may_end.set()
        while not watch.decided(()):
            pass
        watch.on_window_end()
        assert watch.result("600") == "scores"


def test_work_that_outlasts_the_load_gives_nothing():
    may_end = threading.Event()
    with WorkWatch(lambda: may_end.wait(TIMEOUT_S)) as watch:
        watch.on_window_start()
        watch.on_window_end()
        may_end.set()
        with pytest.raises(GeneratorError, match="the load ended after 600 s, before all"):
            watch.result("600")


def test_what_the_work_raises_is_raised():
    def work():
        raise ServerError("model m answered none of 3 prompts")

    with WorkWatch(work) as watch:
        watch.on_window_start()
        while not watch.decided(()):
            pass
        watch.on_window_end()
        with pytest.raises(ServerError, match="answered none of 3"):
            watch.result("600")
