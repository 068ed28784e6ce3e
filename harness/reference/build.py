"""Makes the reference models that are missing, once per machine, and says where they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import CheckpointError, MissingExtraError, StorageError
from harness.reference.corpus import BASELINE_FILE, Split, package_folder, source_digest, split_file
from harness.reference.processes import Advanced, Job, run_jobs
from harness.reference.recipes import DATA_SETS, FAMILIES, RECIPE_VERSION, RECIPES, TOPICS
from harness.reference.units import (
    BuildUnit,
    all_units,
    data_name,
    is_complete,
    order_missing,
    sweep,
)
from harness.system.storage import cache_root
from harness.types import Progress

STAGE = "reference models"
_NEEDED = ("torch", "transformers", "tokenizers", "sklearn", "safetensors")
_DIGEST_CHARACTERS = 12
_LOCK_POLL_S = 1.0


@dataclass(frozen=True)
class ReferenceBundle:
    """The embedded default on disk."""

    checkpoints: Mapping[str, Path]
    """Folder by model name, for the names that were asked for."""
    data: Mapping[str, Path]
    """`topics`, `prose` -> JSON lines of the test split: `text`, and for topics `label`.
    `continuations` -> `prompt` and `reference`."""
    baseline_predictions: Path
    """JSON list of the class names that TF-IDF with logistic regression gives the topics' test
    split, row by row."""
    training_data: Mapping[str, Path]
    """By model name, JSON lines of the training split."""


def build_reference(
    names: Collection[str],
    *,
    seed: int,
    cache_dir: Path | None = None,
    progress: Callable[[Progress], None],
) -> ReferenceBundle:
    """Trains what of `names` is not in the cache yet; the same seed gives the same weights.

    Each model has its own folder, put in place when it is whole: what an interruption leaves
    is kept and not made again. Two processes take turns.

    Args:
        names: Keys of `RECIPES`; a student brings its teacher along.
        seed: Of everything random: sampling, initial weights, order of the batches.
        cache_dir: Instead of the user's cache folder.
        progress: Hears of the work over all that is to be made, in seconds of one core.

    Raises:
        CheckpointError: a name that is none.
        MissingExtraError: the `[export]` extra is not installed.
        DataError: torch came without its source text.
        StorageError: the cache cannot be written.
    """
    _check(names)
    root = (cache_dir or cache_root()) / "reference" / _digest(seed)
    wanted = [*map(data_name, DATA_SETS), *names]
    units = all_units(root, RECIPES.values(), seed=seed)

    def missing() -> list[BuildUnit]:
        return order_missing(units, wanted, lambda name: is_complete(root / name))

    if missing():
        with _Turn(root, progress):
            _make(missing(), root, seed, progress)
    test, training = (
        {name: split_file(root / data_name(name), split) for name in DATA_SETS}
        for split in (Split.TEST, Split.TRAIN)
    )
    return ReferenceBundle(
        checkpoints={name: root / name for name in names},
        data=test,
        training_data=training,
        baseline_predictions=root / data_name(TOPICS) / BASELINE_FILE,
    )


def _check(names: Collection[str]) -> None:
    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        raise CheckpointError(
            f"no reference model is called {', '.join(unknown)}",
            next_step=f"take one of: {', '.join(RECIPES)}",
        )
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtraError(package, "export")


def _digest(seed: int) -> str:
    """Digest of all that decides the weights: code, recipes, text, seed and torch's release."""
    parts = (
        RECIPE_VERSION,
        sorted(repr(recipe.deciding_fields()) for recipe in RECIPES.values()),
        source_digest(package_folder()),
        seed,
        version("torch"),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _make(
    missing: Sequence[BuildUnit], root: Path, seed: int, tell: Callable[[Progress], None]
) -> None:
    """Makes the units, the families side by side, and tells the progress over all of them."""
    jobs = [
        Job(root, seed, units, tuple(RECIPES.values()))
        for family in FAMILIES
        if (units := tuple(unit.name for unit in missing if unit.family == family))
    ]
    families = {unit.name: unit.family for unit in missing}
    total_s = sum(unit.cost_ms for unit in missing) / 1e3
    done_s = 0.0
    at_work: dict[str, str] = {}

    def hear(advanced: Advanced) -> None:
        nonlocal done_s
        done_s = min(total_s, done_s + advanced.cost_ms / 1e3)
        at_work[families[advanced.unit]] = advanced.unit
        tell(Progress(STAGE, done_s, total_s, ", ".join(at_work.values())))

    sweep(root)
    run_jobs(jobs, hear)


class _Turn:
    """One process trains at a time; the others wait and then find the work done."""

    def __init__(self, root: Path, progress: Callable[[Progress], None]) -> None:
        self._root = root
        self._progress = progress
        self._lock = FileLock(root.with_name(f"{root.name}.lock"))

    def __enter__(self) -> None:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise StorageError(
                f"{self._root} cannot be written: {error.strerror or error}",
                next_step=f"set HARNESS_CACHE_DIR to a folder of yours (user {os.getuid()})",
            ) from error

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _acquire(self) -> None:
        while True:
            try:
                self._lock.acquire(timeout=_LOCK_POLL_S)
            except Timeout:
                self._progress(Progress(STAGE, 0.0, 1.0, "another harness is making them"))
            else:
                return
