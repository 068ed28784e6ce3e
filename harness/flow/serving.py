"""Where a study's models are served: the embedded Triton, or an external server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from harness.errors import ServerError
from harness.flow.options import RunSettings
from harness.flow.preparation import PreparedFamily
from harness.load.requests.payloads import Group
from harness.load.transports.address import Target, parse_target
from harness.quality.writing import Writer
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import Endpoint, TritonClient, is_live
from harness.serving.ensemble import Ensemble, load_ensemble, unload_ensemble
from harness.serving.models import override_for
from harness.serving.streams import TritonStreams
from harness.study import Study
from harness.telemetry.triton import scrape
from harness.types import Generation, ModelVariant, ServingConfig, WireProtocol
from harness.words.numbers import asked

RESPONSE_CACHE_BYTES = 2**28
"""Size of the embedded server's response cache: far more than a study's answers take."""


class Server(Protocol):
    """A running server, ours or anybody's."""

    @property
    def endpoint(self) -> Endpoint:
        """The addresses at which the server answers."""
        ...

    @property
    def pid(self) -> int | None:
        """Id of the server's process; None where it runs on another machine."""
        ...

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            ServerError: it does not.
        """
        ...


DEATH_TIMEOUT_S = 10.0
"""How long a server that answers nothing is waited for: to answer again, or to be seen dead."""
_POLL_S = 0.05


def check_after_failure(server: Server, *, timeout_s: float = DEATH_TIMEOUT_S) -> None:
    """Make sure that a server still runs and answers, after a request to it has failed.

    A killed server refuses requests a while before the end of its process can be seen, so `check`
    alone may be too early. An external server's process is unknown here: its `check` has to do.

    Raises:
        ServerError: it died, or it answers nothing for `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        server.check()
        if server.pid is None or is_live(server.endpoint):
            return
        if time.monotonic() > deadline:
            raise ServerError(
                f"Triton (process {server.pid}) still runs, but has answered nothing for "
                f"{asked(timeout_s)} s",
                next_step="look at the end of its log: logs/triton.log in the run folder",
            )
        time.sleep(_POLL_S)


class ModelClient(Protocol):
    """What a trial asks of a model's server beside the load itself.

    Both raise ServerError where there is no answer.
    """

    def statistics(self, model: str) -> dict[str, Any]:
        """Triton's cumulative statistics of a model."""
        ...

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Send one request and return its outputs."""
        ...


class ModelControl(Protocol):
    """Loads models as a trial asks. Both raise ServerError with the server's own message."""

    def load(self, variant: ModelVariant, serving: ServingConfig) -> None:
        """Load a variant, or reload it with another serving configuration."""
        ...

    def unload(self, variant: ModelVariant) -> None:
        """Unload a variant."""
        ...


class PayloadForm(Protocol):
    """Payloads as a model on an external server takes them."""

    @property
    def tag(self) -> str:
        """Tells the payload files of one data set apart."""
        ...

    def groups(self, groups: Sequence[Group]) -> list[Group]:
        """The groups under the model's own input names and datatypes."""
        ...


class OwnModels:
    """Control of models that the harness exported itself, on its own server."""

    def __init__(self, client: TritonClient, ensembles: Mapping[str, Ensemble]) -> None:
        """`ensembles` are the ensembles among them, by name."""
        self._client = client
        self._ensembles = ensembles

    def load(self, variant: ModelVariant, serving: ServingConfig) -> None:
        """Load a variant under a serving configuration, written from what it is."""
        if variant.ensemble_of:
            load_ensemble(self._client, self._ensembles[variant.name], serving)
        else:
            self._client.load(variant.name, override_for(variant, serving))

    def unload(self, variant: ModelVariant) -> None:
        """Unload a variant."""
        if variant.ensemble_of:
            unload_ensemble(self._client, self._ensembles[variant.name])
        else:
            self._client.unload(variant.name)


def _take_as_it_is(_: ModelVariant) -> None:
    """An artefact that was exported here, and lies where nobody else writes."""


@dataclass(frozen=True)
class Site:
    """Where models are scored and trials are measured."""

    server: Server
    client: ModelClient
    control: ModelControl | None
    """Control over the server's models; None where it is measured as it is."""
    targets: Mapping[WireProtocol, Target] = field(default_factory=dict)
    """By protocol, the address that load is sent to."""
    read_page: Callable[[str], str | None] = scrape
    """Reads the metrics page."""
    check_model: Callable[[ModelVariant], None] = _take_as_it_is
    """Makes sure that the server still has the model that a score was taken of (ServerError)."""
    streams: Writer | None = None
    """What writes: the way to models that answer in streams; None where there is none."""


@dataclass(frozen=True)
class Served:
    """A running server and the families whose artefacts it has."""

    families: tuple[PreparedFamily, ...]
    site: Site
    served_as: Mapping[str, ServingConfig] = field(default_factory=dict)
    """The one serving configuration of each variant, where nothing here may change it."""

    names: Mapping[str, PayloadForm] = field(default_factory=dict)
    """By variant, the names its payloads are sent under, where they differ from the encoded
    ones."""

    generations: Mapping[str, Generation] = field(default_factory=dict)
    """How each variant is asked for streams, where that is not as the embedded server is."""

    takes_several: bool = False
    """Whether variants may be loaded beside each other while nothing is timed: on the embedded
    server, which nobody else uses."""

    def load(self, variant: ModelVariant, serving: ServingConfig) -> None:
        """Load a variant; where the server is measured as it is, it is there already."""
        if self.site.control is not None:
            self.site.control.load(variant, serving)

    def unload(self, variant: ModelVariant) -> None:
        """Unload it again, where it was loaded."""
        if self.site.control is not None:
            self.site.control.unload(variant)

    def answers_from_cache(self, variant: ModelVariant) -> bool:
        """Whether the server's response cache may answer, where nothing here may switch it off."""
        serving = self.served_as.get(variant.name)
        return serving is not None and serving.response_cache

    def largest_batch(self, variant: ModelVariant) -> int | None:
        """The model's own maximum, where nothing here may change it; 0 where it tells none."""
        serving = self.served_as.get(variant.name)
        return None if serving is None else serving.max_batch_size


def uses_cache(study: Study) -> bool:
    """Whether a family of a study is served with the response cache."""
    return any(study.serving_of(family).response_cache for family in study.families)


@contextmanager
def serve(
    families: Sequence[PreparedFamily],
    environment: ServerEnvironment,
    settings: RunSettings,
    *,
    log_file: Path,
    ports: tuple[int, int, int] | None = None,
    response_cache: bool = False,
) -> Iterator[Served]:
    """Start Triton on the repository; no model is loaded yet.

    With `response_cache` it has one, for the models whose serving configuration uses it.

    Raises:
        ServerError: it does not start.
    """
    with (
        EmbeddedTriton(
            environment,
            settings.repository,
            log_file=log_file,
            cpus=settings.cpus_server,
            response_cache_bytes=RESPONSE_CACHE_BYTES if response_cache else 0,
            ports=ports or settings.ports,
        ) as server,
        TritonClient(server.endpoint) as client,
        TritonStreams(server.endpoint.grpc) as streams,
    ):
        targets = {
            WireProtocol.HTTP: parse_target(server.endpoint.http),
            WireProtocol.GRPC: parse_target(server.endpoint.grpc),
        }
        ensembles = [one.ensemble for family in families for one in family.ensembles]
        control = OwnModels(client, {one.variant.name: one for one in ensembles})
        site = Site(server, client, control, targets, streams=streams)
        yield Served(tuple(families), site, takes_several=True)
