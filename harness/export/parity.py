"""The gate every artefact passes: it answers as its checkpoint and as the bare library do.

What the gate is for: an export that dropped a mask, swapped an input, mixed up weights, or
overflowed. How much quality a precision costs is *not* judged here but through the endpoint, on the
whole test split, where it has a confidence interval.

fp32 and fp16 compute the same function, so each value is compared: the difference may be at most
1e-4 (2e-2 for fp16, which has three decimals), relative to the value where it is above 1; and every
prediction whose margin is wider than the differences allowed must be the same.

int8 is another function, near the first, and its largest single difference says little: it grows
with the number of values compared. So two things are asked. The root mean square of the difference
is at most a quarter of the spread of the checkpoint's own values (a signal-to-noise ratio of 12 dB;
sound dynamic quantisation gives 20 dB or more, a broken scale or a saturated matrix falls below 0).
And of the predictions that the checkpoint makes with a margin above that quarter, nine in ten are
kept; narrower ones may fall either way without the quantisation being wrong.

The exported graph compared with the bare library, row by row: padded, and in batches, as served.
Single precision on both sides, so the differences allowed are of rounding: 1e-3, relative to the
row's largest value where that is above 1; and, for models whose answers hardly differ from text to
text, a fiftieth of how much they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import ParityError
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import AnyFamily
from harness.tasks.parity import Inputs, Probe
from harness.types import Precision
from harness.words.numbers import asked, asked_percent, number, percent

if TYPE_CHECKING:
    from harness.tasks.graphs import Graph


class Executor(Protocol):
    """An opened artefact that answers batches."""

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> Sequence[NDArray[Any]]:
        """Answer one batch.

        Args:
            inputs: (batch, sequence) by input name.

        Returns:
            Every output, in the artefact's own order.
        """
        ...


class OnnxExecutor:
    """A graph on ONNX Runtime's CPU provider."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: its warnings are about speed
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> Sequence[NDArray[Any]]:
        """Answer one batch."""
        outputs: Sequence[NDArray[Any]] = self._session.run(None, dict(inputs))
        return outputs


@dataclass(frozen=True)
class Tolerance:
    """What a precision may differ by; None is not asked."""

    difference: float | None
    """Largest absolute difference, times the value where that is above 1."""
    relative_rms: float | None
    """Root mean square of the difference over that of the checkpoint's centred values."""
    agreement: float
    """Smallest share of clear predictions kept."""


TOLERANCES: Mapping[Precision, Tolerance] = {
    Precision.FP32: Tolerance(difference=1e-4, relative_rms=None, agreement=1.0),
    Precision.FP16: Tolerance(difference=2e-2, relative_rms=None, agreement=1.0),
    Precision.INT8: Tolerance(difference=None, relative_rms=0.25, agreement=0.9),
}


@dataclass(frozen=True)
class Parity:
    """How far an artefact is from its checkpoint, over all probes."""

    max_difference: float
    """Largest absolute difference of the first output (of start and end logits: of both)."""
    max_scaled_difference: float
    """The largest difference, divided by the value where that is above 1."""
    relative_rms: float
    agreement: float
    """Share of the clear predictions that are the same; 1 when none is clear."""
    clear_predictions: int
    shapes: tuple[tuple[int, int], ...]
    """(batch, sequence) of the probes."""


def check_parity(
    executor: Executor,
    family: AnyFamily,
    probes: Sequence[Probe],
    precision: Precision,
    name: str,
) -> Parity:
    """Run an artefact on the probes and hold it against the checkpoint's answers.

    Args:
        executor: the opened artefact.
        family: whose outputs it has.
        probes: batches with the checkpoint's answers.
        precision: decides the tolerance.
        name: of the variant, for messages.

    Raises:
        ParityError: it answers with something that is not a number, or differs by more than its
            precision explains.
    """
    answers = [family.probe_answer(executor.run(probe.inputs), probe) for probe in probes]
    broken = [
        probe.shape
        for probe, (values, _) in zip(probes, answers, strict=True)
        if not np.isfinite(values).all()
    ]
    if broken:
        raise ParityError(
            f"{name} answers with NaN or infinity at (batch, sequence) {broken[0]}",
            next_step=_advice(precision),
        )
    parity = _measure(probes, answers, TOLERANCES[precision])
    faults = _faults(parity, TOLERANCES[precision])
    if faults:
        expected = [probe.values for probe in probes]
        if seen := family.deviation(expected, [values for values, _ in answers]):
            faults.append(seen)
        raise ParityError(
            f"{name} disagrees with its checkpoint: {'; '.join(faults)}",
            next_step=_advice(precision),
        )
    return parity


def _measure(
    probes: Sequence[Probe],
    answers: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
    tolerance: Tolerance,
) -> Parity:
    expected = np.concatenate([_centred(probe)[probe.value_counts] for probe in probes])
    values = np.concatenate([probe.values[probe.value_counts] for probe in probes])
    got = np.concatenate(
        [value[probe.value_counts] for probe, (value, _) in zip(probes, answers, strict=True)]
    )
    difference = np.abs(got - values)
    spread = float(np.sqrt(np.mean((expected - expected.mean()) ** 2)))
    clear_above = (
        2 * tolerance.difference
        if tolerance.difference
        else ((tolerance.relative_rms or 0) * spread)
    )
    same, clear = 0, 0
    for probe, (_, choices) in zip(probes, answers, strict=True):
        counts = probe.choice_counts & (probe.margins > clear_above)
        clear += int(counts.sum())
        same += int((choices == probe.choices)[counts].sum())
    return Parity(
        max_difference=float(difference.max(initial=0)),
        max_scaled_difference=float((difference / np.maximum(1, np.abs(values))).max(initial=0)),
        relative_rms=float(np.sqrt(np.mean(difference**2)) / spread) if spread else 0.0,
        agreement=same / clear if clear else 1.0,
        clear_predictions=clear,
        shapes=tuple(probe.shape for probe in probes),
    )


def _centred(probe: Probe) -> NDArray[np.floating]:
    """Logits without the offset that all classes of a row share: softmax does not see it."""
    if probe.offset_free:
        offsets: NDArray[np.float32] = probe.values.mean(-1, keepdims=True)
        return probe.values - offsets
    return probe.values


def _faults(parity: Parity, tolerance: Tolerance) -> list[str]:
    faults = []
    if tolerance.difference is not None and parity.max_scaled_difference > tolerance.difference:
        faults.append(
            f"largest difference {number(parity.max_scaled_difference)}, allowed "
            f"{asked(tolerance.difference)}"
        )
    if tolerance.relative_rms is not None and parity.relative_rms > tolerance.relative_rms:
        faults.append(
            f"relative error {number(parity.relative_rms)}, allowed {asked(tolerance.relative_rms)}"
        )
    if parity.agreement < tolerance.agreement:
        faults.append(
            f"keeps {percent(parity.agreement)} of {parity.clear_predictions} clear predictions, "
            f"required {asked_percent(tolerance.agreement)}"
        )
    return faults


def _advice(precision: Precision) -> str:
    if precision is Precision.FP32:
        return (
            "the exporter mistranslates this architecture: report it with the checkpoint's "
            "config.json"
        )
    return f"drop {precision} from this model's precisions, or serve it as fp32"


SHAPES = ((1, 2), (1, 5), (3, 17), (8, 32))
"""(batch, sequence); one batch of the longest samples follows."""
LARGEST_BATCH = 16
LARGEST_TOKENS = 2048
"""Most tokens in the largest batch: a language model's scores take tokens x vocabulary x 4
bytes."""


def sample_batch(encoded: EncodedDataset, batch: int, length: int) -> dict[str, NDArray[np.int64]]:
    """Real rows in a given shape, cut or padded; from two rows on, every second one is shortened.

    Rows are taken at even distances from the longest group, and again from the start where there
    are too few. The shortened ones make sure that padding is compared whatever the data is like.
    """
    group = encoded.groups[-1]
    rows = np.linspace(0, len(group.rows) - 1, min(batch, len(group.rows))).astype(int)
    rows = np.resize(rows, batch)
    kept = min(length, group.length)
    inputs = {}
    for name, values in group.inputs.items():
        fill = encoded.pad_token_id if name == "input_ids" else 0
        padded = np.full((batch, length), fill, dtype=np.int64)
        padded[:, :kept] = values[rows, :kept]
        padded[1::2, max(2, length * 2 // 3) :] = fill
        inputs[name] = padded
    return inputs


def make_probes(
    graph: Graph, family: AnyFamily, encoded: EncodedDataset, max_length: int
) -> tuple[Probe, ...]:
    """Ask the checkpoint itself: a batch for each of several shapes, up to the longest."""
    shapes = {(batch, min(length, max_length)) for batch, length in SHAPES}
    shapes.add((min(LARGEST_BATCH, max(2, LARGEST_TOKENS // max_length)), max_length))
    return tuple(_probe(graph, family, sample_batch(encoded, *shape)) for shape in sorted(shapes))


def _probe(graph: Graph, family: AnyFamily, inputs: Inputs) -> Probe:
    import torch

    tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
    with torch.inference_mode():
        scores = graph.scores(**tensors)
        outputs = graph.answer(scores, tensors["input_ids"], tensors["attention_mask"])
        return family.probe(inputs, scores, outputs)
