"""A study of models that write, on a server that is up: OpenAI's API, or Triton's streams.

Nothing is loaded or configured there: each model is measured as its server has it. Texts are
asked and loads are driven over the same interface. Over OpenAI's API prompts go as texts
(completions) or, with the task's `chat_template`, as messages to which the *server* applies its
template (chat). On Triton a model that takes tokens and tells tokens, as those of the harness do,
is scored by them, with the likelihoods of references; any other of vLLM's tensors by text. A chat
goes there in the tokens of the model's own template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.errors import UsageError
from harness.flow.external.generation import check_model, of_triton
from harness.flow.external.server import ExternalAddress, connect_external, open_external
from harness.flow.external.study import ExternalOptions, names_on_server, narrowed
from harness.flow.external.texts import greedy
from harness.flow.external.written_identity import TellOf
from harness.flow.preflight import as_usage, find_model
from harness.flow.serving import Site
from harness.serving.external.openai import OpenAiServer
from harness.serving.external.server import NO_KSERVE, ExternalModel, ExternalServer, describe
from harness.study import Family, Study, variant_name
from harness.study.clauses import quality_clauses
from harness.tasks.generation.rows import TextGeneration
from harness.types import (
    Generation,
    ServingConfig,
    StreamApi,
    WireProtocol,
)
from harness.types.generation import INPUT_IDS, TOKEN_IDS

_OF_LIKELIHOOD = frozenset({"perplexity", "bits_per_byte"})
"""Metrics that need the probabilities of a reference's tokens."""


@dataclass(frozen=True)
class ExternalWriting:
    """A study's models that write, found on a server."""

    address: ExternalAddress
    study: Study
    """The study, with the address's protocol as its only one."""
    models: Mapping[str, ExternalModel]
    """The server's models, by variant."""
    generations: Mapping[str, Generation]
    """How each variant is asked for streams."""
    site: Site
    """Where the study is measured, still without what writes: that needs the study's prompts."""
    tell_of: TellOf
    notes: tuple[str, ...]
    """What is said once of the server."""
    closing: ExitStack
    """Closes what is opened later on."""

    @property
    def url(self) -> str:
        """Address of the external server."""
        return self.address.url

    @property
    def by_tokens(self) -> bool:
        """Whether models are scored by tokens: each takes them, tells them, and is on gRPC."""
        return self.address.protocol is WireProtocol.GRPC and all(
            INPUT_IDS in {spec.name for spec in one.inputs}
            and TOKEN_IDS in {spec.name for spec in one.outputs}
            for one in self.models.values()
        )

    def check_tasks(self) -> None:
        """Refuse lm-eval's tasks, which put prompts and likelihoods in tokens.

        Raises:
            UsageError: models are asked by texts here.
        """
        if not self.by_tokens:
            raise UsageError(
                f"lm-eval's tasks are asked by tokens, and the server at {self.url} takes texts",
                next_step="leave --tasks out, or let lm-eval's own local-chat-completions or "
                "local-completions ask the server",
            )

    def manifest(self) -> dict[str, Any]:
        """What the run's manifest says of the server."""
        return {
            "url": self.url,
            "interfaces": sorted({str(one.api) for one in self.generations.values()}),
            "model_control": False,
            "models": {variant: model.name for variant, model in self.models.items()},
            "notes": list(self.notes),
        }


@contextmanager
def external_writing(
    study: Study, address: ExternalAddress, options: ExternalOptions, api: StreamApi | None = None
) -> Iterator[ExternalWriting]:
    """Find a study's models that write on a server.

    Args:
        study: its inputs are checked.
        address: the server.
        options: the models' names there.
        api: by which interface; None finds out whether it is Triton's.

    Raises:
        UsageError: no server, one without the models or the interface, or a study whose objective
            asks for what such a server does not tell.
    """
    _check_families(study)
    names = names_on_server(study, options.names)
    on_triton = api is StreamApi.TRITON or (api is None and _speaks_kserve(address))
    _check_interface(study, address, api, on_triton=on_triton)
    with ExitStack() as closing:
        if on_triton:
            opened = closing.enter_context(open_external(address))
            models = {
                variant: find_model(opened.server, address.url, name)
                for variant, name in names.items()
            }
            site, words = opened.site(), f"{opened.facts.words}: Triton's streams are asked"
            tell_of: TellOf = partial(_identity_of, opened.server)
        else:
            server = OpenAiServer(address.target)
            for name in dict.fromkeys(names.values()):
                check_model(server, address, name)
            models = {variant: _untold(name) for variant, name in names.items()}
            site = Site(server, server, None, {address.protocol: address.target})
            words, tell_of = "asked by OpenAI's API", server.told_of
        generations = dict(_generations(study, models, on_triton=on_triton))
        found = ExternalWriting(
            address,
            narrowed(study, address.protocol, next(iter(models.values())).serving.instance_kind),
            models,
            generations,
            site,
            tell_of,
            tuple(_notes(study, address, words)),
            closing,
        )
        _check_objectives(found)
        yield found


def _identity_of(server: ExternalServer, model: str) -> str:
    return describe(server, model).identity


def _check_families(study: Study) -> None:
    others = [one.name for one in study.families if not isinstance(one.task, TextGeneration)]
    if others:
        raise UsageError(
            f"family {', '.join(others)} answers a request at once, and others of the study write: "
            "with --url they are measured one kind at a time",
            next_step="put the families into studies of their own",
        )


def _speaks_kserve(address: ExternalAddress) -> bool:
    """Whether a server speaks KServe v2, and so may be Triton."""
    if address.protocol is WireProtocol.GRPC:
        return True
    server = connect_external(address)
    try:
        with as_usage(next_step="check its address, and that it is up"):
            return NO_KSERVE not in server.not_live()
    finally:
        server.close()


def _check_interface(
    study: Study, address: ExternalAddress, api: StreamApi | None, *, on_triton: bool
) -> None:
    """Hold the interface against the tasks: who applies a chat template is no matter of choice."""
    if not on_triton and address.protocol is WireProtocol.GRPC:
        raise UsageError(
            f"--generate {api} is spoken over HTTP, and the address is gRPC's",
            next_step="name http://HOST:PORT, or use --generate triton",
        )
    for family in study.families:
        task = _task_of(family)
        wanted = StreamApi.CHAT if task.chat_template else StreamApi.COMPLETIONS
        if not on_triton and api not in {None, wanted}:
            raise UsageError(
                f"family {family.name}: --generate {api} contradicts its task, whose chat_template "
                f"is {str(task.chat_template).lower()}",
                next_step="chat takes messages (chat_template: true), completions takes texts",
            )


def _task_of(family: Family) -> TextGeneration:
    assert isinstance(family.task, TextGeneration)  # noqa: S101  (`_check_families` has looked)
    return family.task


def _untold(name: str) -> ExternalModel:
    """A model of which its server says no more than that it is there."""
    return ExternalModel(name, (), (), ServingConfig(0, 0, 0, "cpu", 0), identity=name)


def _generations(
    study: Study, models: Mapping[str, ExternalModel], *, on_triton: bool
) -> Iterator[tuple[str, Generation]]:
    """How each variant is asked for streams: greedily, whatever its server's default is."""
    for family in study.families:
        task = _task_of(family)
        chosen = StreamApi.CHAT if task.chat_template else StreamApi.COMPLETIONS
        asked = Generation(
            StreamApi.TRITON if on_triton else chosen,
            traffic=f"prompts of {family.name}, up to {task.max_new_tokens} tokens out",
            sampling=greedy(task.stop),
        )
        of_family = {
            name: of_triton(asked, models[name]) if on_triton else asked
            for model in family.models
            for name in (variant_name(model, *artefact) for artefact in model.artefacts)
        }
        if on_triton and task.chat_template:
            _check_takes_tokens(family, {name: models[name] for name in of_family})
        if len(set(of_family.values())) > 1:
            raise UsageError(
                f"family {family.name}: its models on the server take different inputs, and would "
                "not be asked alike",
                next_step="serve them with the same tensors (those of Triton's vLLM backend)",
            )
        yield from of_family.items()


def _check_takes_tokens(family: Family, models: Mapping[str, ExternalModel]) -> None:
    """Refuse chats for models that take texts alone: what is sent is a chat in its template."""
    for model in models.values():
        if INPUT_IDS not in {spec.name for spec in model.inputs}:
            raise UsageError(
                f"family {family.name}: its prompts go into a chat template, and {model.name} on "
                f"the server takes texts alone, no {INPUT_IDS}",
                next_step="name an address that speaks OpenAI's API (--generate chat), or leave "
                "chat_template out of the task",
            )


def _notes(study: Study, address: ExternalAddress, words: str) -> Iterator[str]:
    yield f"{address.url} is {words}; each model is measured as it is served there"
    asked = {one for family in study.families for one in study.traffic_of(family).protocols}
    if asked != {address.protocol}:
        yield f"the address speaks {address.protocol}: of the study's protocols that one is driven"


def _check_objectives(found: ExternalWriting) -> None:
    """Refuse to measure for hours what cannot be decided.

    Raises:
        UsageError: an objective asks for the likelihood of references, and nothing tells it.
    """
    if found.by_tokens:
        return
    for family in found.study.families:
        for clause in quality_clauses(found.study.objective_of(family)):
            if clause.metric in _OF_LIKELIHOOD:
                raise UsageError(
                    f"family {family.name}: the objective asks for {clause.metric}, and the server "
                    f"at {found.url} tells texts alone, not how probable a reference is",
                    next_step="ask for rouge_l, chrf or agreement (--slo), or measure a model of "
                    "the harness on Triton over grpc://",
                )
