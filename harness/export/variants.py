"""From a checkpoint to the variants that are served: the export, read from top to bottom.

An artefact's folder in the model repository:

    <variant>/1/model.onnx      what Triton loads (with model.onnx.data beside it above 1.8 GB),
    <variant>/1/model.plan      or a TensorRT plan
    <variant>/tokenizer/        the checkpoint's tokenizer and configuration, for any client
    <variant>/warmup/<input>    one real sample, raw little-endian bytes, for Triton's warm-up
    <variant>/manifest.json     digests, tensors, parity, versions

`config.pbtxt` joins them when serving writes it.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import CheckpointError, HarnessError
from harness.export.artefacts import make_artefacts
from harness.export.checkpoint import Checkpoint
from harness.export.checkpoint_files import CODE_FILES, SMALL_FILES
from harness.export.convert import artefact_files, write_fp16, write_int8
from harness.export.folders import (
    ArtefactManifest,
    digest_files,
    read_manifest,
    repository_lock,
    scratch_folder,
    staged_folder,
    write_manifest,
)
from harness.export.parity import Executor, OnnxExecutor, check_parity
from harness.export.source import ONNX_FILE, ExportSource
from harness.export.tensorrt import (
    PlanExecutor,
    PlanHome,
    PlanSettings,
    moved_from,
    plan_home,
    plan_recipe,
    probes_within,
    write_plan,
)
from harness.study import Model, Task, variant_name
from harness.system.libraries import require_extra
from harness.tasks.encoding import EncodedDataset
from harness.tasks.samples import Samples
from harness.types import ModelFormat, ModelVariant, Precision, Progress

FILES = {ModelFormat.ONNX: ONNX_FILE, ModelFormat.TENSORRT: "model.plan"}
"""What Triton loads, inside the version's folder."""


@dataclass(frozen=True)
class ExportJob:
    """A model of a study, and where its variants go."""

    model: Model
    checkpoint: Checkpoint
    task: Task
    family: str
    samples: Samples
    """Samples as the data has them; the bare library is asked a few of them."""
    encoded: EncodedDataset
    """The samples as this checkpoint's tokenizer encodes them; probes, calibration and warm-up are
    taken from them."""
    repository: Path
    plans: PlanSettings = field(default_factory=PlanSettings)


def export_variants(
    job: ExportJob,
    progress: Callable[[Progress], None],
    failed: Callable[[str, HarnessError], None] | None = None,
) -> tuple[ModelVariant, ...]:
    """Make every artefact of a model exist in the repository, checked against its checkpoint.

    What is there already, unharmed and from an equal recipe, stays. The checkpoint is exported
    once; the other precisions and formats are made from that graph, later ones from the one kept.

    Args:
        job: the model.
        progress: told about each artefact.
        failed: takes the name of an artefact that cannot be made, with its error, and the others
            go on; None ends the export with the first such error.

    Returns:
        One variant an artefact that is there, in the study's order.

    Raises:
        CheckpointError: the checkpoint does not fit the samples, or cannot be exported.
        ParityError: an artefact disagrees with the checkpoint.
        EnvironmentFailure: the installed tools write files that the pinned server cannot load; or
            a TensorRT plan is asked for where there is no TensorRT or no GPU.
        StorageError: the repository cannot be written.
        MissingExtraError: torch or an ONNX package is not installed.
    """
    require_extra("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    model = job.model
    home = plan_home() if ModelFormat.TENSORRT in model.formats else None
    with repository_lock(job.repository), scratch_folder(job.repository) as scratch:
        source = ExportSource(
            model,
            job.checkpoint,
            job.task,
            job.samples,
            job.encoded,
            scratch,
            artefact=job.repository / variant_name(model, Precision.FP32, ModelFormat.ONNX),
        )

        def make(name: str, precision: Precision, form: ModelFormat) -> ModelVariant:
            making = _Making(source, precision, form, job.plans, home)
            folder = job.repository / name
            manifest = _kept(folder, making, progress) or _made(making, folder)
            return _variant(manifest, folder, job, precision, form)

        return make_artefacts(model, make, progress, failed)


@dataclass(frozen=True)
class _Making:
    """One artefact while it is made."""

    source: ExportSource
    precision: Precision
    form: ModelFormat
    plans: PlanSettings
    home: PlanHome | None
    """What plans built here are bound to; None where no plan is asked for."""

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides what the artefact is."""
        recipe = self.source.recipe(self.precision)
        if self.home is None or self.form is not ModelFormat.TENSORRT:
            return recipe
        return recipe | {"plan": plan_recipe(self.source, self.precision, self.plans, self.home)}

    def write(self, path: Path) -> None:
        """Write the files that Triton loads."""
        if self.form is ModelFormat.TENSORRT:
            write_plan(self.source, path, self.precision, self.plans)
        elif self.precision is Precision.INT8:
            write_int8(self.source.fp32, path)
        elif self.precision is Precision.FP16:
            write_fp16(self.source.fp32, path)
        else:
            for file in artefact_files(self.source.fp32):
                shutil.copyfile(file, path.parent / file.name)

    def check(self, path: Path, name: str) -> dict[str, Any]:
        """Hold it against the checkpoint.

        Raises:
            ParityError: it disagrees.
        """
        executor: Executor
        if self.form is ModelFormat.TENSORRT:
            executor = PlanExecutor(path)
            probes = probes_within(self.source, self.plans)
        else:
            executor, probes = OnnxExecutor(path), self.source.probes
        return dataclasses.asdict(
            check_parity(executor, self.source.family, probes, self.precision, name)
        )


def _kept(
    folder: Path, making: _Making, progress: Callable[[Progress], None]
) -> ArtefactManifest | None:
    """The manifest of an artefact that need not be made again, verified against its files."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.recipe != making.recipe:
        built = manifest.recipe.get("plan") if manifest else None
        if built and making.home and (why := moved_from(built, making.home)):
            progress(Progress("plans", 1, 1, f"{folder.name} is made again: {why}"))
        return None
    files = artefact_files(folder / "1" / FILES[making.form])
    whole = (folder / "tokenizer").is_dir() and all(
        (folder / "warmup" / one.name).is_file() for one in manifest.inputs
    )
    return manifest if whole and files and digest_files(files) == manifest.sha256 else None


def _made(making: _Making, target: Path) -> ArtefactManifest:
    """Make an artefact; whatever its tools raise becomes an error of this artefact."""
    try:
        return _make(making, target)
    except (HarnessError, OSError):
        raise
    except Exception as error:
        # Quantisers and runtimes raise what they like.
        raise CheckpointError(
            f"{target.name} cannot be made of checkpoint {making.source.checkpoint.name}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _make(making: _Making, target: Path) -> ArtefactManifest:
    source = making.source
    with staged_folder(target) as folder:
        path = folder / "1" / FILES[making.form]
        path.parent.mkdir()
        library = source.library_difference
        making.write(path)
        parity = {**making.check(path, target.name), "library_difference": library}
        files = artefact_files(path)
        manifest = ArtefactManifest(
            variant=target.name,
            source=source.checkpoint.name,
            recipe=making.recipe,
            sha256=digest_files(files),
            size_bytes=sum(file.stat().st_size for file in files),
            parameters=source.checkpoint.parameters,
            inputs=source.inputs,
            outputs=source.outputs,
            parity=parity,
            warmup=_write_warmup(folder / "warmup", source.encoded),
        )
        _copy_tokenizer(source, folder / "tokenizer")
        write_manifest(folder, manifest)
    return manifest


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
            copy = folder / file.relative_to(source.checkpoint.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _variant(
    manifest: ArtefactManifest,
    folder: Path,
    job: ExportJob,
    precision: Precision,
    form: ModelFormat,
) -> ModelVariant:
    return ModelVariant(
        name=folder.name,
        family=job.family,
        role=job.model.role,
        task=str(manifest.recipe["kind"]),
        format=form,
        precision=precision,
        source=job.model.checkpoint,
        sha256=manifest.sha256,
        path=folder,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        parameters=manifest.parameters,
        size_bytes=manifest.size_bytes,
        parity={manifest.outputs[0].name: manifest.parity["max_difference"]},
    )
