"""The study itself: families of models, their task and objective, and what contradicts itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import AliasChoices, Field, model_validator

from harness.errors import StudyError
from harness.metrics import quality_metrics
from harness.study.clauses import (
    NAME_A_LATENCY,
    NAME_A_MACHINE,
    NAME_A_RESPONSE,
    UNCOUNTED,
    UNPRICED,
    UNSTREAMED,
    cost_clause,
    lacks_clauses_of_goodput,
    quality_clauses,
    stream_clauses,
)
from harness.study.cost import CostBasis
from harness.study.model import Model, variant_name, variants_of
from harness.study.objective import EXAMPLE, Objective, describe_objective, parse_objective
from harness.study.speculation import Speculation
from harness.study.sweep import ServingSpace, Traffic
from harness.study.weights import Weights
from harness.system.strict import Name, Strict
from harness.tasks.registry import FAMILIES, family_of
from harness.tasks.section import TaskSection
from harness.types import ModelFormat, Precision, Role, ServiceLevelObjective

if TYPE_CHECKING:
    Task = TaskSection
else:
    Task = Annotated[
        Union[tuple(one.section for one in FAMILIES)],  # noqa: UP007  (made at run time)
        Field(discriminator="kind"),
    ]


ENSEMBLE_SUFFIX = "-ensemble"
"""Of the ensemble that serves a variant with its pre- and post-processing."""
SPECULATIVE_SUFFIX = "-speculative"
"""Of the model that serves a teacher with a draft."""


class Family(Strict):
    """A teacher, its students, and the task they are judged on."""

    name: Name
    task: Task
    models: Annotated[list[Model], Field(min_length=1)]
    objective: Objective | None = Field(
        None, description="Default: the study's.", json_schema_extra=describe_objective
    )
    teacher_counts: bool | None = Field(None, description="Default: the study's.")
    serving: ServingSpace | None = Field(None, description="Default: the study's.")
    traffic: Traffic | None = Field(None, description="Default: the study's.")
    ensemble: bool = Field(
        False,
        validation_alias=AliasChoices("ensemble", "pipeline"),
        description="Also serve each variant as an ensemble, text in and answer out, with the "
        "tokenizer inside the server: it is scored, and measured at the winner's load.",
    )

    speculation: Speculation | None = Field(
        None,
        description="Of models that write: also serve the teacher with a student as its draft. It "
        "writes the same texts; how much faster is predicted and measured, and the report compares "
        "the student's roles.",
    )

    @model_validator(mode="after")
    def _one_teacher(self) -> Self:
        teachers = [model.name for model in self.models if model.role is Role.TEACHER]
        if len(teachers) != 1:
            raise ValueError(f"a family has exactly one teacher; this one has {len(teachers)}")
        if any(model.role is Role.BASELINE for model in self.models):
            raise ValueError("the role baseline is for the embedded yardstick; use student")
        return self

    @model_validator(mode="after")
    def _ensemble_has_labels(self) -> Self:
        if self.ensemble and not family_of(self.task).has_ensemble:
            raise ValueError(
                "ensemble: true answers texts with labels, entities or vectors, and a "
                f"{self.task.kind} task has none: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _draft_is_there(self) -> Self:
        if self.speculation is None:
            return self
        if not family_of(self.task).writes:
            raise ValueError(
                f"speculation is for models that write, and a {self.task.kind} task has none: "
                "leave it out"
            )
        first = variant_name(self.teacher, *self.teacher.artefacts[0])
        known = [name for one in self.models for name in variants_of(one) if name != first]
        if self.speculation.draft not in known:
            raise ValueError(
                f"speculation: no variant '{self.speculation.draft}' can be the draft of {first}: "
                f"there are {', '.join(known) or 'no others'}"
            )
        if self.teacher.artefacts[0][0] is not Precision.FP32:
            raise ValueError(
                f"speculation: {first} would write other texts with a draft than alone, because "
                "what is quantised depends on the tokens beside it: put fp32 first among its "
                "precisions"
            )
        return self

    @property
    def teacher(self) -> Model:
        """The one model of role teacher."""
        return next(model for model in self.models if model.role is Role.TEACHER)


class Study(Strict):
    """Models, task, objective, what to sweep, traffic."""

    schema_version: Literal[1] = 1
    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    objective: Objective = Field(parse_objective(EXAMPLE), json_schema_extra=describe_objective)
    teacher_counts: bool = Field(
        False,
        description="Whether the teacher itself may be recommended. By default only a student is: "
        "where none meets the objective, the verdict is a fail that says 'keep the teacher'. A "
        "family without students always asks about its teacher.",
    )
    search: Literal["bisect", "grid"] = Field(
        "bisect",
        description="bisect: the highest load that meets the objective, by bisection, for each "
        "variant and serving configuration that can still win; grid: every combination.",
    )
    weights: Weights = None
    families: Annotated[list[Family], Field(min_length=1)]
    serving: ServingSpace = ServingSpace()
    traffic: Traffic = Traffic()
    cost: CostBasis | None = Field(
        None, description="The machine that a clause on cost is priced on: cost < 0.20/1M."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := _contradictions(self):
            raise ValueError("; ".join(problems))
        return self

    def objective_of(self, family: Family) -> ServiceLevelObjective:
        """The family's own objective, or the study's, with what its cost is priced on."""
        slo = family.objective or self.objective
        if self.cost is None:
            return slo
        pricing = self.cost.pricing.get(self.serving_of(family).instance_kind)
        return dataclasses.replace(slo, pricing=pricing)

    def asked_otherwise(
        self,
        *,
        objective: ServiceLevelObjective | None = None,
        search: str | None = None,
        only: str | None = None,
    ) -> Self:
        """The study with the objective of its families, or the search, replaced.

        Args:
            objective: asked instead of the study's, and of each family's own.
            search: instead of the study's.
            only: a variant, where the objective is asked of its family alone.

        Raises:
            StudyError: the objective names a metric that such a family's task does not have, or
                there is no such variant.
        """
        changes: dict[str, Any] = {} if search is None else {"search": search}
        if objective is not None and only is not None:
            asked = self.family_of(only)
            changes["families"] = [
                one.model_copy(update={"objective": objective}) if one is asked else one
                for one in self.families
            ]
        elif objective is not None:
            families = [one.model_copy(update={"objective": None}) for one in self.families]
            changes |= {"objective": objective, "families": families}
        changed = self.model_copy(update=changes)
        if problems := _contradictions(changed):
            raise StudyError(f"study {self.name}", problems)
        return changed

    def teacher_counts_in(self, family: Family) -> bool:
        """Whether the teacher itself may be recommended."""
        students = any(model.role is Role.STUDENT for model in family.models)
        own = family.teacher_counts
        return not students or (self.teacher_counts if own is None else own)

    def alone(self, variant: str) -> Self:
        """The study with one variant and nothing else: one family, one model, one artefact.

        Of a teacher with its draft it is the artefacts of both.

        Args:
            variant: of a model of the study, the ensemble around one, or a teacher with its draft.

        Raises:
            StudyError: no model of the study has such a variant.
        """
        family = self.family_of(variant)
        if family.speculation is not None and variant == speculative_name(family):
            parts = {variants_of(family.teacher)[0], family.speculation.draft}
            return self.model_copy(update={"families": [_with_parts(family, parts)]})
        bare = variant.removesuffix(ENSEMBLE_SUFFIX) if family.ensemble else variant
        model, precision, form = next(
            (model, *artefact)
            for model in family.models
            for artefact in model.artefacts
            if variant_name(model, *artefact) in {variant, bare}
        )
        own = model.model_copy(update={"precisions": [precision], "formats": [form]})
        is_ensemble = variant_name(model, precision, form) != variant
        without = {"ensemble": is_ensemble, "speculation": None}
        family = family.model_copy(update={"models": [own], **without})
        return self.model_copy(update={"families": [family]})

    def serving_of(self, family: Family) -> ServingSpace:
        """The family's own serving space, or the study's."""
        return family.serving or self.serving

    def traffic_of(self, family: Family) -> Traffic:
        """The family's own traffic, or the study's."""
        return family.traffic or self.traffic

    def family_of(self, variant: str) -> Family:
        """The family a variant belongs to.

        Raises:
            StudyError: no model of the study has such a variant.
        """
        for family in self.families:
            if variant in _served_names(family):
                return family
        raise StudyError(
            f"study {self.name}",
            [f"no variant '{variant}'"],
            next_step=f"its variants are: {', '.join(served_names(self))}",
        )


def _with_parts(family: Family, parts: Collection[str]) -> Family:
    """A family with these variants alone."""
    models = []
    for model in family.models:
        kept = [one for one in model.artefacts if variant_name(model, *one) in parts]
        if kept:
            precisions, formats = ([*dict.fromkeys(part)] for part in zip(*kept, strict=True))
            models.append(model.model_copy(update={"precisions": precisions, "formats": formats}))
    return family.model_copy(update={"models": models})


def speculative_name(family: Family) -> str:
    """Name of the model that serves a family's teacher with a draft."""
    return f"{variants_of(family.teacher)[0]}{SPECULATIVE_SUFFIX}"


def plans_of(family: Family) -> set[str]:
    """Names of the variants that are TensorRT plans."""
    return {
        variant_name(model, precision, form)
        for model in family.models
        for precision, form in model.artefacts
        if form is ModelFormat.TENSORRT
    }


def variant_names(study: Study) -> list[str]:
    """Names of all variants, in the study's order."""
    return [name for family in study.families for one in family.models for name in variants_of(one)]


def served_names(study: Study) -> list[str]:
    """Names of all that a study serves: variants, their ensembles, teachers with their draft."""
    return [name for family in study.families for name in _served_names(family)]


def _served_names(family: Family) -> list[str]:
    names = [name for model in family.models for name in variants_of(model)]
    if family.ensemble:
        names += [f"{name}{ENSEMBLE_SUFFIX}" for name in names]
    if family.speculation is not None:
        names.append(speculative_name(family))
    return names


def study_schema() -> dict[str, Any]:
    """The study's JSON Schema, for editors."""
    schema = Study.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _contradictions(study: Study) -> list[str]:
    problems = _name_clashes(study)
    for family in study.families:
        problems += _sweep_contradictions(study, family)
        problems += _foreign_metrics(study, family)
        problems += _tokens_of_whole_answers(study, family)
        problems += _plans_without_gpu(study, family)
        problems += _costs_without_a_machine(study, family)
        problems += _goodput_of_nothing(study, family)
    return problems


def _name_clashes(study: Study) -> list[str]:
    """Names that are there twice: a run keeps families, models and variants apart by them."""
    families = [family.name for family in study.families]
    problems = [
        f"two families are named '{name}': rename one"
        for name in dict.fromkeys(families)
        if families.count(name) > 1
    ]
    models: dict[str, str] = {}
    seen: dict[str, str] = {}
    for family in study.families:
        for model in family.models:
            clashes = []
            for name in variants_of(model):
                if name in seen:
                    clashes.append(
                        f"two variants are named '{name}' (families {seen[name]} and "
                        f"{family.name}): rename a model or drop a repeated precision or format"
                    )
                seen[name] = family.name
            if model.name in models and not clashes:
                clashes.append(
                    f"two models are named '{model.name}' (families {models[model.name]} and "
                    f"{family.name}): rename one, or give one model both precisions"
                )
            models[model.name] = family.name
            problems += clashes
    return problems


def _sweep_contradictions(study: Study, family: Family) -> list[str]:
    serving, traffic = study.serving_of(family), study.traffic_of(family)
    largest = max(serving.max_batch_sizes)
    too_large = [size for size in traffic.batch_sizes if size > largest]
    if not too_large:
        return []
    key = "batch_mix" if traffic.batch_mix else "client_batch_sizes"
    problem = (
        f"family {family.name}: client batch sizes {too_large} exceed the largest of "
        f"max_batch_sizes ({largest}), so Triton would refuse every such request: "
        f"raise max_batch_sizes, or set traffic.{key} (now {traffic.batch_sizes})"
    )
    return [problem]


def _plans_without_gpu(study: Study, family: Family) -> list[str]:
    if study.serving_of(family).instance_kind == "gpu":
        return []
    return [
        f"family {family.name}: {model.name} asks for formats: tensorrt, and a plan runs on a GPU "
        "alone: write serving: {instance_kind: gpu}, or leave the format out"
        for model in family.models
        if ModelFormat.TENSORRT in model.formats
    ]


def _costs_without_a_machine(study: Study, family: Family) -> list[str]:
    clause = cost_clause(study.objective_of(family))
    if clause is None or study.cost is not None:
        return []
    return [f"family {family.name}: {UNPRICED.format(clause.text)}: {NAME_A_MACHINE}"]


def _goodput_of_nothing(study: Study, family: Family) -> list[str]:
    lacks = lacks_clauses_of_goodput(study.objective_of(family))
    return [f"family {family.name}: {UNCOUNTED}: {NAME_A_LATENCY}"] if lacks else []


def _tokens_of_whole_answers(study: Study, family: Family) -> list[str]:
    if family_of(family.task).writes:
        return []
    return [
        f"family {family.name}: {UNSTREAMED.format(clause.metric)}: {NAME_A_RESPONSE}"
        for clause in stream_clauses(study.objective_of(family))
    ]


def _foreign_metrics(study: Study, family: Family) -> list[str]:
    own = [metric.name for metric in quality_metrics(family.task.kind)]
    return [
        f"family {family.name}: the objective asks for {constraint.metric}, which a "
        f"{family.task.kind} task does not have (it has {', '.join(own)})"
        for constraint in quality_clauses(study.objective_of(family))
        if constraint.metric not in own
    ] + [
        f"family {family.name}: the objective asks for {constraint.metric}, which is not scored "
        f"without the task's {lacking}"
        for constraint in quality_clauses(study.objective_of(family))
        if constraint.metric in own
        and (lacking := family_of(family.task).lacks(family.task, constraint.metric))
    ]
