"""What to know before a family's numbers: what is missing, mixed up, or better than it will be."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.family_results import FamilyResults
from harness.types import FailedVariant
from harness.types.losses import Relabelling
from harness.words.labels import cause_title
from harness.words.numbers import count, percent

_LISTED = 20
"""Classes that a warning of mixed up ones names, at most."""


def warnings_of(family: FamilyResults) -> tuple[str, ...]:
    """What is missing, each with its whole reason, and variants whose classes seem mixed up."""
    return (
        *map(_left_out, family.failed),
        *map(_mixed_up, family.relabellings),
        *_not_compared(family),
        *_not_traced(family),
        *_read_from_cache(family),
    )


def _not_compared(family: FamilyResults) -> Iterator[str]:
    """Variants that lack a measure beside the teacher."""
    yield from (entry.not_compared for entry in family.losses if entry.not_compared)


def _not_traced(family: FamilyResults) -> Iterator[str]:
    """Why nothing is known of where quality was lost, each reason once."""
    if any(entry.chain for entry in family.losses):
        return  # the table of chains has the reason beside each variant
    for reason in dict.fromkeys(entry.problem for entry in family.losses if entry.problem):
        yield f"where {family.name} lost quality is not known: {' '.join(reason.split())}"


def _read_from_cache(family: FamilyResults) -> Iterator[str]:
    """A recommended trial on an external server that sent its prompts more than once.

    The harness's own engine keeps no prefix cache. The prompts are those that were scored.
    """
    result = family.recommended
    if result is None or result.trial.workload.generation is None or not family.server:
        return
    sent = result.requests + result.failures
    own = [one for one in family.scores if one.variant == result.trial.variant]
    scored = [one.samples for one in own if "/" not in one.metric]
    prompts = result.trial.workload.generation.prompts or max(scored, default=sent)
    if prompts < sent:
        yield (
            f"prompts sent again: the recommended trial sent {count(sent)} requests of "
            f"{count(prompts)} different prompts. A server with a prefix cache (vLLM has one "
            "unless it is told otherwise) reads those that come again from it, and the time to "
            "first token is then lower than that of new prompts: switch the cache off there "
            "(vLLM: --no-enable-prefix-caching), or bring more prompts"
        )


def _left_out(one: FailedVariant) -> str:
    step = f" ({one.next_step})" if one.next_step else ""
    reason = " ".join(f"{one.reason}{step}".split())
    return f"{one.name} is left out, because it {cause_title(one.cause)}: {reason}"


def _mixed_up(one: Relabelling) -> str:
    pairs = [(a, b) for a, b in zip(one.called, one.means, strict=True) if a != b]
    listed = ", ".join(f"'{a}' for '{b}'" for a, b in pairs[:_LISTED])
    more = f", and {len(pairs) - _LISTED} more" if len(pairs) > _LISTED else ""
    return (
        f"the classes of {one.variant} look mixed up: by what it answers, its outputs stand "
        f"{listed}{more}. Called like that, its accuracy would be {percent(one.mended)} instead of "
        f"{percent(one.accuracy)}. Scores and verdict are of what is served: correct "
        "id2label in its checkpoint, or the labels of the data, and run again"
    )
