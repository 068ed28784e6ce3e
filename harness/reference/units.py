"""What is made, from what, in which order: each unit is one folder, whole or not there."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import StorageError
from harness.reference import classifier, language_model
from harness.reference.corpus import (
    package_folder,
    source_digest,
    tokenizer_folder,
    write_continuations,
    write_prose,
    write_topics,
)
from harness.reference.recipes import CONTINUATIONS, FAMILIES, PROSE, TOPICS, Recipe
from harness.reference.training import THREADS, deterministic
from harness.types import Role

if TYPE_CHECKING:
    from collections.abc import Iterator


SEAL_FILE = "complete.json"


def is_complete(folder: Path) -> bool:
    """Whether the folder is sealed and every file still has the content it was sealed with."""
    try:
        sealed = json.loads((folder / SEAL_FILE).read_text(encoding="utf-8"))["files"]
        return bool(sealed == _digests(folder))
    except (OSError, ValueError, KeyError, TypeError):
        # Missing, unreadable or damaged: for the caller it is all the same, it makes it again.
        return False


def make_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fills a new folder through `write` and puts it in the place of `folder` in one step.

    When `write` fails or is interrupted nothing is left behind, and what was there stays.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            fresh = Path(scratch) / folder.name
            fresh.mkdir()
            write(fresh)
            seal = {"files": _digests(fresh)}
            (fresh / SEAL_FILE).write_text(json.dumps(seal, indent=1), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror or error}",
            next_step="free some disk space, or set HARNESS_CACHE_DIR to a folder that has it",
        ) from error


def sweep(root: Path) -> None:
    """Removes what processes that were killed outright have left half made under `root`."""
    for leftover in root.glob(".*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 by file, relative to the folder, without the seal itself."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SEAL_FILE
    }


ANSWERS = "topics-answers"
RECORD_FILE = "training.json"
_DATA_MS: Mapping[str, float] = {TOPICS: 6000.0, PROSE: 2000.0, CONTINUATIONS: 2500.0}
_ANSWERS_MS = 9300.0
_START_MS = 2000.0
"""Embeddings and encoding before the first step of a model."""

Advance = Callable[[float], None]
"""Hears of milliseconds' worth of work done (on the recipes' scale)."""


class Write(Protocol):
    """Fills an existing, empty folder."""

    def __call__(self, folder: Path, advance: Advance) -> None:
        """Tells the work done through `advance`."""


@dataclass(frozen=True)
class BuildUnit:
    """One folder to be made: `write` fills it, telling its progress."""

    name: str
    family: str
    """Units of one family are made by one process."""
    needs: tuple[str, ...]
    cost_ms: float
    write: Write


def data_name(data_set: str) -> str:
    """Folder of a data set's splits; of a family's (`recipes.FAMILIES`) with its tokenizer."""
    return f"{data_set}-data"


def lesson_name(recipe: Recipe) -> str | None:
    """Folder of what a student learns from besides the data; None for plain training.

    Classifiers: the teacher's logits over the training split, taken once, because students pass
    over it many times. Language models: the teacher itself, because an answer a token and word of
    the vocabulary is more than one wants to keep, and students pass over the text once or twice.
    """
    if recipe.teacher is None:
        return None
    return ANSWERS if recipe.family == TOPICS else recipe.teacher


def all_units(root: Path, recipes: Iterable[Recipe], *, seed: int) -> Mapping[str, BuildUnit]:
    """Every unit by name, with its folder's inputs under `root`."""
    known = tuple(recipes)
    teachers = (r for r in known if r.family == TOPICS and r.role is Role.TEACHER)
    units = [
        *(_data_unit(family, seed) for family in FAMILIES),
        _continuations_unit(root),
        *(_model_unit(root, recipe, seed) for recipe in known),
        *(_answers_unit(root, teacher) for teacher in teachers),
    ]
    return {unit.name: unit for unit in units}


def order_missing(
    units: Mapping[str, BuildUnit], wanted: Collection[str], is_made: Callable[[str], bool]
) -> list[BuildUnit]:
    """The units that must be made for `wanted` to be there, each after what it needs.

    A unit that is made needs nothing any more: a student whose teacher was deleted stays.
    """
    ordered: dict[str, BuildUnit] = {}

    def visit(name: str) -> None:
        if name in ordered or is_made(name):
            return
        for need in units[name].needs:
            visit(need)
        ordered[name] = units[name]

    for name in wanted:
        visit(name)
    return list(ordered.values())


def _data_unit(family: str, seed: int) -> BuildUnit:
    def write(folder: Path, advance: Advance) -> None:
        if family == TOPICS:
            write_topics(folder, seed=seed)
        else:
            write_prose(folder)
        advance(_DATA_MS[family])

    return BuildUnit(data_name(family), family, (), _DATA_MS[family], write)


def _continuations_unit(root: Path) -> BuildUnit:
    prose = data_name(PROSE)

    def write(folder: Path, advance: Advance) -> None:
        write_continuations(folder, root / prose)
        advance(_DATA_MS[CONTINUATIONS])

    return BuildUnit(data_name(CONTINUATIONS), PROSE, (prose,), _DATA_MS[CONTINUATIONS], write)


def _answers_unit(root: Path, teacher: Recipe) -> BuildUnit:
    data = root / data_name(teacher.family)

    def write(folder: Path, advance: Advance) -> None:
        with deterministic(seed=0), _storage_errors():
            classifier.write_answers(
                root / teacher.name, data, folder, lambda share: advance(share * _ANSWERS_MS)
            )

    needs = (data_name(teacher.family), teacher.name)
    return BuildUnit(ANSWERS, teacher.family, needs, _ANSWERS_MS, write)


def _model_unit(root: Path, recipe: Recipe, seed: int) -> BuildUnit:
    lesson = lesson_name(recipe)
    needs = (data_name(recipe.family), *([lesson] if lesson else []))
    cost_ms = _START_MS + recipe.steps * recipe.step_ms
    write = partial(_write_model, root, recipe, seed)
    return BuildUnit(recipe.name, recipe.family, needs, cost_ms, write)


def _write_model(root: Path, recipe: Recipe, seed: int, folder: Path, advance: Advance) -> None:
    """Trains a model and saves checkpoint, tokenizer and the record of the training."""
    from transformers import AutoTokenizer

    data = root / data_name(recipe.family)
    lesson = lesson_name(recipe)
    train = (
        language_model.train_language_model
        if recipe.family == PROSE
        else classifier.train_classifier
    )
    started = time.perf_counter()
    advance(_START_MS)
    with deterministic(seed):
        model, outcome = train(
            recipe,
            data,
            root / lesson if lesson else None,
            seed=seed,
            on_step=lambda: advance(recipe.step_ms),
        )
    seconds = time.perf_counter() - started
    with _storage_errors():
        model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_folder(data)).save_pretrained(folder)
    record = _record(recipe, seed, model.num_parameters(), seconds) | dict(outcome)
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _record(recipe: Recipe, seed: int, parameters: int, seconds: float) -> dict[str, Any]:
    return {
        **recipe.deciding_fields(),
        "parameters": parameters,
        "seed": seed,
        "threads": THREADS,
        "corpus_sha256": source_digest(package_folder()),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "seconds": round(seconds, 1),
    }


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Makes the error that safetensors has for a full disk the system's own."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from error
