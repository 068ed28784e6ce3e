"""Variants that fail are left out and told, with their reason; the yardstick's failure is the end.

The teacher's first variant is what all others are compared with: where it fails, nothing can be
judged, and the study ends with its error. Another precision of the teacher does not take its place,
because the yardstick would then be another one than the study names.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import HarnessError
from harness.flow.options import ProgressSink
from harness.study import (
    ENSEMBLE_SUFFIX,
    SPECULATIVE_SUFFIX,
    Family,
    variants_of,
)
from harness.types import FailedVariant, Progress

EXPORT, SERVING = "export", "serving"
_WHAT = {EXPORT: "cannot be exported", SERVING: "cannot be served"}


def failed_variant(family: Family, name: str, cause: str, error: HarnessError) -> FailedVariant:
    """What is written down of a variant that failed.

    Args:
        family: it belongs to.
        name: of the variant, of its ensemble, or of the model with a draft.
        cause: EXPORT or SERVING.
        error: why.
    """
    bare = name if any(name in variants_of(m) for m in family.models) else _without_suffix(name)
    role = next(model.role for model in family.models if bare in variants_of(model))
    return FailedVariant(name, family.name, role, cause, str(error), error.next_step)


def tell(failed: FailedVariant, progress: ProgressSink) -> None:
    """Say it when it happens."""
    note = f"{failed.name} {_WHAT[failed.cause]}, and is left out: {failed.reason}"
    progress(Progress("left out", 1, 1, " ".join(note.split())))


def leaving_out(
    family: Family, failures: dict[str, HarnessError], progress: ProgressSink
) -> Callable[[str, HarnessError], None]:
    """What takes the export's failures: all but that of the variant that others are judged by.

    Args:
        family: whose variants are exported.
        failures: gets them, by variant.
        progress: is told.
    """

    def leave_out(name: str, error: HarnessError) -> None:
        if name == variants_of(family.teacher)[0]:
            raise needed(family, name, error)
        failures[name] = error
        tell(failed_variant(family, name, EXPORT, error), progress)

    return leave_out


def needed(family: Family, name: str, error: HarnessError) -> HarnessError:
    """The error of a variant without which nothing in its family can be judged."""
    message = (
        f"{name} is what the variants of family {family.name} are compared with, so the study ends "
        f"here: {error}"
    )
    return type(error)(message, next_step=error.next_step)


def _without_suffix(name: str) -> str:
    return name.removesuffix(ENSEMBLE_SUFFIX).removesuffix(SPECULATIVE_SUFFIX)
