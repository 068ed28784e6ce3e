"""How often the intervals of quality hold the truth, on data whose truth is known.

Each row is a metric, a number of samples (`n`: rows, or documents) and a true value; `coverage` is
the share of simulated studies whose 95% interval holds the truth, `width` their median width.

    python benchmarks/interval_coverage.py --studies 1000 --json rows.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rows import Row, show

from harness.statistics.intervals import Bounds, bounds, side_by_side
from harness.statistics.metrics import (
    Statistic,
    perplexity_sums,
    regression_statistics,
    share_statistic,
)
from harness.statistics.paired import paired_loss
from harness.tasks.classification.statistics import classification_statistics

SAMPLES = (20, 100, 1000)
SHARES = (0.5, 0.9, 0.99, 1.0)
CLASSES = ((0.5, 0.5), (0.4, 0.3, 0.3), (0.7, 0.2, 0.1))
FEW_DOCUMENTS = (3, 5, 10)
NUMBERS = ("normal", "grades", "log-normal")
"""Of a regression: grades are whole numbers from 0 to 5, so that ranks are shared."""
CORRELATIONS = (0.5, 0.9, 0.98)
WINDOWS = 8
"""Of a document, on average."""
_DRAWN_FOR_TRUTH = 200_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A metric on data of one kind."""

    metric: str
    data: str
    samples: int
    truth: float
    study: Callable[[np.random.Generator, int], Bounds]
    """Draws a study of this many samples, and gives its interval."""


def main() -> int:
    """Simulate every case and show the rows."""
    options = _parse(sys.argv[1:])
    work = partial(_row, studies=options.studies)
    with ProcessPoolExecutor(options.processes) as pool:
        rows = list(pool.map(work, range(len(_cases()))))
    show(f"{options.studies:,} studies each, 95% intervals", rows, options.json)
    return 0


@cache
def _cases() -> tuple[Case, ...]:
    return (*_shares(), *_pairs(), *_f1s(), *_token_f1s(), *_perplexities(), *_regressions())


def _shares() -> Iterator[Case]:
    for share, samples in product(SHARES, SAMPLES):
        yield Case("share", f"p {share}", samples, share, partial(_share, share))


def _pairs() -> Iterator[Case]:
    for teacher, kept, samples in product(SHARES, SHARES, SAMPLES):
        data = f"teacher {teacher}, student {kept} of those, {(1 - kept) / 2:g} of the others"
        both = (teacher * kept, (1 - teacher) * (1 - kept) / 2)
        truth = sum(both) / teacher
        yield Case("share of teacher's", data, samples, truth, partial(_retained, teacher, both))
        truth = teacher - sum(both)
        yield Case("loss of a share", data, samples, truth, partial(_loss, teacher, both))


def _f1s() -> Iterator[Case]:
    for classes, share, samples in product(CLASSES, SHARES, SAMPLES):
        confusion = _confusion(np.array(classes), share)
        data = f"classes of {', '.join(map(str, classes))}, p {share}"
        yield Case("macro-F1", data, samples, _macro_f1(confusion), partial(_f1, confusion))


def _token_f1s() -> Iterator[Case]:
    for wrong, samples in product((0.5, 0.1, 0.01, 0.0), SAMPLES):
        data = f"{wrong:g} of the questions at Beta(2, 3), else 1"
        yield Case("token F1", data, samples, 1 - 0.6 * wrong, partial(_token_f1, wrong))


def _perplexities() -> Iterator[Case]:
    for spread, documents in product((0.1, 0.3, 0.6), (*FEW_DOCUMENTS, *SAMPLES)):
        data = f"documents of log sd {spread}, {WINDOWS} windows each"
        own, ratio = _perplexity_truth(spread)
        yield Case("perplexity", data, documents, own, partial(_perplexity, spread))
        yield Case("x teacher's", data, documents, ratio, partial(_perplexity_ratio, spread))


def _regressions() -> Iterator[Case]:
    for data, correlation, samples in product(NUMBERS, CORRELATIONS, (20, 100, 500)):
        own, shares = _regression_truth(data, correlation)
        described = f"{data}, correlation {correlation}"
        for metric in own:
            study = partial(_regression, data, correlation, metric, relative=False)
            yield Case(metric, described, samples, own[metric], study)
            study = partial(_regression, data, correlation, metric, relative=True)
            yield Case(f"{metric} of teacher's", described, samples, shares[metric], study)


def _row(number: int, *, studies: int) -> Row:
    case = _cases()[number]
    rng = np.random.default_rng(number)
    held, widths = 0, []
    for _ in range(studies):
        found = case.study(rng, case.samples)
        if found.low is None or found.high is None:
            continue
        held += found.low - 1e-12 <= case.truth <= found.high + 1e-12
        widths.append(found.high - found.low)
    return {
        "metric": case.metric,
        "data": case.data,
        "n": case.samples,
        "truth": case.truth,
        "coverage": held / max(1, len(widths)),
        "width": float(np.median(widths)) if widths else float("nan"),
    }


def _share(share: float, rng: np.random.Generator, samples: int) -> Bounds:
    return _of_hits(int(rng.binomial(samples, share)), samples)


@cache
def _of_hits(hits: int, samples: int) -> Bounds:
    return share_statistic("accuracy", np.arange(samples) < hits).bounds(seed=0)


def _two(
    teacher: float, both: tuple[float, float], rng: np.random.Generator, samples: int
) -> tuple[int, int, int]:
    """Rows that both have right, the teacher alone, and the student alone.

    `both`: the chance that the student is right with the teacher, and where that is wrong.
    """
    chances = np.array([both[0], teacher - both[0], both[1], 1 - teacher - both[1]])
    drawn = rng.multinomial(samples, np.maximum(chances, 0.0) / np.maximum(chances, 0.0).sum())
    return int(drawn[0]), int(drawn[1]), int(drawn[2])


def _right(counts: tuple[int, int, int], samples: int) -> tuple[NDArray[np.bool_], ...]:
    """The rows that teacher and student have right."""
    kind = np.repeat([0, 1, 2, 3], [*counts, samples - sum(counts)])
    return kind <= 1, (kind == 0) | (kind == 2)  # noqa: PLR2004  (the student alone)


@cache
def _of_pair(counts: tuple[int, int, int], samples: int) -> tuple[Bounds, Bounds]:
    right, own = _right(counts, samples)
    if not right.any():
        return Bounds(None, None, None, samples), paired_loss(right, own, seed=0)
    pair = (share_statistic("accuracy", one).sums for one in (own, right))
    return bounds(side_by_side(*pair), seed=0), paired_loss(right, own, seed=0)


def _retained(
    teacher: float, both: tuple[float, float], rng: np.random.Generator, samples: int
) -> Bounds:
    return _of_pair(_two(teacher, both, rng, samples), samples)[0]


def _loss(
    teacher: float, both: tuple[float, float], rng: np.random.Generator, samples: int
) -> Bounds:
    return _of_pair(_two(teacher, both, rng, samples), samples)[1]


def _confusion(classes: Floats, share: float) -> Floats:
    """Probability of each class and answer, (classes, classes)."""
    count = len(classes)
    wrong = (1 - share) / (count - 1)
    answers: Floats = np.where(np.eye(count, dtype=bool), share, wrong)
    return classes[:, None] * answers


def _macro_f1(confusion: Floats) -> float:
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * np.diag(confusion) / both))


def _f1(confusion: Floats, rng: np.random.Generator, samples: int) -> Bounds:
    """Of studies in which every class occurs: macro-F1 is over those that do."""
    count = len(confusion)
    while True:
        drawn = rng.choice(count**2, samples, p=confusion.ravel() / confusion.sum())
        labels, answers = np.divmod(drawn, count)
        if len(np.unique(labels)) == count:
            return classification_statistics(labels, answers)[1].bounds(seed=0)


def _token_f1(wrong: float, rng: np.random.Generator, samples: int) -> Bounds:
    scores = np.where(rng.random(samples) < wrong, rng.beta(2, 3, samples), 1.0)
    return share_statistic("f1", scores).bounds(seed=0)


def _windows(spread: float, rng: np.random.Generator, documents: int) -> tuple[Floats, ...]:
    """Documents that differ by a log-normal factor, their windows by a smaller one.

    Returns:
        Nats of the student and of the teacher, tokens, and document of each window.
    """
    sizes = 1 + rng.poisson(WINDOWS - 1, documents)
    document = np.repeat(np.arange(documents), sizes)
    hard = np.exp(spread * rng.standard_normal(documents))[document]
    hard *= np.exp(0.2 * rng.standard_normal(len(document)))
    tokens = rng.integers(64, 129, len(document)).astype(np.float64)
    teacher = 3.0 * hard * tokens
    worse = np.exp(0.1 + 0.2 * spread * rng.standard_normal(documents))[document]
    return -teacher * worse, -teacher, tokens, document.astype(np.float64)


@cache
def _perplexity_truth(spread: float) -> tuple[float, float]:
    own, teacher, tokens, _ = _windows(spread, np.random.default_rng(1), _DRAWN_FOR_TRUTH)
    value = float(np.exp(-own.sum() / tokens.sum()))
    return value, value / float(np.exp(-teacher.sum() / tokens.sum()))


def _perplexity(spread: float, rng: np.random.Generator, documents: int) -> Bounds:
    own, _, tokens, document = _windows(spread, rng, documents)
    return bounds(perplexity_sums(own, tokens), seed=0, groups=document.astype(np.int64))


def _perplexity_ratio(spread: float, rng: np.random.Generator, documents: int) -> Bounds:
    own, teacher, tokens, document = _windows(spread, rng, documents)
    pair = (perplexity_sums(one, tokens) for one in (own, teacher))
    return bounds(side_by_side(*pair), seed=0, groups=document.astype(np.int64))


def _numbers(
    data: str, correlation: float, rng: np.random.Generator, samples: int
) -> tuple[Floats, Floats, Floats]:
    """Right numbers, the teacher's, and the student's (of 0.9 of the teacher's correlation)."""
    truth, *drawn = rng.standard_normal((3, samples))
    teacher, student = (
        r * truth + np.sqrt(1 - r**2) * noise
        for r, noise in zip((correlation, 0.9 * correlation), drawn, strict=True)
    )
    if data == "log-normal":
        return np.exp(truth), np.exp(teacher), np.exp(student)
    if data == "grades":
        truth = np.clip(np.round(2.5 + 1.2 * truth), 0, 5)
    return truth, teacher, student


def _numbers_scored(
    data: str, correlation: float, rng: np.random.Generator, samples: int
) -> tuple[dict[str, Statistic], dict[str, Statistic]]:
    """The teacher's metrics, and the student's."""
    truth, *answers = _numbers(data, correlation, rng, samples)
    teacher, student = (
        {one.metric: one for one in regression_statistics(truth, said)} for said in answers
    )
    return teacher, student


@cache
def _regression_truth(data: str, correlation: float) -> tuple[dict[str, float], dict[str, float]]:
    """The teacher's metrics, and the student's as a share of them."""
    rng = np.random.default_rng(1)
    teacher, student = _numbers_scored(data, correlation, rng, 5 * _DRAWN_FOR_TRUTH)
    own = {name: one.value for name, one in teacher.items()}
    return own, {name: student[name].value / value for name, value in own.items()}


def _regression(
    data: str,
    correlation: float,
    metric: str,
    rng: np.random.Generator,
    samples: int,
    *,
    relative: bool,
) -> Bounds:
    teacher, student = _numbers_scored(data, correlation, rng, samples)
    if not relative:
        return teacher[metric].bounds(seed=0)
    return bounds(side_by_side(student[metric].sums, teacher[metric].sums), seed=0)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
