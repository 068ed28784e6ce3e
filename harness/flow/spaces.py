"""The points that a study's sweep is made of."""

from __future__ import annotations

import dataclasses
import json

from harness.errors import UsageError
from harness.study import Family, ServingSpace, Study, Traffic
from harness.tasks.generation.rows import TextGeneration
from harness.types import Generation, LoadMode, ServingConfig, ShapeKind, StreamApi, Workload
from harness.types.generation import STREAM_INPUTS


def serving_configs(space: ServingSpace) -> tuple[ServingConfig, ...]:
    """Every combination of the space, the simplest first."""
    return tuple(
        ServingConfig(
            max_batch_size=max_batch,
            queue_delay_us=delay,
            instance_count=instances,
            instance_kind=space.instance_kind,
            intra_op_threads=threads,
            accelerator=accelerator,
            response_cache=space.response_cache,
        )
        for accelerator in space.accelerators
        for max_batch in space.max_batch_sizes
        for threads in space.intra_op_threads
        for instances in space.instance_counts
        for delay in space.queue_delays_us
    )


def streams_of(family: Family) -> Generation | None:
    """How a family's models are asked for streams; None where they answer in one."""
    task = family.task
    if not isinstance(task, TextGeneration):
        return None
    return Generation(
        StreamApi.TRITON,
        traffic=f"prompts of {family.name}, up to {task.max_new_tokens} tokens out",
        sampling=json.dumps({"stop": task.stop}) if task.stop else "",
        inputs=STREAM_INPUTS,
    )


def streamed(workload: Workload, family: Family) -> Workload:
    """A workload as a family is asked: for streams of its prompts where its models write.

    Raises:
        UsageError: it has rows or lengths that prompts have not.
    """
    generation = streams_of(family)
    if generation is None:
        return workload
    if workload.client_batch_size != 1 or workload.batch_mix or workload.length_mix:
        raise UsageError(
            f"family {family.name} writes text: a stream answers one prompt of the study",
            next_step="leave --client-batch-size, --batch-mix and --length-mix out",
        )
    return dataclasses.replace(workload, generation=generation)


def workloads(
    study: Study,
    traffic: Traffic,
    *,
    cached_answers: bool = False,
    generation: Generation | None = None,
) -> tuple[Workload, ...]:
    """Every combination of the traffic, batch and load ascending within a protocol.

    Args:
        study: has the seed.
        traffic: its own, or a family's.
        cached_answers: whether answers of the response cache count.
        generation: how streams are asked for; a stream answers one prompt, whatever the traffic's
            batch sizes.
    """
    return tuple(
        dataclasses.replace(
            load,
            protocol=protocol,
            client_batch_size=batch,
            batch_mix=traffic.batch_mix,
            length_mix=traffic.length_mix,
            cached_answers=cached_answers,
            generation=generation,
        )
        for protocol in traffic.protocols
        for batch in (traffic.batch_sizes if generation is None else (1,))
        for load in _loads(study, traffic)
    )


def _loads(study: Study, traffic: Traffic) -> list[Workload]:
    """The traffic's loads, lightest first, of one protocol and client batch size."""
    plain = Workload(
        protocol=traffic.protocols[0],
        client_batch_size=1,
        concurrency=traffic.max_in_flight,
        duration_s=traffic.duration_s,
        warmup_s=traffic.warmup_s,
        seed=study.seed,
        load_mode=traffic.load,
        min_duration_s=min(traffic.min_duration_s, traffic.duration_s),
    )
    if traffic.load is LoadMode.CLOSED:
        return [
            dataclasses.replace(plain, concurrency=in_flight)
            for in_flight in sorted(set(traffic.concurrencies))
        ]
    arrivals = traffic.arrival_process
    if arrivals.shape.kind is not ShapeKind.FLAT or traffic.is_trace:
        # What is still to come may differ from what was seen: nothing is decided early.
        plain = dataclasses.replace(plain, min_duration_s=None)
    rates: list[float | None] = [*sorted(set(traffic.rates_per_s))]
    return [
        dataclasses.replace(plain, rate_per_s=rate, arrivals=arrivals) for rate in rates or [None]
    ]
