"""What a study is: the one thing a user writes. study_file.py reads it.

Strict pydantic: unknown keys and wrong types are refused. Validation has no side effects; it only
looks whether named files exist.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from harness.errors import ObjectiveError, StudyError
from harness.planning.objective import QUALITY_METRICS_BY_TASK, parse_objective
from harness.types import (
    Accelerator,
    LoadMode,
    ModelFormat,
    Precision,
    Role,
    ServiceLevelObjective,
    TaskKind,
    WireProtocol,
)

_NUMBER = r"[0-9]+(\.[0-9]+)?"
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
PositiveInt = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Mix = dict[PositiveInt, Weight]
_ARRIVALS = re.compile(rf"constant|poisson|gamma:{_NUMBER}|trace:.+")
_SHAPE = re.compile(rf"flat|(ramp|step|spike|sine):{_NUMBER}\.\.{_NUMBER}/{_NUMBER}(s|min|h)")
DEFAULT_CLIENT_BATCHES = [1, 4, 8, 16]
REFERENCE_PREFIX = "reference:"
TRACE_PREFIX = "trace:"
PLAN_SUFFIX = "-trt"
PIPELINE_SUFFIX = "-pipeline"
"""Of the ensemble that serves a variant with its pre- and post-processing."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _FileData(_Strict):
    path: Path = Field(description="Relative to the study file.")

    @field_validator("path")
    @classmethod
    def _file_exists(cls, path: Path, info: ValidationInfo) -> Path:
        resolved = _resolve(path, info)
        if not resolved.is_file():
            raise ValueError(f"no such data file: {resolved}")
        return resolved


class CsvData(_FileData):
    """Samples in a CSV file with a header row."""

    source: Literal["csv"]


class JsonLinesData(_FileData):
    """Samples in a file of one JSON object a line."""

    source: Literal["jsonl"]


class HubData(_Strict):
    """Samples from the Hugging Face hub, by `datasets` name."""

    source: Literal["datasets"]
    name: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None


class ReferenceData(_Strict):
    """The test split of an embedded corpus, made on this machine from Python source text."""

    source: Literal["reference"]
    name: Literal["topics", "prose"]


Data = Annotated[CsvData | JsonLinesData | HubData | ReferenceData, Field(discriminator="source")]


class _Diagnosed(_Strict):
    """What a task says of finding out where quality was lost."""

    slices: list[str] = Field(
        [],
        description="Columns of the data; on each of their values a variant is compared with the "
        "teacher.",
    )
    training_data: Data | None = Field(
        None,
        description="What the students were trained on, in the same columns: the report counts "
        "how much of it lies in each slice.",
    )
    chain_samples: Annotated[int, Field(ge=0)] = Field(
        2000,
        description="At most so many samples, drawn by the seed, on which the loss is split into "
        "distillation, export, quantisation, serving and batching; 0 leaves that out.",
    )


class _Padded(_Diagnosed):
    max_length: PositiveInt
    length_buckets: list[PositiveInt] | None = Field(
        None,
        description="Samples are padded to the next of these lengths; default: max_length alone. "
        "Triton joins only requests of equal shape.",
    )

    @model_validator(mode="after")
    def _buckets_fit(self) -> Self:
        if self.length_buckets and max(self.length_buckets) != self.max_length:
            raise ValueError(
                f"the longest of length_buckets is {max(self.length_buckets)} "
                f"but max_length is {self.max_length}: make them equal"
            )
        return self

    @property
    def buckets(self) -> tuple[int, ...]:
        """Padded lengths, ascending."""
        return tuple(sorted(set(self.length_buckets or [self.max_length])))


class SequenceClassification(_Padded):
    """One label for a text or a pair of texts."""

    kind: Literal[TaskKind.SEQUENCE_CLASSIFICATION]
    data: Data
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    label: str = Field("label", description="Column of the label: a name or a class index.")
    labels: list[str] | None = Field(
        None, description="Class names in the data's order; default: the checkpoint's id2label."
    )
    max_length: PositiveInt = Field(128, description="Tokens; longer samples are truncated.")
    samples: PositiveInt | None = Field(None, description="At most so many, drawn by the seed.")


class QuestionAnswering(_Padded):
    """A span of a context as the answer to a question, as in SQuAD."""

    kind: Literal[TaskKind.QUESTION_ANSWERING]
    data: Data
    question: str = Field("question", description="Column of the question.")
    context: str = Field("context", description="Column of the text that holds the answer.")
    answers: str = Field(
        "answers",
        description="Column of the right answers: a text, a list, or SQuAD's {text: [...]}.",
    )
    max_length: PositiveInt = Field(
        384, description="Tokens of question and context; a longer context is cut into windows."
    )
    doc_stride: Annotated[int, Field(ge=0)] = Field(
        128, description="Tokens that neighbouring windows of one context share."
    )
    max_answer_length: PositiveInt = Field(30, description="Most tokens of an answer.")
    unanswerable: bool = Field(
        False, description="Questions may have no answer (SQuAD 2), and a model may say so."
    )
    samples: PositiveInt | None = Field(
        None, description="At most so many questions, drawn by the seed."
    )

    @model_validator(mode="after")
    def _stride_fits(self) -> Self:
        if self.doc_stride >= self.max_length:
            raise ValueError(
                f"doc_stride is {self.doc_stride} and max_length {self.max_length}: windows "
                "that share all they hold never come to an end; make doc_stride smaller"
            )
        return self


class CausalLanguageModelling(_Diagnosed):
    """Scores of running text: perplexity and bits per byte over fixed windows."""

    kind: Literal[TaskKind.CAUSAL_LM]
    data: Data
    text: str = Field("text", description="Column of the text.")
    max_length: Annotated[int, Field(ge=2)] = Field(
        64, description="Tokens a window; a document longer than this is cut into windows."
    )
    samples: PositiveInt | None = Field(
        None, description="At most so many windows, drawn by the seed."
    )

    @property
    def buckets(self) -> tuple[int, ...]:
        """Padded lengths: every window is as long as the longest."""
        return (self.max_length,)


Task = Annotated[
    SequenceClassification | QuestionAnswering | CausalLanguageModelling,
    Field(discriminator="kind"),
]


class Model(_Strict):
    """A checkpoint and the precisions to serve it in; a variant each."""

    name: Name
    role: Role
    checkpoint: str = Field(
        description="Hub name, local folder (relative to the study file), or reference:NAME."
    )
    precisions: Annotated[list[Precision], Field(min_length=1)] = [Precision.FP32]
    formats: Annotated[list[ModelFormat], Field(min_length=1)] = Field(
        [ModelFormat.ONNX],
        description="onnx: a graph for ONNX Runtime; tensorrt: a plan, built on the GPU that will "
        "serve it. Each precision is made in each.",
    )
    revision: str | None = None
    trust_remote_code: bool = Field(
        False, description="Run Python code that the checkpoint brings. Off unless you say so."
    )

    @field_validator("checkpoint")
    @classmethod
    def _folder_exists(cls, checkpoint: str, info: ValidationInfo) -> str:
        if not checkpoint.startswith((".", "/", "~")):
            return checkpoint
        folder = _resolve(Path(checkpoint), info)
        if not (folder / "config.json").is_file():
            raise ValueError(f"no checkpoint there: {folder} has no config.json")
        return str(folder)

    @property
    def artefacts(self) -> list[tuple[Precision, ModelFormat]]:
        """What is made of the checkpoint: a variant each."""
        return [(precision, form) for form in self.formats for precision in self.precisions]

    @property
    def reference_name(self) -> str | None:
        """Name of the embedded model, if this is one."""
        if self.checkpoint.startswith(REFERENCE_PREFIX):
            return self.checkpoint.removeprefix(REFERENCE_PREFIX)
        return None


class ServingSpace(_Strict):
    """Triton's side of the sweep: every combination is a serving configuration."""

    max_batch_sizes: Annotated[list[PositiveInt], Field(min_length=1)] = [16]
    queue_delays_us: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    instance_counts: Annotated[list[PositiveInt], Field(min_length=1)] = [1]
    intra_op_threads: Annotated[list[PositiveInt], Field(min_length=1)] = [1]
    instance_kind: Literal["cpu", "gpu"] = "cpu"
    accelerators: Annotated[list[Accelerator], Field(min_length=1)] = Field(
        [Accelerator.NONE],
        description="How an ONNX graph is run on a GPU: none (the CUDA provider's defaults), cuda, "
        "tensorrt. TensorRT plans are served as they are.",
    )
    calibration_samples: PositiveInt = Field(
        256,
        description="int8 plans: so many samples of the data, drawn by the seed, set the ranges "
        "of the activations. Their labels are not read.",
    )

    @model_validator(mode="after")
    def _accelerators_have_a_gpu(self) -> Self:
        asked = [str(one) for one in self.accelerators if one is not Accelerator.NONE]
        if asked and self.instance_kind != "gpu":
            raise ValueError(
                f"accelerators {asked} run on a GPU: write instance_kind: gpu, or leave them out"
            )
        return self


class Traffic(_Strict):
    """The client's side of the sweep."""

    protocols: Annotated[list[WireProtocol], Field(min_length=1)] = [
        WireProtocol.HTTP,
        WireProtocol.GRPC,
    ]
    client_batch_sizes: Annotated[list[PositiveInt], Field(min_length=1)] = DEFAULT_CLIENT_BATCHES
    load: LoadMode = Field(
        LoadMode.CLOSED,
        description="closed: so many requests in flight; open: requests fall due at a rate.",
    )
    concurrencies: Annotated[list[PositiveInt], Field(min_length=1)] = Field(
        [1, 4, 16, 64],
        description="Closed loop: requests in flight. The search bisect takes the least and the "
        "most as its bounds, the search grid each.",
    )
    rates_per_s: list[Rate] = Field(
        [], description="Open loop: requests a second, bounds or grid likewise."
    )
    arrivals: str = Field(
        "poisson", description="Open loop: constant, poisson, gamma:CV, or trace:FILE."
    )
    shape: str = Field(
        "flat",
        description="Open loop: the rate over time, as flat, or as ramp, step, spike or sine with "
        "its levels and period: sine:0.5..1.5/60s.",
    )
    max_in_flight: PositiveInt = Field(
        512, description="Open loop: what falls due with so many in flight is dropped, and counted."
    )
    batch_mix: Mix = Field(
        {}, description="Client batch sizes drawn by weight, in place of client_batch_sizes."
    )
    length_mix: Mix = Field(
        {}, description="Padded lengths drawn by weight; default: as often as the data has them."
    )
    duration_s: Annotated[float, Field(gt=0, le=86400)] = Field(
        5.0, description="Longest a trial measures; it ends as soon as the objective is decided."
    )
    min_duration_s: Annotated[float, Field(gt=0, le=86400)] = Field(
        0.5, description="Earliest that a trial is decided; at most duration_s."
    )
    warmup_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        1.0, description="Longest warm-up; it ends as soon as the load is steady."
    )
    confirm_duration_s: Annotated[float, Field(gt=0, le=86400)] | None = Field(
        None, description="Longest the winner is measured afresh; default: twice duration_s."
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Load generator processes.")

    @field_validator("arrivals")
    @classmethod
    def _arrivals_parse(cls, text: str, info: ValidationInfo) -> str:
        if not _ARRIVALS.fullmatch(text):
            raise ValueError(
                f"'{text}' is no arrival process: write constant, poisson, gamma:CV (gamma:2 is "
                "burstier than poisson) or trace:FILE"
            )
        if not text.startswith(TRACE_PREFIX):
            return text
        path = _resolve(Path(text.removeprefix(TRACE_PREFIX)), info)
        if not path.is_file():
            raise ValueError(f"no such trace file: {path}")
        return f"{TRACE_PREFIX}{path}"

    @field_validator("shape")
    @classmethod
    def _shape_parses(cls, text: str) -> str:
        if not _SHAPE.fullmatch(text):
            raise ValueError(
                f"'{text}' is no shape of a load: write flat, or ramp, step, spike or sine as "
                "KIND:LOW..HIGH/PERIOD, for example sine:0.5..1.5/60s"
            )
        return text

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = self._open_gaps() if self.load is LoadMode.OPEN else self._open_leftovers()
        if self.batch_mix and self.client_batch_sizes != DEFAULT_CLIENT_BATCHES:
            problems.append("batch_mix draws the client batch sizes: leave client_batch_sizes out")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _open_gaps(self) -> list[str]:
        """What an open loop lacks, or has twice."""
        if self.is_trace:
            given = {"rates_per_s": bool(self.rates_per_s), "shape": self.shape != "flat"}
            return [
                f"a trace says when each request falls due: leave {key} out"
                for key, is_given in given.items()
                if is_given
            ]
        if not self.rates_per_s:
            return ["load: open needs rates_per_s (requests a second), or arrivals: trace:FILE"]
        return []

    def _open_leftovers(self) -> list[str]:
        """What a closed loop has no use for."""
        given = {
            "rates_per_s": bool(self.rates_per_s),
            "arrivals": self.arrivals != "poisson",
            "shape": self.shape != "flat",
        }
        keys = " and ".join(key for key, is_given in given.items() if is_given)
        if not keys:
            return []
        return [f"{keys}: only for load: open (a closed loop sends when a request completes)"]

    @property
    def is_trace(self) -> bool:
        """Whether requests fall due at times read from a file."""
        return self.arrivals.startswith(TRACE_PREFIX)

    @property
    def batch_sizes(self) -> list[int]:
        """Client batch sizes, ascending; of a mix the largest alone."""
        return [max(self.batch_mix)] if self.batch_mix else sorted(set(self.client_batch_sizes))


class Family(_Strict):
    """A teacher, its students, and the task they are judged on."""

    name: Name
    task: Task
    models: Annotated[list[Model], Field(min_length=1)]
    objective: str | None = Field(None, description="Default: the study's.")
    serving: ServingSpace | None = Field(None, description="Default: the study's.")
    traffic: Traffic | None = Field(None, description="Default: the study's.")
    pipeline: bool = Field(
        False,
        description="Serve each variant as a whole pipeline too, text in and label out, with the "
        "tokenizer inside the server: scored, and measured at the winner's load.",
    )

    @field_validator("objective")
    @classmethod
    def _objective_parses(cls, text: str | None) -> str | None:
        return text if text is None else _checked_objective(text)

    @model_validator(mode="after")
    def _one_teacher(self) -> Self:
        teachers = [model.name for model in self.models if model.role is Role.TEACHER]
        if len(teachers) != 1:
            raise ValueError(f"a family has exactly one teacher; this one has {len(teachers)}")
        if any(model.role is Role.BASELINE for model in self.models):
            raise ValueError("the role baseline is for the embedded yardstick; use student")
        return self

    @model_validator(mode="after")
    def _pipeline_has_labels(self) -> Self:
        if self.pipeline and self.task.kind is not TaskKind.SEQUENCE_CLASSIFICATION:
            raise ValueError(
                f"pipeline: true answers with a label, and a {self.task.kind} task has none: "
                "leave it out"
            )
        return self

    @property
    def teacher(self) -> Model:
        """The one model of role teacher."""
        return next(model for model in self.models if model.role is Role.TEACHER)


class Study(_Strict):
    """Models, task, objective, what to sweep, traffic."""

    schema_version: Literal[1] = 1
    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    objective: str = "p95 < 50 ms, accuracy >= 90% of teacher"
    search: Literal["bisect", "grid"] = Field(
        "bisect",
        description="bisect: the highest load that meets the objective, by bisection, for each "
        "variant and serving configuration that can still win; grid: every combination.",
    )
    families: Annotated[list[Family], Field(min_length=1)]
    serving: ServingSpace = ServingSpace()
    traffic: Traffic = Traffic()

    @field_validator("objective")
    @classmethod
    def _objective_parses(cls, text: str) -> str:
        return _checked_objective(text)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = _name_clashes(self)
        for family in self.families:
            problems += _sweep_contradictions(self, family)
            problems += _foreign_metrics(self, family)
            problems += _plans_without_gpu(self, family)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def objective_of(self, family: Family) -> ServiceLevelObjective:
        """The family's own objective, or the study's."""
        return parse_objective(family.objective or self.objective)

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
            own = [name for model in family.models for name in variants_of(model)]
            if family.pipeline:
                own += [f"{name}{PIPELINE_SUFFIX}" for name in own]
            if variant in own:
                return family
        raise StudyError(
            f"study {self.name}",
            [f"no variant '{variant}'"],
            next_step=f"its variants are: {', '.join(variant_names(self))}",
        )


def variant_name(model: Model, precision: Precision, form: ModelFormat = ModelFormat.ONNX) -> str:
    """Name of a model's variant: its folder in the model repository."""
    return f"{model.name}-{precision}{PLAN_SUFFIX if form is ModelFormat.TENSORRT else ''}"


def variants_of(model: Model) -> list[str]:
    """Names of a model's variants."""
    return [variant_name(model, *artefact) for artefact in model.artefacts]


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


def study_schema() -> dict[str, Any]:
    """The study's JSON Schema, for editors."""
    schema = Study.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _resolve(path: Path, info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get("base", Path.cwd())
    return (base / path.expanduser()).resolve()


def _checked_objective(text: str) -> str:
    try:
        parse_objective(text)
    except ObjectiveError as error:
        raise ValueError(str(error)) from error
    return text


def _name_clashes(study: Study) -> list[str]:
    seen: dict[str, str] = {}
    problems = []
    for family in study.families:
        for model in family.models:
            for name in variants_of(model):
                if name in seen:
                    problems.append(
                        f"two variants are named '{name}' (families {seen[name]} and "
                        f"{family.name}): rename a model or drop a repeated precision or format"
                    )
                seen[name] = family.name
    return problems


def _sweep_contradictions(study: Study, family: Family) -> list[str]:
    serving, traffic = study.serving_of(family), study.traffic_of(family)
    largest = max(serving.max_batch_sizes)
    too_large = [size for size in traffic.batch_sizes if size > largest]
    if not too_large:
        return []
    problem = (
        f"family {family.name}: client batch sizes {too_large} exceed the largest of "
        f"max_batch_sizes ({largest}), so Triton would refuse every such request: "
        "raise max_batch_sizes or drop them"
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


def _foreign_metrics(study: Study, family: Family) -> list[str]:
    own = QUALITY_METRICS_BY_TASK[family.task.kind]
    known = {metric for metrics in QUALITY_METRICS_BY_TASK.values() for metric in metrics}
    return [
        f"family {family.name}: the objective asks for {constraint.metric}, which a "
        f"{family.task.kind} task does not have (it has {', '.join(own)})"
        for constraint in study.objective_of(family).constraints
        if constraint.metric in known and constraint.metric not in own
    ]
