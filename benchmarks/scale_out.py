"""Whether several workers record what one would have, and how many of them one master serves.

First the size: 1 to 500 workers join that send nothing and report as real ones do
(`simulated_workers.py`), and what the master does for them is measured: processor time of its two
processes, memory, bytes, and how old the newest complete slice is when the search looks at it.

Then the truth: one closed loop, its requests in flight spread over 1, 2 and 4 Locust processes, on
the cached model. The engine merges the workers' histograms while the load runs; each worker also
writes every request to a Parquet file. Afterwards the requests of all files go, one by one, into a
histogram of the library `hdrhistogram`: it has to equal the merged one, bucket by bucket, for all
three spans.

    python benchmarks/scale_out.py --json rows.json
    python benchmarks/scale_out.py --workers --simulated 100 200 400
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from cached_model import CACHED_MODEL, OUTPUTS, PAYLOADS_FILE, cached_server
from hdrh.histogram import HdrHistogram
from master_load import master_row
from ours import closed_loop, engine, run_ours
from rows import Row, run_as_command, show, write_rows

from harness import hdr
from harness.errors import StorageError
from harness.load.generators.pool import LoadJob
from harness.serving.embedded.environment import ensure_server_environment
from harness.serving.endpoint import Endpoint
from harness.types import SPANS, LoadResult, SparseHistogram

WARMUP_S = 0.5


def main() -> int:
    """Measure each number of workers and show the rows."""
    options = _parse(sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        sizes = [_size(Path(name), count, options) for count in options.simulated]
    if sizes:
        title = f"Simulated workers, {options.requests_per_s:.0f} requests/s each"
        show(title, sizes)
    truths = _truths(options) if options.workers else []
    if truths:
        show(f"Scale-out at {options.in_flight} in flight, {options.protocol}", truths)
    write_rows([*sizes, *truths], options.json)
    return 0 if all(row["merged_equals_union"] for row in truths) else 1


def _size(folder: Path, count: int, options: argparse.Namespace) -> Row:
    return master_row(
        count, folder, requests_per_s=options.requests_per_s, seconds=options.seconds,
        warmup_s=WARMUP_S,
    )  # fmt: skip


def _truths(options: argparse.Namespace) -> list[Row]:
    environment = ensure_server_environment(lambda step: print(step.note, file=sys.stderr))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cached_server(environment, folder) as server:
            return [_row(server.endpoint, folder, count, options) for count in options.workers]


def _row(endpoint: Endpoint, folder: Path, workers: int, options: argparse.Namespace) -> Row:
    records = folder / f"records-{workers}"
    workload = closed_loop(
        options.protocol, in_flight=options.in_flight, seconds=options.seconds, warmup_s=WARMUP_S
    )
    job = LoadJob(CACHED_MODEL, folder / PAYLOADS_FILE, OUTPUTS, workload, records=records)
    log_dir = folder / f"logs-{workers}"
    with engine(endpoint.http, endpoint.grpc, workers=workers, log_dir=log_dir) as generators:
        result = run_ours(generators, job)
    if result.records_problem:
        raise StorageError(result.records_problem)
    return {
        "workers": workers,
        "requests_per_s": result.completed / result.duration_s,
        "merged_equals_union": merged_equals_union(result, records),
        "requests": sum(hdr.total(one.ok.response) for one in result.slices),
        "latency_p99_ms": _p99_ms(result),
        "busiest_worker_cpu_cores": result.generator_cpu,
    }


def merged_equals_union(result: LoadResult, records: Path) -> bool:
    """Whether the slices' histograms are exactly those of the successes in the record files."""
    written = ds.dataset(records, format="parquet").to_table().to_pandas()
    written = written[written["status"] == "ok"]
    for span in filter(lambda one: one.is_between_moments, SPANS.values()):
        merged = hdr.merge(one.ok.of(span.name) for one in result.slices)
        values_ns = written[f"{span.end}_ns"] - written[f"{span.start}_ns"]
        if merged != _one_by_one(values_ns.to_numpy(np.int64)):
            return False
    return True


def _one_by_one(spans_ns: Sequence[int]) -> SparseHistogram:
    """The library's own histogram of microseconds, read back bucket by bucket."""
    histogram = HdrHistogram(hdr.LOWEST_US, hdr.HIGHEST_US, hdr.SIGNIFICANT_FIGURES)
    for span_ns in spans_ns:
        histogram.record_value((int(span_ns) + 500) // 1000)
    return hdr.decode(histogram.encode().decode("ascii"))


def _p99_ms(result: LoadResult) -> float:
    value = hdr.value_at(hdr.merge(one.ok.response for one in result.window), 0.99)
    return float("nan") if value is None else value


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--simulated", type=int, nargs="*", default=[1, 10, 50, 100, 200, 500])
    parser.add_argument(
        "--requests-per-s", type=float, default=200.0, help="of each simulated worker"
    )
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--protocol", choices=("http", "grpc"), default="http")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    parser.add_argument("--quick", action="store_true", help="1 s each")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds = 1.0
    return options


if __name__ == "__main__":
    run_as_command(main)
