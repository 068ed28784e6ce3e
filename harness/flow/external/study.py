"""A study on an external server: its models found there, checked, controlled, never exported.

The study says what is sent and what is asked for. Where the server takes orders (Triton in explicit
mode) models are reloaded for each serving configuration and put back at the end; where it does not,
or is not to be touched, each model's own configuration is the one that is measured.

The artefact's file is out of reach, so its digest is too. What stands in for it is `remote:` and a
digest of the address, of what the server says of the model and of what it answers to fixed rows
(`harness.flow.external.identity`). All of that is asked for again after scoring and before every
trial, so a score and a latency that share a row were taken of a model that answered alike; and the
known answers, asked for once, are compared with every trial's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.errors import ServerError, UsageError
from harness.flow.external.models import ExternalModels
from harness.flow.external.server import ExternalAddress, OpenServer, open_external
from harness.flow.external.tensors import TensorNames, names_of
from harness.flow.preflight import as_usage, describe_untold, those_ready
from harness.flow.spaces import serving_configs
from harness.serving.external.server import ExternalModel, ExternalServer, describe
from harness.study import Family, Study, variant_name, variant_names
from harness.tasks.registry import family_of
from harness.types import WireProtocol

_Part = TypeVar("_Part", Study, Family)


@dataclass(frozen=True)
class ExternalOptions:
    """What a person says of the server beside its address."""

    names: Mapping[str, str]
    """The model's name there by variant, where it is another."""
    as_is: bool
    """Load and configure nothing on the server, even where that is possible."""


@dataclass(frozen=True)
class ExternalStudy:
    """A study's models, found ready on the server."""

    opened: OpenServer
    study: Study
    """The study, with the address's protocol as its only one."""
    models: Mapping[str, ExternalModel]
    """The server's models, by variant."""
    control: ExternalModels | None
    names: Mapping[str, TensorNames]
    """The names of each variant's tensors on the server."""
    notes: tuple[str, ...]
    """Remarks that are made once: what the server lacks, and what is therefore not swept."""

    @property
    def url(self) -> str:
        """Address of the external server."""
        return self.opened.address.url

    def manifest(self) -> dict[str, Any]:
        """What the run's manifest says of the server."""
        facts = self.opened.facts
        return {
            "url": self.url,
            "name": facts.name,
            "version": facts.version,
            "model_control": self.control is not None,
            "models": {variant: model.name for variant, model in self.models.items()},
            "notes": list(self.notes),
        }


@contextmanager
def external_server_study(
    study: Study, address: ExternalAddress, options: ExternalOptions
) -> Iterator[ExternalStudy]:
    """Find a study's models on a server; whatever is changed there is put back.

    Raises:
        UsageError: no server, or one without the models.
        ServerError: a model could not be put back.
    """
    names = names_on_server(study, options.names)
    with open_external(address) as opened:
        loaded_here: set[str] = set()
        control: ExternalModels | None = None
        try:
            with as_usage():
                _make_ready(opened, names, loaded_here, may_load=not options.as_is)
                models = {one: _described(opened, name) for one, name in names.items()}
            control, refusal = (
                (None, "--as-is") if options.as_is else _control(opened.server, models, loaded_here)
            )
            tensor_names = dict(_tensor_names(study, models, address.url))
            kind = next(iter(models.values())).serving.instance_kind
            own = narrowed(study, opened.address.protocol, kind)
            notes = tuple(_notes(study, opened, models, refusal))
            yield ExternalStudy(opened, own, models, control, tensor_names, notes)
        except BaseException:
            with _quietly():
                _leave(opened.server, control, loaded_here)
            raise
        _leave(opened.server, control, loaded_here)


def names_on_server(study: Study, renamed: Mapping[str, str]) -> dict[str, str]:
    """The name on the server of every variant of the study.

    Raises:
        UsageError: a name is given for a variant that the study does not have.
    """
    variants = variant_names(study)
    unknown = sorted(renamed.keys() - set(variants))
    if unknown:
        raise UsageError(
            f"--model-name names '{unknown[0]}', which is not a variant of the study",
            next_step=f"its variants are: {', '.join(variants)}",
        )
    return {variant: renamed.get(variant, variant) for variant in variants}


def _make_ready(
    opened: OpenServer, names: Mapping[str, str], loaded_here: set[str], *, may_load: bool
) -> None:
    """Make sure that every model is loaded; load those that only lie in the repository.

    Raises:
        UsageError: with all that are not there.
    """
    server, url = opened.server, opened.address.url
    absent = [name for name in names.values() if not server.model_ready(name)]
    if not absent:
        return
    states = server.models()
    if states is None:  # nothing tells: their first requests will
        return
    missing = []
    for name in dict.fromkeys(absent):
        if not may_load or name not in states:
            missing.append(f"'{name}'" + (" (not loaded)" if name in states else ""))
            continue
        try:
            server.load(name)
            loaded_here.add(name)
        except ServerError as error:
            missing.append(f"'{name}' (not loaded: {error})")
    if missing:
        raise UsageError(
            f"the server at {url} does not have what the study names: {', '.join(missing)}",
            next_step=f"{those_ready(states)}; harness export STUDY makes them, "
            "--model-name VARIANT=NAME says what one is called there",
        )


def _tensor_names(
    study: Study, models: Mapping[str, ExternalModel], url: str
) -> Iterator[tuple[str, TensorNames]]:
    """How each variant's tensors are called there.

    Raises:
        UsageError: one of a task's outputs is not there.
    """
    for family in study.families:
        for model in family.models:
            for artefact in model.artefacts:
                name = variant_name(model, *artefact)
                yield name, names_of(model, models[name], family_of(family.task), url)


def _described(opened: OpenServer, name: str) -> ExternalModel:
    server, url = opened.server, opened.address.url
    if server.model_ready(name) or server.models() is not None:
        return describe(server, name)
    return describe_untold(server, url, name)


def _control(
    server: ExternalServer, models: Mapping[str, ExternalModel], loaded_here: set[str]
) -> tuple[ExternalModels | None, str]:
    """What loads models there, or why nothing does."""
    configs = {model.name: model.config for model in models.values() if model.config is not None}
    if len(configs) < len({model.name for model in models.values()}):
        return None, "it has none"
    control = ExternalModels(server, configs, frozenset(loaded_here))
    refusal = control.try_it(next(iter(configs)))
    return (None, refusal) if refusal else (control, "")


def _leave(server: ExternalServer, control: ExternalModels | None, loaded_here: set[str]) -> None:
    if control is not None:
        control.put_back()
    for name in loaded_here:
        with _quietly():
            server.unload(name)


@contextmanager
def _quietly() -> Iterator[None]:
    """For what is done after an error that says more."""
    try:
        yield
    except ServerError:
        return


def narrowed(study: Study, protocol: WireProtocol, instance_kind: str) -> Study:
    """The study with the protocol that the address speaks, and the server's kind of instance.

    Of a priced study that kind's price is kept.
    """
    protocols = {"protocols": [protocol]}
    kind = {"instance_kind": instance_kind}

    def own(part: _Part) -> _Part:
        changed: dict[str, Any] = {}
        if part.traffic is not None:
            changed["traffic"] = part.traffic.model_copy(update=protocols)
        if part.serving is not None:
            changed["serving"] = part.serving.model_copy(update=kind)
        return part.model_copy(update=changed)

    whole: dict[str, Any] = {"families": [own(family) for family in study.families]}
    if study.cost is not None:
        prices = study.cost.pricing.items()
        pricing = {one: price for one, price in prices if one == instance_kind}
        whole["cost"] = study.cost.model_copy(update={"pricing": pricing})
    return own(study).model_copy(update=whole)


def _notes(
    study: Study, opened: OpenServer, models: Mapping[str, ExternalModel], refusal: str
) -> Iterator[str]:
    url, protocol = opened.address.url, opened.address.protocol
    first = next(iter(models.values()))
    lacks = opened.lacking(first.name)
    yield f"{url} is {opened.facts.words}" + (
        f"; it does not offer: {', '.join(lacks)}: shown as missing" if lacks else ""
    )
    asked = {one for family in study.families for one in study.traffic_of(family).protocols}
    if asked != {protocol}:
        yield f"the address speaks {protocol}: of the study's protocols that one is driven"
    cached = sorted({one.name for one in models.values() if one.serving.response_cache})
    if cached:
        yield f"the response cache is on for {', '.join(cached)}: {_of_the_cache(study, refusal)}"
    if not refusal:
        yield (
            "its models are reloaded for each serving configuration, and put back at the end "
            "(--as-is leaves them as they are)"
        )
        return
    spaces = [serving_configs(study.serving_of(family)) for family in study.families]
    swept = max(map(len, spaces))
    yield (
        f"no model control ({refusal}): each model is measured under the one serving configuration "
        f"that the server has{_instead(swept)}"
    )


def _of_the_cache(study: Study, refusal: str) -> str:
    """What a model's own response cache means for what is measured."""
    if any(study.serving_of(family).response_cache for family in study.families):
        return "its answers count, as the study says"
    if not refusal:
        return "it is off while the model is measured (serving: {response_cache: true} counts it)"
    return (
        "answers that it gives were computed before, scores are of those, whether they depend on "
        "the batch is not asked, and a trial that it answers is invalid "
        "(serving: {response_cache: true} counts its answers)"
    )


def _instead(swept: int) -> str:
    return f", and the study's {swept} are not swept" if swept > 1 else ""


def parse_names(given: Sequence[str]) -> dict[str, str]:
    """Read `VARIANT=NAME` of each.

    Raises:
        UsageError: one that is not.
    """
    names = {}
    for one in given:
        variant, equals, name = one.partition("=")
        if not (variant and equals and name):
            raise UsageError(
                f"--model-name {one}: it is not VARIANT=NAME",
                next_step="write it like --model-name student-int8=classifier",
            )
        names[variant] = name
    return names
