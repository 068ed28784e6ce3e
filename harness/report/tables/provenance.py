"""Where the numbers come from: machine, versions, seeds, digests, the resolved study."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import yaml

from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.types import (
    Accelerator,
    LoadMode,
    ModelVariant,
    ShapeKind,
    Trial,
    Workload,
)
from harness.types.workloads import arrivals_text, mix_text, shape_text
from harness.words.numbers import MISSING, megabytes, number, percent

_GIGABYTE = 10**9
_REMOTE_NOTE = (
    " remote: the file lies on an external server, where it cannot be read; instead of its "
    "digest stands that of its address, of what the server says of the model (its version, tensors "
    "and configuration) and of what it answers to fixed rows: the same when it was scored and "
    "before each trial."
)
STUDY_FILE = "STUDY.yaml"
"""Stands for the study's file, whose place only its owner knows."""


def artefacts_table(variants: Sequence[ModelVariant]) -> Table:
    """Every served artefact with its digest and its agreement with the checkpoint."""
    rows = [
        (
            words(variant.name),
            words(variant.source),
            words(f"{variant.format} {variant.precision}"),
            numeric(megabytes(variant.size_bytes), variant.size_bytes),
            _parity_cell(variant),
            Cell(variant.sha256 or MISSING, tone="code"),
        )
        for variant in variants
    ]
    return Table(
        caption="Artefacts",
        columns=(
            Column("Variant", numeric=False),
            Column("Checkpoint", numeric=False),
            Column("Format", numeric=False),
            Column("Size", "MB"),
            Column("Parity", "largest difference"),
            Column("SHA-256", numeric=False),
        ),
        rows=tuple(rows),
        note="Quality and latency were measured on this digest. Parity: the largest "
        "absolute difference of an output from the checkpoint's."
        + (_REMOTE_NOTE if any(one.sha256.startswith("remote:") for one in variants) else ""),
    )


def _parity_cell(variant: ModelVariant) -> Cell:
    worst = max(variant.parity.values(), default=None)
    return Cell(number(worst), detail=", ".join(variant.parity), sort=worst)


def environment_table(manifest: Mapping[str, Any]) -> Table:
    """Everything else that the manifest says, one row a value."""
    rows = [
        (words(key), words(text))
        for name, value in manifest.items()
        if name != "study"
        for key, text in _flat("" if name == "environment" else name.replace("_", " "), value)
    ]
    return Table(
        caption="Environment and seeds",
        columns=(Column("What", numeric=False), Column("Value", numeric=False)),
        rows=tuple(rows),
    )


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            inner_name = str(key).replace("_", " ")
            yield from _flat(f"{name} · {inner_name}" if name else inner_name, inner)
    elif isinstance(value, list | tuple):
        yield name, ", ".join(str(item) for item in value)
    elif name.endswith(" bytes") and isinstance(value, int):
        yield name.removesuffix(" bytes"), _size_words(value)
    elif name.endswith(" share") and isinstance(value, float):
        yield name, percent(value)
    else:
        yield name, MISSING if value is None else str(value)


def study_yaml(manifest: Mapping[str, Any]) -> str:
    """The resolved study, as YAML that a study file could hold."""
    return yaml.safe_dump(
        _plain(manifest.get("study", {})), sort_keys=False, allow_unicode=True, width=88
    )


def _size_words(size_bytes: int) -> str:
    if size_bytes < _GIGABYTE:
        return f"{megabytes(size_bytes)} MB"
    return f"{number(size_bytes / _GIGABYTE)} GB"


def _plain(value: Any) -> Any:
    """Mappings and sequences as YAML knows them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def run_command(manifest: Mapping[str, Any]) -> str:
    """The command that made the run, or the one that makes it again from the study."""
    stored = manifest.get("command")
    if isinstance(stored, list | tuple):
        return shlex.join(str(part) for part in stored)
    return str(stored) if stored else f"harness run {STUDY_FILE}"


def load_command(trial: Trial, server: Mapping[str, Any] | None = None) -> str:
    """The command that measures one trial again; empty where `harness load` cannot.

    Args:
        trial: of a study.
        server: the external server that it was measured on, as the run's manifest has it; without
            one, the harness's own.
    """
    workload = trial.workload
    where = _external_options(trial, server) if server else _serving_options(trial)
    if not where:
        return ""
    options = {
        "--variant": trial.variant,
        **where,
        **_batch_options(workload),
        **_load_options(workload),
        "--duration": f"{workload.duration_s:g}",
        "--warmup": f"{workload.warmup_s:g}",
    }
    words = [str(word) for option in options.items() for word in option]
    words += ["--response-cache"] if workload.cached_answers else []
    return shlex.join(["harness", "load", STUDY_FILE, *words])


def _serving_options(trial: Trial) -> dict[str, object]:
    """How the harness's own server is asked for the trial's configuration; empty: it cannot be."""
    serving = trial.serving
    if not serving.told or serving.accelerator is not Accelerator.NONE:
        return {}
    return {
        "--protocol": trial.workload.protocol,
        "--max-batch-size": serving.max_batch_size,
        "--queue-delay-us": serving.queue_delay_us,
        "--instances": serving.instance_count,
        "--intra-op-threads": serving.intra_op_threads,
    }


def _external_options(trial: Trial, server: Mapping[str, Any]) -> dict[str, object]:
    """Where the model is, which is served as its owner has it.

    Empty where its configuration was the run's own, which ended with it, and of streams of a
    study's prompts: `harness load --url` asks for neither.
    """
    if server.get("model_control") or trial.workload.generation or not server.get("url"):
        return {}
    name = server.get("models", {}).get(trial.variant, trial.variant)
    there = {"--url": server["url"]}
    return there if name == trial.variant else there | {"--model": name}


def _batch_options(workload: Workload) -> dict[str, object]:
    options: dict[str, object] = {"--client-batch-size": workload.client_batch_size}
    if workload.batch_mix:
        options = {"--batch-mix": mix_text(workload.batch_mix)}
    if workload.length_mix:
        options["--length-mix"] = mix_text(workload.length_mix)
    return options


def _load_options(workload: Workload) -> dict[str, object]:
    if workload.load_mode is LoadMode.CLOSED:
        return {"--concurrency": workload.concurrency}
    arrivals = workload.arrivals
    options: dict[str, object] = {}
    if workload.rate_per_s is not None:
        options["--rate"] = f"{workload.rate_per_s:g}"
    options["--arrivals"] = arrivals_text(arrivals)
    if arrivals.trace_unit is not None:
        options["--trace-unit"] = str(arrivals.trace_unit)
    if arrivals.shape.kind is not ShapeKind.FLAT:
        options["--shape"] = shape_text(arrivals.shape)
    return options | {"--max-in-flight": workload.concurrency}


def when(text: Any) -> str:
    """An ISO 8601 time as people read it, in UTC; empty where there is none."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    return f"{moment:%d %B %Y, %H:%M} UTC"
