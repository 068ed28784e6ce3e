"""The artefacts of a model, made one after the other; one that cannot be made may be left out."""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import CheckpointError, EnvironmentFailure, HarnessError, StorageError
from harness.study import Model, variant_name
from harness.types import ModelFormat, ModelVariant, Precision, Progress

Make = Callable[[str, Precision, ModelFormat], ModelVariant]
"""Makes the artefact of a name, unless it is there."""


def make_artefacts(
    model: Model,
    make: Make,
    progress: Callable[[Progress], None],
    failed: Callable[[str, HarnessError], None] | None,
) -> tuple[ModelVariant, ...]:
    """One variant for each artefact that is there, in the study's order.

    Args:
        model: of the study.
        make: makes one.
        progress: told about each.
        failed: takes the name of an artefact that cannot be made, with its error, and the others
            go on; None ends the export with the first such error.

    Raises:
        CheckpointError, EnvironmentFailure: of `make`, where `failed` is None.
        StorageError: the repository cannot be written.
    """
    variants = []
    total = len(model.artefacts)
    for number, (precision, form) in enumerate(model.artefacts):
        name = variant_name(model, precision, form)
        progress(Progress("export", number, total, name))
        try:
            variants.append(make(name, precision, form))
        except (CheckpointError, EnvironmentFailure) as error:
            if failed is None or isinstance(error, StorageError):
                raise
            failed(name, error)
    progress(Progress("export", total, total, model.name))
    return tuple(variants)
