"""Options of harness autoscale: the demand, the scaler, prices, a live run, manifests."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import MeasuredOn, OwnPrices, parse_share
from harness.cli.plan import parse_rows
from harness.errors import UsageError
from harness.planning.capacity.demand import parse_seconds
from harness.types import TraceUnit
from harness.types.autoscaling import (
    SCALE_DOWN,
    SCALE_UP,
    RateTrace,
    ScaledDeployment,
    ScalingLimits,
    ScalingTerms,
)
from harness.types.estimates import Demand
from harness.types.workloads import parse_arrivals
from harness.words.numbers import asked

if TYPE_CHECKING:
    from harness.flow.autoscaling import PriceQuestion

_AT_ONCE = "0s"
SHORTEST_LIVE_S = 30.0
_LIVE_SYNC_S, _LIVE_SCRAPE_S, _LIVE_REPLICAS = 5.0, 1.0, 3
"""Times of a live run: Kubernetes' own would need hours."""


@dataclass(frozen=True)
class TraceOptions:
    """Options that say how demand runs over time."""

    trace: Annotated[
        str | None,
        typer.Option(
            help="diurnal or flash-crowd (made up), a file (arrivals, rates, Azure's or "
            "Mooncake's traces), or prometheus, with --query.",
            show_default=False,
        ),
    ] = None
    demand: Annotated[
        str | None,
        typer.Option(
            help="Mean rate of requests, as 2000/s: of a made-up trace (default: the newest "
            "plan's; of flash-crowd it is the rate outside the crowd), or what a recorded one is "
            "scaled to (default: as recorded).",
            show_default=False,
        ),
    ] = None
    peak: Annotated[
        str | None,
        typer.Option(
            help="Peak over that rate of a made-up trace; default: the newest plan's, else 3x.",
            show_default=False,
        ),
    ] = None
    trace_unit: Annotated[
        TraceUnit | None,
        typer.Option(help="Unit of a trace's times, if its column name does not say."),
    ] = None
    batch: Annotated[
        str, typer.Option(help="Rows per request, or a mix by weight: 1:0.7,8:0.3.")
    ] = "1"
    arrivals: Annotated[
        str, typer.Option(help="Arrivals within a step: poisson, constant or gamma:CV.")
    ] = "poisson"

    def shaped(self) -> Demand:
        """How requests arrive, and their rows.

        Raises:
            UsageError: a mix or arrivals that are none.
        """
        return Demand(1.0, arrivals=parse_arrivals(self.arrivals), batch_mix=parse_rows(self.batch))


@dataclass(frozen=True)
class QueryOptions:
    """Where --trace prometheus comes from."""

    prometheus: Annotated[
        str | None,
        typer.Option(
            help="With --trace prometheus: the address of the Prometheus, http://HOST:9090.",
            show_default=False,
        ),
    ] = None
    prometheus_header: Annotated[
        list[str],
        typer.Option(
            help="With --trace prometheus: a header 'NAME: VALUE' for every query; may be "
            "repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    query: Annotated[
        str,
        typer.Option(
            help="With --trace prometheus: PromQL for requests per second, as "
            "sum(rate(http_requests_total[1m])).",
            show_default=False,
        ),
    ] = ""
    since: Annotated[
        str,
        typer.Option(help="With --trace prometheus: how far the trace reaches back from --until."),
    ] = "24h"
    until: Annotated[
        str,
        typer.Option(
            help="With --trace prometheus: ISO 8601 time at which the trace ends; default: now.",
            show_default=False,
        ),
    ] = ""
    step: Annotated[
        str, typer.Option(help="With --trace prometheus: time between two values of the query.")
    ] = "60s"

    def given(self) -> RateTrace:
        """The rates.

        Raises:
            UsageError: something is missing, or the Prometheus has no such data.
        """
        from harness.telemetry.prometheus.client import parse_prometheus
        from harness.telemetry.prometheus.demand import demand_of_query

        if not self.prometheus or not self.query:
            raise UsageError(
                "--trace prometheus needs --prometheus and --query",
                next_step="--prometheus http://HOST:9090 "
                "--query 'sum(rate(http_requests_total[1m]))'",
            )
        end_s = time.time()
        if self.until:
            try:
                moment = datetime.fromisoformat(self.until)
            except ValueError as error:
                raise UsageError(
                    f"--until {self.until} is no ISO 8601 time",
                    next_step="write it as 2026-07-01T00:00:00Z",
                ) from error
            end_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return demand_of_query(
            parse_prometheus(self.prometheus, self.prometheus_header),
            self.query,
            end_s=end_s,
            length_s=parse_seconds(self.since),
            step_s=parse_seconds(self.step),
        )


@dataclass(frozen=True)
class ScalerOptions:
    """The autoscaler, as Kubernetes' HPA has it."""

    start_time: Annotated[
        str | None,
        typer.Option(
            help="Time from ordering a replica until it carries its part; default: the model's "
            "cold start in the run.",
            show_default=False,
        ),
    ] = None
    min_replicas: Annotated[int, typer.Option(help="Fewest replicas.")] = 1
    max_replicas: Annotated[
        int | None,
        typer.Option(help="Most replicas; default: twice what the peak needs.", show_default=False),
    ] = None
    tolerance: Annotated[
        str, typer.Option(help="How close to its target a metric changes nothing.")
    ] = "10%"
    up_stabilization: Annotated[str, typer.Option(help="Stabilization window of scaling up.")] = (
        _AT_ONCE
    )
    down_stabilization: Annotated[
        str, typer.Option(help="Stabilization window of scaling down.")
    ] = "300s"
    sync: Annotated[
        str | None,
        typer.Option(
            help="Time between two scaling decisions; default: 15s, and 5s live.",
            show_default=False,
        ),
    ] = None

    def terms(self, *, live: bool) -> ScalingTerms:
        """The terms; `start_s` is 0 where it was not given, and `max_replicas` the fewest.

        A live run has shorter times: a scrape every second, and rates over three decisions.

        Raises:
            UsageError: a length of time or a share that is none.
        """
        usual = ScalingTerms(0.0)
        sync_s = _LIVE_SYNC_S if live else usual.sync_s
        if self.sync is not None:
            sync_s = parse_seconds(self.sync)
        most = self.max_replicas
        if most is None:
            most = max(_LIVE_REPLICAS, self.min_replicas) if live else self.min_replicas
        return ScalingTerms(
            start_s=0.0 if self.start_time is None else _seconds(self.start_time),
            sync_s=sync_s,
            window_s=3 * sync_s if live else usual.window_s,
            scrape_s=_LIVE_SCRAPE_S if live else usual.scrape_s,
            limits=ScalingLimits(
                min_replicas=self.min_replicas,
                max_replicas=most,
                tolerance=parse_share(self.tolerance, "--tolerance", none_too=True, usual="10%"),
                up=replace(SCALE_UP, stabilization_s=round(_seconds(self.up_stabilization))),
                down=replace(SCALE_DOWN, stabilization_s=round(_seconds(self.down_stabilization))),
            ),
        )


@dataclass(frozen=True)
class ReplicaPrice:
    """What a replica costs; without any, hours alone are told."""

    instance: Annotated[
        str,
        typer.Option(
            help="Instance type that each replica runs on; prices the plan.", show_default=False
        ),
    ] = ""
    measured_on: MeasuredOn = ""
    prices: OwnPrices = None
    usd_per_hour: Annotated[
        float | None,
        typer.Option(help="USD per hour of a replica, in place of --instance.", show_default=False),
    ] = None

    def question(self) -> PriceQuestion | None:
        """What is priced, and by which prices; None without an instance type.

        Raises:
            UsageError: an unknown type, or a price that is none.
        """
        from harness.flow.autoscaling import PriceQuestion
        from harness.planning.cost.catalogue import read_catalogue

        if self.usd_per_hour is not None and not self.usd_per_hour > 0:
            raise UsageError(
                f"a replica for {asked(self.usd_per_hour)} USD per hour: a price is above 0",
                next_step="leave --usd-per-hour out to see hours alone",
            )
        if not self.instance:
            return None
        if self.usd_per_hour is not None:
            raise UsageError(
                "--instance and --usd-per-hour are two prices", next_step="give one of them"
            )
        catalogue = read_catalogue(self.prices, today=datetime.now(UTC).date())
        for name in filter(None, (self.instance, self.measured_on)):
            catalogue.named(name)
        return PriceQuestion(catalogue, self.instance, self.measured_on)


@dataclass(frozen=True)
class LiveOptions:
    """The chosen policy on real replicas."""

    live: Annotated[
        str | None,
        typer.Option(
            help="Also run the policy on embedded replicas on this machine, with the trace "
            "squeezed into this time, as 3min. Decisions then come every 5 s.",
            show_default=False,
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest live run that was interrupted.")
    ] = False
    own_machines: Annotated[
        bool,
        typer.Option(
            "--own-machines",
            help="Simulate each replica of a live run as if it had a machine of its own, instead "
            "of measuring before what one and two of them carry here.",
        ),
    ] = False

    @property
    def length_s(self) -> float | None:
        """How long it lasts; None where nothing is started.

        Raises:
            UsageError: no length of time, or too short for the scaler to do anything.
        """
        if self.live is None:
            return None
        length_s = parse_seconds(self.live)
        if length_s < SHORTEST_LIVE_S:
            raise UsageError(
                f"--live {self.live} is too short for a scaler to do anything",
                next_step=f"give it {asked(SHORTEST_LIVE_S)} s or more: --live 3min",
            )
        return length_s


@dataclass(frozen=True)
class ManifestOptions:
    """What the chosen policy's manifests are for."""

    deployment: Annotated[str, typer.Option(help="The Deployment that is scaled.")] = "triton"
    namespace: Annotated[
        str, typer.Option(help="Namespace of the Deployment; default: none is written.")
    ] = ""
    metrics_match: Annotated[
        str,
        typer.Option(
            help="Further label matchers of the Deployment's series, as in 'namespace=\"ml\"'."
        ),
    ] = ""
    cluster_prometheus: Annotated[str, typer.Option(help="The Prometheus that KEDA asks.")] = (
        ScaledDeployment.prometheus
    )

    def scaled(self) -> ScaledDeployment:
        """The deployment; its model is filled in later."""
        return ScaledDeployment(
            "", self.deployment, self.namespace, self.metrics_match, self.cluster_prometheus
        )


def _seconds(text: str) -> float:
    """A length of time that may be 0."""
    return 0.0 if text.strip() in {"0", "0s"} else parse_seconds(text)
