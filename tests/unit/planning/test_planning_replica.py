"""One replica, simulated: against closed forms, and against an event-by-event simulation."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import t

from harness.errors import UsageError
from harness.planning.capacity.replica import Replica, simulate_arrivals, simulate_clients
from harness.types import ServingConfig
from tests.simulated_server import SimulatedServer, completions, measure

REPLICATIONS, REQUESTS, CUT = 16, 20_000, 2_000
NARROW = 0.06
"""Half of an interval over the value: wider ones would hold nothing."""


def mean_time(replica, rate, *, exponential, seed):
    """Mean seconds in the system, with the half of its 99.9% interval over replications."""
    means = []
    for number in range(REPLICATIONS):
        generator = np.random.default_rng([seed, number])
        arrivals = np.cumsum(generator.exponential(1 / rate, REQUESTS))
        noise = generator.standard_exponential(REQUESTS) if exponential else np.ones(REQUESTS)
        run = simulate_arrivals(replica, arrivals, None, noise)
        means.append(float((run.completed_s - arrivals)[CUT:].mean()))
    half = float(t.ppf(0.9995, REPLICATIONS - 1)) * np.std(means, ddof=1) / REPLICATIONS**0.5
    return float(np.mean(means)), float(half)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_instance_without_batches_is_m_m_1(load):
    mean, half = mean_time(Replica((1.0,)), load, exponential=True, seed=1)
    assert half < NARROW * mean
    assert mean == pytest.approx(1 / (1 - load), abs=half)


def test_equal_times_are_m_d_1():
    """Pollaczek and Khinchine: half of M/M/1's wait."""
    mean, half = mean_time(Replica((1.0,)), 0.7, exponential=False, seed=2)
    assert half < NARROW * mean
    assert mean == pytest.approx(1 + 0.7 / (2 * 0.3), abs=half)


def test_several_instances_are_m_m_c():
    """Erlang's C formula: of three instances at 80%, 64.7% of the requests wait."""
    load, instances = 2.4, 3
    busy = load**3 / 6 * instances / (instances - load)
    waits = busy / (sum(load**k / math.factorial(k) for k in range(3)) + busy)
    assert waits == pytest.approx(0.6472, abs=1e-4)
    mean, half = mean_time(Replica((1.0,), instances=instances), load, exponential=True, seed=3)
    assert half < NARROW * mean
    assert mean == pytest.approx(1 + waits / (instances - load), abs=half)


def test_batches_are_a_bulk_service_queue():
    """M/M(1,K)/1: whoever waits is served together, up to K (Medhi 2003, section 4.4).

    With n waiting beside a busy server the probabilities are geometric in the root r of
    mu r^(K+1) - (lambda + mu) r + lambda = 0 between 0 and 1.
    """
    largest, rate = 8, 5.0
    root = brentq(lambda r: r ** (largest + 1) - (rate + 1) * r + rate, 1e-9, 1 - 1e-6)
    nobody_waits = 1 / (1 / (1 - root) + 1 / rate)
    waiting = nobody_waits * root / (1 - root) ** 2
    mean, half = mean_time(Replica((1.0,) * largest), rate, exponential=True, seed=4)
    assert half < NARROW * mean
    assert mean == pytest.approx(1 + waiting / rate, abs=half)


def test_a_full_queue_rejects_as_m_m_1_k():
    """Two may wait beside the one that is served: M/M/1/3 at load 1 loses 1 in 4."""
    generator = np.random.default_rng(5)
    arrivals = np.cumsum(generator.exponential(1.0, 60_000))
    run = simulate_arrivals(
        Replica((1.0,), queue_limit=2), arrivals, None, generator.standard_exponential(60_000)
    )
    assert run.rejected / 60_000 == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("queue_limit", [None, 3])
@pytest.mark.parametrize(
    ("instances", "delay_us", "largest_rows"), [(1, 0, 1), (1, 4000, 3), (2, 0, 3), (2, 6000, 4)]
)
def test_every_answer_comes_when_the_event_by_event_server_gives_it(
    instances, delay_us, largest_rows, queue_limit
):
    """Batcher, delay, requests with several rows, shared cores and full queues, one by one."""
    generator = np.random.default_rng(6)
    arrivals = np.cumsum(generator.exponential(0.002, 600))
    rows = generator.integers(1, largest_rows + 1, 600)
    table = tuple(0.003 + 0.001 * size for size in range(1, 9))
    serving = ServingConfig(8, delay_us, instances)

    def seconds(size, others_busy):
        return table[size - 1] * (1 + 0.4 * others_busy)

    # Sharing multiplies what the rows take alone in the made-up server: not beside each request.
    each_s = 0.0005 if instances == 1 else 0.0
    server = SimulatedServer(serving, seconds, queue_limit, each_request_s=each_s)
    expected = completions(server, arrivals.tolist(), rows.tolist())
    run = simulate_arrivals(
        Replica(
            table,
            instances,
            queue_delay_s=delay_us / 1e6,
            queue_limit=queue_limit,
            sharing=0.4,
            each_request_s=each_s,
        ),
        arrivals,
        rows,
        np.ones(600),
    )
    np.testing.assert_allclose(run.completed_s, expected, atol=1e-9)
    assert sorted(run.executed_rows) == sorted(size for size, _, _ in server.executions)


def test_a_batch_is_cut_at_a_preferred_size_unless_its_delay_is_over():
    seven = np.zeros(7)
    replica = Replica((1.0,) * 8, preferred_sizes=(2, 4))
    assert simulate_arrivals(replica, seven, None, np.ones(7)).executed_rows.tolist() == [4, 2, 1]
    late = Replica((1.0,) * 8, preferred_sizes=(2, 4), queue_delay_s=0.5)
    assert simulate_arrivals(late, seven, None, np.ones(7)).executed_rows.tolist() == [4, 3]


def test_requests_with_several_rows_are_never_split():
    run = simulate_arrivals(Replica((1.0,) * 4), np.zeros(3), np.array([3, 2, 2]), np.ones(3))
    assert run.executed_rows.tolist() == [3, 4]
    assert run.completed_s.tolist() == [1.0, 2.0, 2.0]
    assert run.joined.tolist() == [1, 2, 2]


def test_a_request_larger_than_the_largest_batch_is_refused():
    with pytest.raises(UsageError, match="5 rows exceeds the largest batch, 4"):
        simulate_arrivals(Replica((1.0,) * 4), np.zeros(1), np.array([5]), np.ones(1))


@pytest.mark.parametrize(("clients", "instances", "delay_us"), [(1, 1, 0), (6, 1, 0), (6, 2, 3000)])
def test_clients_see_what_the_event_by_event_server_shows_them(clients, instances, delay_us):
    """A closed loop: throughput times mean latency is the number of clients (Little's law)."""
    table = tuple(0.003 + 0.001 * size for size in range(1, 9))
    server = SimulatedServer(
        ServingConfig(8, delay_us, instances),
        lambda size, _: table[size - 1],
        each_request_s=0.0004,
    )
    trial = measure(server, seed=7, clients=clients, requests=3000)
    run = simulate_clients(
        Replica(table, instances, queue_delay_s=delay_us / 1e6, each_request_s=0.0004),
        clients,
        1,
        requests=3000,
        client_s=(2e-4, 0.0),
        noise=np.ones(3000),
    )
    assert 1e3 * run.latency_s.mean() == pytest.approx(trial.latency.mean_ms, rel=0.02)
    assert run.requests_per_s * run.latency_s.mean() == pytest.approx(clients, rel=0.02)
