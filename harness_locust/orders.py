"""What a plan of the page or Locust's command has one process do, in the orders of every load."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.load.engine.closed_loop import FOREVER_NS
from harness.load.generators.messages import Measure, Prepare
from harness.load.generators.pool import split_concurrency
from harness.load.requests.generation import write_requests
from harness.load.requests.payloads import read_payloads
from harness.study.clauses import request_bounds
from harness_locust.plan import Plan
from harness_locust.preflight import ask_about, ask_for_streams, expected_outputs
from harness_locust.results import REPORT_EVERY_S, SLICE_S

USERS_APART = 100_000
"""More users than a process has: each process's users begin at places of their own."""
_NS = 1_000_000_000


@dataclass(frozen=True)
class ProcessRole:
    """Which part of which test a process has."""

    test: str
    worker: int = 0
    workers: int = 1
    late: bool = False
    """Whether it joins a running test, and so has no part in an open loop."""


def prepare_order(plan: Plan, role: ProcessRole, folder: Path) -> Prepare:
    """What a process prepares for a plan.

    Args:
        plan: the test.
        role: the process's part of it.
        folder: for the files that must be made for it.

    Raises:
        UsageError: the payloads cannot be read here, or the server does not answer from here.
        DataError: the prompts cannot be read here.
        StorageError: a file cannot be written.
    """
    order = Prepare(
        target=plan.target,
        grpc=plan.grpc,
        model=plan.model,
        payloads=plan.payloads,
        known_answers=plan.known_answers,
        outputs=(),
        workload=plan.workload,
        share=0,
        first_user=0,
        worker=0,
        workers=1,
        request_timeout_s=plan.request_timeout_s,
        bounds=request_bounds(plan.slo),
        load=role.test,
        users_by_locust=True,
    )
    order = with_role(order, plan, role)
    if plan.workload.generation is not None:
        workload = replace(plan.workload, generation=ask_for_streams(plan))
        prompts = folder / "prompts.jsonl"
        write_requests(prompts, plan.prompts())
        return replace(order, workload=workload, payloads=prompts)
    asked = ask_about(plan, read_payloads(plan.payloads))
    outputs = expected_outputs(asked.model, plan)
    return replace(order, target=asked.target, inputs=asked.model.inputs, outputs=outputs)


def with_role(order: Prepare, plan: Plan, role: ProcessRole) -> Prepare:
    """An order for another process's part of the same test."""
    shares = split_concurrency(plan.workload.concurrency, role.workers)
    return replace(
        order,
        share=0 if role.late else shares[role.worker],
        first_user=role.worker * USERS_APART,
        worker=role.worker,
        workers=role.workers,
        records=plan.records and plan.records / f"{role.test}-worker-{role.worker}.parquet",
    )


def measure_order(plan: Plan, start_ns: int) -> Measure:
    """When a process runs its part.

    Args:
        plan: the test.
        start_ns: the test's start on that process's CLOCK_MONOTONIC.
    """
    return Measure(
        start_ns=start_ns,
        slice_ns=int(SLICE_S * _NS),
        end_ns=FOREVER_NS if plan.end_s is None else start_ns + int(plan.end_s * _NS),
        report_every_s=REPORT_EVERY_S,
        lead_ns=int(plan.lead_s * _NS),
    )
