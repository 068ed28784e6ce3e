"""Options of the traffic that `harness load` sends, and the one workload that they say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import typer

from harness.errors import UsageError
from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    Generation,
    LoadMode,
    ShapeKind,
    TraceUnit,
    WireProtocol,
    Workload,
)
from harness.types.workloads import parse_arrivals, parse_mix, parse_shape

DEFAULT_CONCURRENCY = 4
DEFAULT_IN_FLIGHT = 512
FIRST_LOOK_S = 0.5
"""Window before which nothing is decided."""


@dataclass(frozen=True)
class TrafficOptions:
    """Options of the traffic, as given on the command line; None was not given."""

    concurrency: Annotated[
        int | None, typer.Option(help="Closed loop: requests in flight; default: 4.")
    ] = None
    rate: Annotated[
        float | None, typer.Option(help="Open loop: requests per second.", show_default=False)
    ] = None
    arrivals: Annotated[
        str | None,
        typer.Option(
            help="Open loop: arrivals, poisson (default), constant, gamma:CV or trace:FILE."
        ),
    ] = None
    trace_unit: Annotated[
        TraceUnit | None,
        typer.Option(help="Unit of a trace's numbers, if its column name does not say."),
    ] = None
    shape: Annotated[
        str | None,
        typer.Option(
            help="Open loop: rate over time, ramp, step, spike or sine, as in ramp:0.2..1/60s."
        ),
    ] = None
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            help="Open loop: requests beyond this many in flight are dropped; default: 512."
        ),
    ] = None
    client_batch_size: Annotated[
        int | None, typer.Option(help="Samples per request; default: 1.")
    ] = None
    batch_mix: Annotated[
        str | None,
        typer.Option(help="Client batch sizes by weight: 1:0.7,8:0.3.", show_default=False),
    ] = None
    length_mix: Annotated[
        str | None,
        typer.Option(help="Padded lengths by weight: 16:1,32:2; default: the data's own."),
    ] = None
    duration_s: Annotated[float, typer.Option("--duration", help="Seconds to measure.")] = 10.0
    warmup_s: Annotated[
        float, typer.Option("--warmup", help="Longest warm-up, in seconds; it is not counted.")
    ] = 2.0
    until_decided: Annotated[
        bool,
        typer.Option("--until-decided", help="Stop as soon as the objective is decided."),
    ] = False
    response_cache: Annotated[
        bool,
        typer.Option(
            "--response-cache",
            help="Turn on Triton's response cache and count its answers.",
        ),
    ] = False
    seed: Annotated[
        int | None, typer.Option(help="Seed of requests and arrivals; default: the study's, or 0.")
    ] = None

    def workload(
        self, protocol: WireProtocol, default_seed: int, generation: Generation | None = None
    ) -> Workload:
        """The one workload that they say.

        Args:
            protocol: what is spoken.
            default_seed: the study's.
            generation: what a model that generates is asked for.

        Raises:
            UsageError: options that contradict each other, or that nothing can be measured with.
        """
        from harness.load.schedule.arrivals import check_workload

        is_open = any(one is not None for one in (self.rate, self.arrivals, self.shape))
        batch_mix = parse_mix(self.batch_mix) if self.batch_mix is not None else ()
        if batch_mix and self.client_batch_size is not None:
            raise _contradiction("--client-batch-size", "--batch-mix")
        workload = Workload(
            protocol=protocol,
            client_batch_size=max((size for size, _ in batch_mix), default=self._batch_size()),
            concurrency=self._in_flight(is_open=is_open),
            duration_s=self.duration_s,
            warmup_s=self.warmup_s,
            seed=default_seed if self.seed is None else self.seed,
            load_mode=LoadMode.OPEN if is_open else LoadMode.CLOSED,
            rate_per_s=self.rate,
            arrivals=self._arrivals(),
            min_duration_s=min(FIRST_LOOK_S, self.duration_s) if self.until_decided else None,
            batch_mix=batch_mix,
            length_mix=parse_mix(self.length_mix) if self.length_mix is not None else (),
            cached_answers=self.response_cache,
            generation=generation,
        )
        if generation is not None:
            self._check_streams()
        check_workload(workload)
        self._check_early_end(workload.arrivals)
        return workload

    def _check_streams(self) -> None:
        """Refuse what is of tensors where prompts are sent."""
        told = {
            "--client-batch-size": self.client_batch_size,
            "--batch-mix": self.batch_mix,
            "--length-mix": self.length_mix,
            "--response-cache": self.response_cache or None,
        }
        for flag in (flag for flag, value in told.items() if value is not None):
            raise UsageError(
                f"{flag} does not apply to --generate: a request is one prompt",
                next_step="leave it out; --prompt-tokens and --output-tokens say the lengths",
            )

    def _batch_size(self) -> int:
        return 1 if self.client_batch_size is None else self.client_batch_size

    def _in_flight(self, *, is_open: bool) -> int:
        if is_open and self.concurrency is not None:
            raise _contradiction("--concurrency", "an open loop (--rate, --arrivals, --shape)")
        if not is_open and self.max_in_flight is not None:
            raise UsageError(
                "--max-in-flight applies only to an open loop",
                next_step="name a --rate, or use --concurrency",
            )
        given = self.max_in_flight if is_open else self.concurrency
        return given if given is not None else DEFAULT_IN_FLIGHT if is_open else DEFAULT_CONCURRENCY

    def _arrivals(self) -> ArrivalProcess:
        arrivals = parse_arrivals(self.arrivals or str(ArrivalKind.POISSON), self.trace_unit)
        return dataclasses.replace(arrivals, shape=parse_shape(self.shape or str(ShapeKind.FLAT)))

    def _check_early_end(self, arrivals: ArrivalProcess) -> None:
        changes = arrivals.kind is ArrivalKind.TRACE or arrivals.shape.kind is not ShapeKind.FLAT
        if self.until_decided and changes:
            raise UsageError(
                "--until-decided with a load that changes: what is still to come may differ from "
                "what was seen",
                next_step="leave --until-decided out: the whole of it is measured then",
            )


def _contradiction(one: str, other: str) -> UsageError:
    return UsageError(f"{one} and {other} contradict each other", next_step="leave one of them out")
