"""How much of a server's time others took, by readings whose answer is known."""

import pytest

from harness.types import HostMetrics
from harness.types.limits import lost_share


def host(*, used=0.0, waited=0.0, foreign=0.0, steal=0.0, busy=1.0):
    return HostMetrics(
        cpu_utilization=busy,
        server_run_cores=used,
        server_wait_cores=waited,
        server_foreign_wait_cores=foreign,
        cpu_steal=steal,
    )


def test_a_saturated_server_loses_what_its_thread_waited():
    """Two busy loops on two cores leave its one thread two thirds of one."""
    assert lost_share(host(used=0.67, waited=0.33, foreign=0.33), 16.0) == pytest.approx(0.33)


def test_one_request_at_a_time_loses_its_own_wait():
    """A tenth of the time a request is there, and for half of that its thread waits."""
    assert lost_share(host(used=0.05, waited=0.05, foreign=0.05), 0.1) == pytest.approx(0.5)


def test_a_model_that_hardly_computes_is_hardly_delayed():
    """It sleeps, or waits for a GPU: 20 ms per request, of which 0.2 on a processor, 0.2
    waiting."""
    assert lost_share(host(used=0.01, waited=0.01, foreign=0.01), 1.0) == pytest.approx(0.01)


def test_threads_that_wait_for_each_other_lose_nothing():
    assert lost_share(host(used=1.9, waited=1.8, foreign=0.02), 32.0) == pytest.approx(0.02 / 3.7)


def test_what_the_hypervisor_took_is_lost_too():
    """Of ten seconds' worth of work one was stolen: for each nine that ran."""
    assert lost_share(host(used=0.9, steal=0.1, busy=1.0), 4.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "missing", ["server_run_cores", "server_wait_cores", "server_foreign_wait_cores"]
)
def test_what_is_not_told_is_not_judged(missing):
    told = {"server_run_cores": 1.0, "server_wait_cores": 1.0, "server_foreign_wait_cores": 1.0}
    assert lost_share(HostMetrics(**told | {missing: None}), 1.0) is None
    assert lost_share(HostMetrics(), None) is None
