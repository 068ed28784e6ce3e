"""What a profile says: the machine's roof over an operator, and what bounds a model."""

from __future__ import annotations

from dataclasses import dataclass

from harness.types.card import Runtime
from harness.types.profiles import OperatorCost, OperatorProfile, Roofline, Scaling, VariantProfile
from harness.words.numbers import number, percent, span

RUNTIMES = {Runtime.PYTORCH: "PyTorch", Runtime.ONNX_RUNTIME: "ONNX Runtime"}
CALLING_SHARE = 0.5
"""Share of the operators' time: with less of it in products, the rest is described too."""
FAR_BELOW = 0.25
"""Share of the roof below which products wait neither for arithmetic nor for bandwidth."""
MEMORY, COMPUTE, OVERHEAD, UNKNOWN = "memory-bound", "compute-bound", "overhead-bound", "unknown"
AROUND = (
    " Most of the time lies around them, in operators that compute little and move what they touch."
)


@dataclass(frozen=True)
class Bound:
    """What bounds a model's matrix products at one shape."""

    word: str
    sentence: str
    intensity: float | None
    """Operations a byte of all counted operators together."""
    achieved_per_s: float | None
    """Operations a second over the time of the counted operators."""
    roof_per_s: float | None
    ridge: float | None
    """Operations per byte at which the two roofs meet."""
    counted_share: float
    """Share of the operators' time that the counted products take."""


def datatype_of(profile: OperatorProfile) -> str:
    """What most of the counted operations are made in."""
    by_type: dict[str, float] = {}
    for cost in profile.operators:
        if cost.operations:
            by_type[cost.datatype] = by_type.get(cost.datatype, 0.0) + cost.operations
    return max(by_type, key=lambda name: by_type[name], default="fp32")


def bandwidth(profile: OperatorProfile, roofline: Roofline) -> tuple[float, str]:
    """Bytes a second that the products can hope for, and where from.

    Weights and activations of one product that fit the last-level cache come from there.
    """
    largest = max((c.moved_bytes / c.calls for c in profile.operators
                   if c.operations and c.moved_bytes), default=0.0)  # fmt: skip
    if largest <= 16 * roofline.cache_array_bytes:
        return roofline.cache_bytes_per_s, "the last-level cache"
    return roofline.memory_bytes_per_s, "memory"


def bound_of(profile: OperatorProfile, roofline: Roofline) -> Bound:
    """Say what bounds a model at one shape, from its counted operators taken together.

    The roof is that of each product's own datatype: the operations of all over the time that they
    would take, each at its own roof.
    """
    counted = [c for c in profile.operators if c.operations and c.moved_bytes]
    total_us = profile.operator_us
    counted_us = sum(cost.time_us for cost in counted)
    share = counted_us / total_us if total_us else 0.0
    datatype = datatype_of(profile)
    peak = roofline.peak(profile.runtime, datatype)
    head = f"{RUNTIMES[profile.runtime]}, batch {profile.batch_size}"
    if not counted or peak is None or not counted_us:
        text = f"{head}: no matrix product was counted, so nothing can be said of its bounds."
        return Bound(UNKNOWN, text, None, None, None, None, share)
    operations = sum(cost.operations or 0.0 for cost in counted)
    intensity = operations / sum(cost.moved_bytes or 0.0 for cost in counted)
    bytes_per_s, place = bandwidth(profile, roofline)
    ridge = peak.operations_per_s / bytes_per_s
    achieved = operations / counted_us * 1e6
    roof = operations / sum(_ideal_s(cost, profile, roofline, bytes_per_s) for cost in counted)
    side = "above" if intensity >= ridge else "below"
    word, why = _word(reached=achieved / roof, above=intensity >= ridge)
    shares = (
        f"Its matrix products ({datatype}) take {percent(share)} of the operators' time; at "
        f"{number(intensity)} operations per byte they lie {side} the ridge of {number(ridge)} "
        f"(bandwidth of {place}) and reach {percent(achieved / roof)} of their roof: {why}."
    )
    around = "" if share >= CALLING_SHARE else AROUND
    text = f"{head}: {word}. {shares}{around}"
    return Bound(word, text, intensity, achieved, roof, ridge, share)


def _ideal_s(
    cost: OperatorCost, profile: OperatorProfile, roofline: Roofline, bytes_per_s: float
) -> float:
    """The least time that the machine could take for an operator, per call of the model."""
    moving_s = (cost.moved_bytes or 0.0) / bytes_per_s
    peak = roofline.peak(profile.runtime, cost.datatype)
    return max(moving_s, (cost.operations or 0.0) / peak.operations_per_s if peak else 0.0)


def _word(*, reached: float, above: bool) -> tuple[str, str]:
    if reached < FAR_BELOW:
        return OVERHEAD, "too small a shape to fill the machine, starting them is what it costs"
    if above:
        return COMPUTE, "more arithmetic per second would speed them up"
    return MEMORY, "more bandwidth, or fewer bytes, would speed them up"


def scaling_sentence(scaling: Scaling) -> str:
    """Where throughput levels off, and what that makes an hour."""
    runtime = RUNTIMES[scaling.runtime]
    best = scaling.best
    jobs = f"at best {number(best.per_s.value * 3600)} samples per hour (batch {best.batch_size})"
    if scaling.knee is None:
        return f"{runtime}: doubling the batch went on paying; {scaling.ended}; {jobs}."
    after = next(s for s in scaling.steps if s.batch_size == 2 * scaling.knee)
    at_knee = next(s for s in scaling.steps if s.batch_size == scaling.knee)
    return (
        f"{runtime}: returns diminish at batch {scaling.knee}: doubling it brings "
        f"{percent(after.growth)} ({span(percent(after.growth_low), percent(after.growth_high))}), "
        f"under the {percent(scaling.least_growth)} asked; {scaling.ended}. There it does "
        f"{number(at_knee.per_s.value * 3600)} samples per hour; {jobs}."
    )


def peak_caveat(profile: VariantProfile) -> str:
    """What the peak of a datatype depends on."""
    has = ", ".join(profile.instructions)
    instructions = (
        f"This processor has {has} for them." if has
        else "This processor has none of VNNI and AMX, which such products gain most from."
    )  # fmt: skip
    return (
        "The peak differs by datatype and was measured for each: products of 8-bit integers in "
        f"ONNX Runtime, single precision in both. {instructions} Products of an int8 model that "
        "stay in single precision (attention's) stand under the roof of single precision. fp16 has "
        "no peak of its own here: ONNX Runtime computes it in single precision on a CPU."
    )


def by_kind(profile: OperatorProfile) -> list[tuple[str, float]]:
    """Operator types with their time in microseconds, heaviest first."""
    times: dict[str, float] = {}
    for cost in profile.operators:
        times[cost.kind] = times.get(cost.kind, 0.0) + cost.time_us
    return sorted(times.items(), key=lambda pair: -pair[1])


def heaviest(profile: OperatorProfile, most: int) -> tuple[OperatorCost, ...]:
    """Operators that take the longest."""
    return profile.operators[:most]
