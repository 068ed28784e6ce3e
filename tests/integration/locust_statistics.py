"""Counts the same requests in Locust one by one, in batches, and in batches on two workers.

Run as a script, because importing Locust patches the interpreter. Reads batches as JSON on standard
input, `[{"latencies_ns": [...], "failures": [[latency_ns, kind], ...], "dropped": n}, ...]`, and
prints what Locust then says under `single`, `batched` and `distributed`.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from types import SimpleNamespace
from typing import Any

import locust.stats
import msgpack
import numpy as np
from locust.env import Environment
from locust.runners import LocalRunner
from locust.stats import PERCENTILES_TO_REPORT, StatsCSV, setup_distributed_stats_event_listeners

from harness.load.engine.batches import FailedRequest, RecordedBatch
from harness.load.transports.contract import RequestFailure
from harness_locust.locust_counts import DROPPED, LocustCounts

METHOD, NAME = "HTTP", "model"
BATCH_S = 0.3
ROWS, BYTES_PER_ROW = 2, 40.0
clock = SimpleNamespace(now_s=1_700_000_000.0)


def batch_of(described: dict[str, Any]) -> RecordedBatch:
    latencies_ns = np.array(described["latencies_ns"], dtype=np.int64)
    scheduled_ns = np.full(len(latencies_ns), 5, dtype=np.int64)
    failures = [
        FailedRequest(5, 5, 5 + latency_ns, RequestFailure(kind, f"words of {kind}"))
        for latency_ns, kind in described["failures"]
    ]
    return RecordedBatch(
        scheduled_ns=scheduled_ns,
        sent_ns=scheduled_ns,
        completed_ns=scheduled_ns + latencies_ns,
        rows=np.full(len(latencies_ns), ROWS, dtype=np.int64),
        failures=tuple(failures),
        dropped_ns=np.full(described["dropped"], 5, dtype=np.int64),
    )


class Singly:
    """What a locustfile does that knows no batches."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def add(self, batch: RecordedBatch) -> None:
        for latency_ns in (batch.completed_ns - batch.scheduled_ns).tolist():
            self._fire(latency_ns, int(ROWS * BYTES_PER_ROW), None)
        for one in batch.failures:
            self._fire(one.completed_ns - one.scheduled_ns, 0, one.failure)
        for _ in batch.dropped_ns:
            self._environment.stats.log_error(METHOD, NAME, DROPPED)

    def _fire(self, latency_ns: int, length: int, failure: RequestFailure | None) -> None:
        self._environment.events.request.fire(
            request_type=METHOD,
            name=NAME,
            response_time=latency_ns / 1e6,
            response_length=length,
            exception=failure,
            context={},
        )


def counting(environment: Environment) -> LocustCounts:
    return LocustCounts(environment, METHOD, NAME, bytes_per_row=BYTES_PER_ROW)


def said_by(environment: Environment) -> dict[str, Any]:
    """All that Locust shows: entries, percentiles now and overall, failures, the CSV files."""
    stats = environment.stats
    entries = [*stats.entries.values(), stats.total]
    table = io.StringIO()
    StatsCSV(environment, PERCENTILES_TO_REPORT).requests_csv(csv.writer(table))
    return {
        "entries": [entry.serialize() for entry in entries],
        "percentiles": [
            [entry.get_response_time_percentile(share) for share in PERCENTILES_TO_REPORT]
            for entry in entries
        ],
        "now": stats.total.get_current_response_time_percentile(0.95),
        "rates": [[one.current_rps, one.current_fail_per_sec] for one in entries],
        "errors": {one.to_name(): one.occurrences for one in stats.errors.values()},
        "csv": list(csv.DictReader(io.StringIO(table.getvalue()))),
    }


def on_one(batches: list[RecordedBatch], counter: type[Singly] | Any) -> dict[str, Any]:
    clock.now_s = 1_700_000_000.0
    environment = Environment()
    runner = environment.create_local_runner()
    told: list[Exception] = []
    environment.events.request.add_listener(
        lambda exception, **_: told.append(exception) if exception else None
    )
    add = counter(environment).add
    for batch in batches:
        clock.now_s += BATCH_S
        add(batch)
    said = said_by(environment) | {"told": len(told)}
    runner.quit()
    return said


def on_two_workers(batches: list[RecordedBatch]) -> dict[str, Any]:
    """The workers report every second batch, over the wire format of Locust's own."""
    clock.now_s = 1_700_000_000.0
    master = Environment()
    setup_distributed_stats_event_listeners(master.events, master.stats)
    workers = [Environment() for _ in range(2)]
    for worker in workers:
        LocalRunner(worker)  # counts what is fired, as a worker's runner does
        worker.stats.use_response_times_cache = False
        setup_distributed_stats_event_listeners(worker.events, worker.stats)
    counters = [counting(worker) for worker in workers]
    for place, batch in enumerate(batches):
        clock.now_s += BATCH_S
        counters[place % 2].add(batch)
        if place % 4 == 0 or place >= len(batches) - 2:
            report(workers[place % 2], master)
    report(workers[0], master)
    report(workers[1], master)
    return said_by(master)


def report(worker: Environment, master: Environment) -> None:
    data: dict[str, Any] = {}
    worker.events.report_to_master.fire(client_id="worker", data=data)
    data = msgpack.loads(msgpack.dumps(data), strict_map_key=False)
    master.events.worker_report.fire(client_id="worker", data=data)


def main() -> None:
    locust.stats.time = clock
    clock.time = lambda: clock.now_s
    batches = [batch_of(one) for one in json.load(sys.stdin)]
    said = {
        "single": on_one(batches, Singly),
        "batched": on_one(batches, counting),
        "distributed": on_two_workers(batches),
    }
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
