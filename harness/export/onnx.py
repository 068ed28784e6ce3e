"""From a checkpoint to the variants that are served: the export, read from top to bottom.

An artefact's folder in the model repository:

    <variant>/1/model.onnx      what Triton loads (with model.onnx.data beside it above 1.8 GB)
    <variant>/tokenizer/        the checkpoint's tokenizer and configuration, for any client
    <variant>/warmup/<input>    one real sample, raw little-endian bytes, for Triton's warm-up
    <variant>/manifest.json     digests, tensors, parity, versions

`config.pbtxt` joins them when serving writes it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.export.checkpoint import Checkpoint
from harness.export.convert import artefact_files, write_fp16, write_int8
from harness.export.hub import CODE_FILES, SMALL_FILES
from harness.export.manifest import (
    ArtefactManifest,
    digest_files,
    read_manifest,
    write_manifest,
)
from harness.export.parity import check_parity
from harness.export.source import ExportSource
from harness.export.staging import repository_lock, scratch_folder, staged_folder
from harness.study import Model, Task, variant_name
from harness.tasks.encoding import EncodedDataset
from harness.tasks.extras import require_extra
from harness.types import ModelFormat, ModelVariant, Precision, Progress, TaskKind


def export_variants(
    model: Model,
    checkpoint: Checkpoint,
    task: Task,
    *,
    family: str,
    repository: Path,
    encoded: EncodedDataset,
    progress: Callable[[Progress], None],
) -> tuple[ModelVariant, ...]:
    """Make every precision of a model exist in the repository, checked against its checkpoint.

    What is there already, unharmed and from an equal recipe, stays. The checkpoint is exported
    once; the other precisions are made from that graph.

    Args:
        model: the study's section.
        checkpoint: the opened checkpoint.
        task: what it is asked to do.
        family: name of the family it belongs to.
        repository: the model repository's folder.
        encoded: samples as this checkpoint's tokenizer makes them; probes and warm-up are taken
            from them.
        progress: told about each precision.

    Returns:
        One variant a precision, in the study's order.

    Raises:
        CheckpointError: the checkpoint does not fit the samples, or cannot be exported.
        ParityError: an artefact disagrees with the checkpoint.
        EnvironmentFailure: the installed tools write files that the pinned server cannot load.
        StorageError: the repository cannot be written.
        MissingExtraError: torch or an ONNX package is not installed.
    """
    require_extra("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    variants = []
    total = len(model.precisions)
    with repository_lock(repository), scratch_folder(repository) as scratch:
        source = ExportSource(model, checkpoint, task, encoded, scratch)
        for number, precision in enumerate(model.precisions):
            name = variant_name(model, precision)
            progress(Progress("export", number, total, name))
            folder = repository / name
            manifest = _kept(folder, source.recipe(precision))
            if manifest is None:
                manifest = _make(source, folder, precision)
            variants.append(_variant(manifest, folder, model, family, precision))
    progress(Progress("export", total, total, model.name))
    return tuple(variants)


def _kept(folder: Path, recipe: Mapping[str, Any]) -> ArtefactManifest | None:
    """The manifest of an artefact that need not be made again, verified against its files."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.recipe != recipe:
        return None
    files = artefact_files(folder / "1" / "model.onnx")
    whole = (folder / "tokenizer").is_dir() and all(
        (folder / "warmup" / one.name).is_file() for one in manifest.inputs
    )
    return manifest if whole and files and digest_files(files) == manifest.sha256 else None


def _make(source: ExportSource, target: Path, precision: Precision) -> ArtefactManifest:
    with staged_folder(target) as folder:
        path = folder / "1" / "model.onnx"
        path.parent.mkdir()
        _write_graph(source, path, precision)
        parity = check_parity(path, source.probes, precision, target.name)
        files = artefact_files(path)
        manifest = ArtefactManifest(
            variant=target.name,
            source=source.checkpoint.name,
            recipe=source.recipe(precision),
            sha256=digest_files(files),
            size_bytes=sum(file.stat().st_size for file in files),
            parameters=source.checkpoint.parameters,
            inputs=source.inputs,
            outputs=source.outputs,
            parity=dataclasses.asdict(parity),
            warmup=_write_warmup(folder / "warmup", source.encoded),
        )
        _copy_tokenizer(source, folder / "tokenizer")
        write_manifest(folder, manifest)
    return manifest


def _write_graph(source: ExportSource, path: Path, precision: Precision) -> None:
    if precision is Precision.INT8:
        write_int8(source.fp32, path)
    elif precision is Precision.FP16:
        write_fp16(source.fp32, path)
    else:
        for file in artefact_files(source.fp32):
            shutil.copyfile(file, path.parent / file.name)


def _write_warmup(folder: Path, encoded: EncodedDataset) -> dict[str, list[int]]:
    """One real sample of the longest group; returns its shape by input."""
    folder.mkdir()
    shapes = {}
    for name, values in encoded.groups[-1].inputs.items():
        sample = np.ascontiguousarray(values[0], dtype="<i8")
        (folder / name).write_bytes(sample.tobytes())
        shapes[name] = list(sample.shape)
    return shapes


def _copy_tokenizer(source: ExportSource, folder: Path) -> None:
    folder.mkdir()
    code = CODE_FILES if source.model.trust_remote_code else ()
    for pattern in (*SMALL_FILES, *code):
        for file in source.checkpoint.folder.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _variant(
    manifest: ArtefactManifest, folder: Path, model: Model, family: str, precision: Precision
) -> ModelVariant:
    return ModelVariant(
        name=folder.name,
        family=family,
        role=model.role,
        task=TaskKind(manifest.recipe["kind"]),
        format=ModelFormat.ONNX,
        precision=precision,
        source=model.checkpoint,
        sha256=manifest.sha256,
        path=folder,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        parameters=manifest.parameters,
        size_bytes=manifest.size_bytes,
        parity={manifest.outputs[0].name: manifest.parity["max_difference"]},
    )
