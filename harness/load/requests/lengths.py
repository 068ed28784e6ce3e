"""Lengths of prompts and answers in tokens: drawn from a distribution, or as a trace has them.

    128                    always so many
    uniform:64..256        each equally likely
    normal:128,32          mean and standard deviation
    lognormal:128,0.5      median, and the standard deviation of the logarithm: a long tail
    16:1,128:3             lengths by weight

Drawn lengths are whole and at least 1. Traces of lengths are Azure's LLM inference traces (CSV with
`ContextTokens` and `GeneratedTokens`) and Mooncake's (JSON lines with `input_length`,
`output_length` and `hash_ids`, one for each 512 tokens of the prompt: equal ids are equal text).

Azure: https://github.com/Azure/AzurePublicDataset
Mooncake: https://github.com/kvcache-ai/Mooncake
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, UsageError
from harness.types.workloads import parse_mix
from harness.words.numbers import count

MOST_TOKENS = 1_000_000
"""Most tokens of one prompt or answer: no model reads more."""
BLOCK_TOKENS = 512
"""Tokens that one `hash_id` of Mooncake's traces stands for."""
_FORMS = "write 128, uniform:64..256, normal:MEAN,SD, lognormal:MEDIAN,SIGMA or 16:1,128:3"
_NUMBER = r"(\d+(?:\.\d+)?)"
_UNIFORM = re.compile(r"uniform:(\d+)\.\.(\d+)")
_SPREAD = re.compile(rf"(normal|lognormal):{_NUMBER},{_NUMBER}")


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths in tokens."""

    text: str
    """The distribution as it was written."""
    kind: str
    """fixed, uniform, normal, lognormal or mix."""
    parameters: tuple[float, ...]
    """The distribution's parameters; of a mix the lengths, then their weights."""

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """(count,) lengths, each at least 1."""
        first, *rest = self.parameters
        if self.kind == "fixed":
            drawn = np.full(count, first)
        elif self.kind == "uniform":
            drawn = generator.integers(int(first), int(rest[0]), size=count, endpoint=True)
        elif self.kind == "normal":
            drawn = generator.normal(first, rest[0], count)
        elif self.kind == "lognormal":
            drawn = generator.lognormal(np.log(first), rest[0], count)
        else:
            half = len(self.parameters) // 2
            weights = np.array(self.parameters[half:])
            sizes = np.array(self.parameters[:half])
            drawn = generator.choice(sizes, count, p=weights / weights.sum())
        lengths: NDArray[np.int64] = np.clip(np.rint(drawn), 1, MOST_TOKENS).astype(np.int64)
        return lengths


def parse_lengths(text: str) -> Lengths:
    """Read a distribution; the forms stand at the top of this module.

    Raises:
        UsageError: not of these forms, a length below 1, or more than `MOST_TOKENS`.
    """
    found = _lengths(text.strip())
    if found is None:
        raise UsageError(f"'{text}' is no distribution of lengths", next_step=_FORMS)
    sizes = found.parameters
    if found.kind in {"normal", "lognormal"}:
        sizes = sizes[:1]
    elif found.kind == "mix":
        sizes = sizes[: len(sizes) // 2]
    if min(sizes) < 1 or max(sizes) > MOST_TOKENS:
        raise UsageError(f"'{text}': lengths are from 1 to {count(MOST_TOKENS)} tokens")
    if found.kind == "uniform" and sizes[0] > sizes[1]:
        raise UsageError(f"'{text}': the shortest length comes first", next_step=_FORMS)
    return found


def _lengths(text: str) -> Lengths | None:
    if text.isdecimal():
        return Lengths(text, "fixed", (float(text),))
    if (match := _UNIFORM.fullmatch(text)) is not None:
        return Lengths(text, "uniform", (float(match[1]), float(match[2])))
    if (match := _SPREAD.fullmatch(text)) is not None:
        return Lengths(text, match[1], (float(match[2]), float(match[3])))
    if re.fullmatch(r"\d+:[\d.]+(,\d+:[\d.]+)*", text):
        mix = parse_mix(text)
        return Lengths(text, "mix", (*(float(s) for s, _ in mix), *(w for _, w in mix)))
    return None


@dataclass(frozen=True)
class TracedLengths:
    """One request of a trace."""

    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """Ids of the prompt's blocks of `BLOCK_TOKENS` tokens; empty where the trace has none."""


def read_length_trace(path: Path, *, most: int) -> list[TracedLengths]:
    """The lengths of a trace's first requests, in its order.

    Args:
        path: the file.
        most: how many are read.

    Raises:
        DataError: no such file, or the first line that has no lengths.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            rows = (
                _of_mooncake(path, file) if head.lstrip().startswith("{") else _of_azure(path, file)
            )
            found = [row for _, row in zip(range(most), rows, strict=False)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no trace can be read: {error}") from error
    if not found:
        raise DataError(f"{path}: the trace has no requests")
    return found


def _of_azure(path: Path, lines: Iterator[str]) -> Iterator[TracedLengths]:
    reader = csv.DictReader(lines)
    names = {name.strip().lower(): name for name in reader.fieldnames or ()}
    missing = [one for one in ("contexttokens", "generatedtokens") if one not in names]
    if missing:
        raise DataError(
            f"{path}: no trace of lengths: its columns are {', '.join(names) or 'none'}",
            next_step="name a CSV with ContextTokens and GeneratedTokens (Azure), or JSON lines "
            "with input_length and output_length (Mooncake)",
        )
    for row in reader:
        cells = [row[names[one]] for one in ("contexttokens", "generatedtokens")]
        yield TracedLengths(*_whole(path, reader.line_num, cells))


def _of_mooncake(path: Path, lines: Iterator[str]) -> Iterator[TracedLengths]:
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            cells = [row["input_length"], row["output_length"]]
            blocks = tuple(int(one) for one in row.get("hash_ids", ()))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {at}: is not a JSON object with input_length and output_length"
            ) from error
        yield TracedLengths(*_whole(path, at, cells), blocks)


def _whole(path: Path, at: int, cells: Sequence[object]) -> tuple[int, int]:
    """Both lengths; an answer that generated nothing is one of one token."""
    try:
        asked, answered = (int(str(cell)) for cell in cells)
    except ValueError as error:
        raise DataError(f"{path}, line {at}: a length that is no whole number: {error}") from error
    if not all(0 <= one <= MOST_TOKENS for one in (asked, answered)):
        raise DataError(f"{path}, line {at}: a length is from 0 to {count(MOST_TOKENS)} tokens")
    return max(1, asked), max(1, answered)
