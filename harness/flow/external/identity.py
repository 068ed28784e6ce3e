"""Which model an external server answers with, where its file cannot be read.

What a server says of a model does not tell its weights: two servers may have two models of one
name and one shape, and an owner may put other weights under the same version. So a model's identity
there is its address, what the server says of it (`harness.serving.external.server.identity_of`)
and what it answers *now* to a few fixed rows of the study's own data, each asked by itself.

Answers are compared, not hashed: the last digits of a right answer differ from one execution to the
next. Those that were seen before are kept beside the run and in the user's cache, so that a model
that answers as it did has the identity that it had; `--resume` and the answer cache go by it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ExchangedError, HarnessError
from harness.load.requests.answers import read_known_answers, write_known_answers
from harness.serving.external.server import REMOTE_DIGEST, ExternalModel, ExternalServer, describe
from harness.types import ModelVariant, Precision, TensorSpec
from harness.words.numbers import number

FOLDER = "probes"
"""Name of the folder of kept answers, in a run folder and in the user's cache."""
ROWS = 4
"""Rows that are asked of each group of equal length, taken from the shortest and the longest."""
ATTEMPTS = 3
"""Before answers count as other ones: rows of other clients in the same execution move an int8
model's."""
TOLERANCE = {Precision.FP32: 2e-4, Precision.FP16: 5e-3, Precision.INT8: 2e-2}
"""Largest difference of equal answers, as a share of an output's largest element."""
WITH_ACCELERATOR = 5e-2
"""Tolerance where a sweep changes who executes the graph, and with it the arithmetic."""
UNSTEADY = 5e-2
"""Tolerance beyond which a model does not repeat itself, and cannot be known by its answers."""

Tensors = Mapping[str, NDArray[Any]]
Answers = Sequence[Tensors]


@dataclass(frozen=True)
class _Known:
    """A model as it was at the start."""

    name: str
    told: str
    requests: tuple[Tensors, ...]
    answers: Answers | None
    """What it answered; None where it does not repeat itself."""
    tolerance: float


class Identities:
    """The identities of the models on one server that is already up.

    Args:
        server: is asked.
        url: of it: part of every identity.
    """

    def __init__(self, server: ExternalServer, url: str) -> None:
        self._server = server
        self._url = url.rstrip("/")
        self._known: dict[str, _Known] = {}

    def establish(
        self,
        model: ExternalModel,
        groups: Sequence[Tensors],
        precision: Precision,
        *,
        folders: Sequence[Path],
        accelerated: bool = False,
        warn: Callable[[str], None],
    ) -> str:
        """The model's identity: `remote:` and a digest, instead of its file's.

        A model that stands for several variants has one, by the rows of the first of them.

        Args:
            model: loaded there.
            groups: the study's rows, (n, ...) by input name, from the shortest on.
            precision: of the model, as the study has it.
            folders: where answers that were seen before are kept; the first that knows them says
                which model it is.
            accelerated: a serving configuration will change who executes the graph.
            warn: called with a model that cannot be known by its answers.

        Raises:
            ServerError: it does not answer.
        """
        before = self._established(model)
        if before is not None:
            return before
        requests = tuple(_fixed_rows(groups, model.inputs))
        answers, again = self._ask(model.name, requests), self._ask(model.name, requests)
        spread = difference(answers, again)
        asked = [self._url, model.identity, _digest_of(requests)]
        known: Answers | None = answers
        if spread > UNSTEADY or not any(answers):
            warn(
                f"the model '{model.name}' at {self._url} cannot be identified by its answers "
                f"({_why(answers, spread)}): nothing of it is taken from an earlier run or from "
                "the answer cache, and only its version and configuration are watched"
            )
            known, name = None, secrets.token_hex(16)
        tolerance = max(WITH_ACCELERATOR if accelerated else TOLERANCE[precision], 4 * spread)
        if known is not None:
            name = _known_as(_digest(asked), known, tolerance, folders)
        identity = REMOTE_DIGEST + _digest([*asked, name])
        self._known[identity] = _Known(model.name, model.identity, requests, known, tolerance)
        return identity

    def _established(self, model: ExternalModel) -> str | None:
        """The identity already found for another variant, if the model answers as that one did."""
        for identity, known in self._known.items():
            if (known.name, known.told) == (model.name, model.identity) and (
                known.answers is None
                or difference(known.answers, self._ask(model.name, known.requests))
                <= known.tolerance
            ):
                return identity
        return None

    def check(self, variant: ModelVariant) -> None:
        """Make sure that the server still has the model that a variant was made of.

        Raises:
            ExchangedError: it says something else of it now, or it answers otherwise.
            ServerError: it does not answer.
        """
        known = self._known.get(variant.sha256)
        if known is None:
            return
        if describe(self._server, variant.served_name).identity != known.told:
            raise self._exchanged(
                variant, "its version or its configuration is another than at the start"
            )
        if known.answers is None:
            return
        differences = []
        for _ in range(ATTEMPTS):
            now = self._ask(variant.served_name, known.requests)
            differences.append(difference(known.answers, now))
            if differences[-1] <= known.tolerance:
                return
        raise self._exchanged(
            variant,
            "its version and configuration are as they were, but it answers the same rows "
            f"otherwise than at the start (by {number(min(differences))} of the largest number in "
            f"an answer; equal models differ by {number(known.tolerance)} at most)",
        )

    def _ask(self, model: str, requests: Sequence[Tensors]) -> Answers:
        """The numbers among its outputs; integers only where there is nothing else."""
        found = []
        for request in requests:
            outputs = self._server.infer(model, request)
            real = {name: one for name, one in outputs.items() if one.dtype.kind == "f"}
            whole = {name: one for name, one in outputs.items() if one.dtype.kind in "biu"}
            found.append(real or whole)
        return found

    def _exchanged(self, variant: ModelVariant, how: str) -> ExchangedError:
        return ExchangedError(
            f"the model '{variant.served_name}' at {self._url} was replaced while it was "
            f"measured: {how}",
            next_step="continue with --resume: what was taken of the one before is taken again",
        )


def difference(one: Answers, other: Answers) -> float:
    """Largest difference of two answers to the same requests.

    Returns:
        A share of the largest element of that output; infinite where they are not of one form, or
        where numbers that are whole differ.
    """
    if len(one) != len(other):
        return np.inf
    return max((_difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)


def _difference(one: Tensors, other: Tensors) -> float:
    if one.keys() != other.keys():
        return np.inf
    largest = 0.0
    for name, before in one.items():
        largest = max(largest, _gap(before, other[name]))
    return largest


def _gap(before: NDArray[Any], now: NDArray[Any]) -> float:
    """The greatest difference in one output, as a share of its largest number."""
    if before.shape != now.shape:
        return np.inf
    if before.dtype.kind != "f":
        return 0.0 if np.array_equal(before, now) else np.inf
    before, now = before.astype(np.float64), now.astype(np.float64)
    finite = np.isfinite(before)
    if not np.array_equal(finite, np.isfinite(now)):
        return np.inf
    if not np.array_equal(before[~finite], now[~finite], equal_nan=True):
        return np.inf
    scale = np.abs(before[finite]).max(initial=np.finfo(np.float32).tiny)
    return float(np.abs(before[finite] - now[finite]).max(initial=0.0) / scale)


def _fixed_rows(groups: Sequence[Tensors], inputs: Sequence[TensorSpec]) -> Iterator[Tensors]:
    """One row each, evenly over the shortest and the longest group."""
    datatypes = {one.name: one.datatype for one in inputs}
    ends = [groups[0], *groups[1:][-1:]]
    for group in ends:
        rows = len(next(iter(group.values())))
        for row in np.unique(np.linspace(0, rows - 1, ROWS).astype(int)).tolist():
            yield {
                name: _as(values[row : row + 1], datatypes.get(name))
                for name, values in group.items()
                if not datatypes or name in datatypes
            }


def _as(values: NDArray[Any], datatype: str | None) -> NDArray[Any]:
    """In the model's whole numbers, where it has others than the data."""
    wanted = {"INT32": np.int32, "INT64": np.int64}.get(datatype or "")
    return values if wanted is None or values.dtype.kind != "i" else values.astype(wanted)


def _known_as(key: str, answers: Answers, tolerance: float, folders: Sequence[Path]) -> str:
    """What a model that answers so was called before, or is called from now on."""
    found = None
    for folder in folders:
        for file in sorted(folder.glob(f"{key}-*.npz")):
            try:
                kept = read_known_answers(file).answers
            except (HarnessError, OSError, ValueError):
                continue  # nobody's word: it is asked and kept again
            if found is None and difference(kept, answers) <= tolerance:
                found = file.stem.removeprefix(f"{key}-")
    name = found or _digest_of(answers)
    for folder in folders:
        file = folder / f"{key}-{name}.npz"
        if not file.is_file():
            write_known_answers(file, answers, tolerance)
    return name


def _why(answers: Answers, spread: float) -> str:
    if not any(answers):
        return "it answers no numbers"
    return f"equal requests are answered differently, by {number(spread)} of the largest number"


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest_of(requests: Sequence[Tensors]) -> str:
    digest = hashlib.sha256()
    for request in requests:
        for name, values in sorted(request.items()):
            digest.update(f"{name}{values.dtype}{values.shape}".encode())
            digest.update(repr(values.tolist()).encode())
    return digest.hexdigest()[:16]
