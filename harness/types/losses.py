"""Where quality was lost, and how a variant stands to its teacher sample by sample: the terms.

Like `harness.types`: frozen, standard library only, units in the field names. A *loss* is positive
where quality got worse, whatever the metric's own direction: in accuracy as a share, for a
language model in bits per byte.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; None where the data is too little for one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PairedMeasure:
    """One number about a variant beside its teacher on the same samples, or about its calibration.

    The families of `harness.tasks` say what each measure is.
    """

    variant: str
    family: str
    measure: str
    value: float
    low: float | None
    high: float | None
    samples: int
    """Samples that it rests on: those that one of the two did not answer are left out, except where
    the measure counts them as wrong."""


@dataclass(frozen=True)
class Relabelling:
    """A variant whose outputs seem to stand for other classes than they are called by."""

    variant: str
    family: str
    called: tuple[str, ...]
    """What the checkpoint calls its outputs, in their order."""
    means: tuple[str, ...]
    """What each seems to stand for, in the words of the family's teacher; where that is what it is
    called, as in `called`."""
    accuracy: float
    """Accuracy as served, 0 to 1."""
    mended: float
    """Accuracy if the outputs were called by what they seem to stand for, 0 to 1."""
    samples: int


@dataclass(frozen=True)
class ChainLink:
    """One step on the way from the teacher's checkpoint to what is served."""

    step: str
    """teacher, distillation (or training, of a control), export, quantisation, serving,
    batching; `export+quantisation` where the single-precision artefact is not there."""
    quality: float
    """Quality after the step, in the chain's metric."""
    loss: Estimate
    """Loss against the step before; 0 for the first."""
    changed: int
    """Samples whose correctness changed (a language model: whose likelihood, visibly; a regression:
    whose error, by more than rounding; a sentence encoder: texts whose vector)."""
    cosine: float | None = None
    """Mean cosine of a sentence encoder's vectors with those of the step before; None where the two
    have other dimensions."""


@dataclass(frozen=True)
class LossChain:
    """A variant's loss, split; the steps' losses add up to `total` exactly."""

    metric: str
    """Name of the metric in `harness.metrics`."""
    samples: int
    """How many samples every step was asked."""
    left_out: int
    """Windows of a language model left out because a step gave no answer; a classifier's rows count
    as wrong."""
    links: tuple[ChainLink, ...]
    total: Estimate
    """Loss from the first link of the chain to the last."""


@dataclass(frozen=True)
class SliceLoss:
    """A variant against its teacher on one slice of the samples."""

    slicing: str
    """What the samples were divided by: class, length, teacher confidence, or a column."""
    name: str
    samples: int
    teacher: float
    variant: float
    """The variant's value in the metric, as `teacher` is the teacher's."""
    loss: Estimate
    excess: float | None
    """Loss here less the loss elsewhere; None where too few samples are here or elsewhere."""
    p_value: float | None
    """Probability under the hypothesis that the loss here is no greater than elsewhere,
    corrected by Holm's method over all slices of the variant; None where the slice is too small
    to be tested."""
    training_samples: int | None
    """Samples of the slice in the training data; None where that is not known."""


@dataclass(frozen=True)
class ConfusionShift:
    """Samples of one class that are taken for another more, or less, often than before."""

    label: str
    taken_for: str
    teacher: int
    variant: int


@dataclass(frozen=True)
class WorstExample:
    """A sample on which the variant falls far behind its teacher."""

    row: int
    """Place of the sample in the test split, counted from 0."""
    text: str
    """The text, shortened."""
    label: str
    """The right label; empty for a language model, as are the next two."""
    teacher_says: str
    variant_says: str
    loss: float
    """How much less probable the right answer is: natural logarithm, a language model's a token."""


@dataclass(frozen=True)
class LossEntry:
    """All that is known of where one variant's quality went."""

    variant: str
    sha256: str
    family: str
    chain: LossChain | None
    slices: tuple[SliceLoss, ...] = ()
    shifts: tuple[ConfusionShift, ...] = ()
    classes: tuple[str, ...] = ()
    """Classes of `confusion_change`'s rows and columns; empty where there are too many to draw."""
    confusion_change: tuple[tuple[int, ...], ...] = ()
    """Samples by class (rows) and answer (columns): the variant's less the teacher's."""
    examples: tuple[WorstExample, ...] = ()
    problem: str = ""
    """Why the loss could not be split into steps; empty where `chain` is set."""
    not_compared: str = ""
    """Why the variant lacks a measure beside its teacher, where it lacks one."""
    teacher_sha256: str = ""
    """Digest of the teacher it was compared with: beside another it is traced again."""
    metric: str = ""
    """Metric of chain and slices; empty in runs from before it was kept."""
    examples_in: str = ""
    """What the examples' losses are counted in, where that is not how probable the right answer
    is."""
