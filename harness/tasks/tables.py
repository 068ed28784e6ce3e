"""Rows of text from where a study says they are: CSV, JSON lines, or the Hugging Face hub.

Values stay as they were written. Files are read strictly as UTF-8, because a replaced byte would
change what the model is asked; every complaint names the line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import DataError
from harness.study import CsvData, HubData, JsonLinesData, ReferenceData
from harness.tasks.extras import require_extra

_SHOWN = 8


@dataclass(frozen=True)
class Table:
    """Named columns of equal length, and where each row was found."""

    source: str
    """The file or data set, as messages name it."""
    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, object]]
    lines: Sequence[int] | None = None
    """Line on which each row starts; None where there are no lines (hub)."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of columns that hold class indexes by declaration (`datasets.ClassLabel`)."""

    def place(self, row: int) -> str:
        """Where a row is, in words: `line 7`, or `row 7` counted from 0."""
        return f"line {self.lines[row]}" if self.lines is not None else f"row {row}"


def read_table(
    data: CsvData | JsonLinesData | HubData | ReferenceData, data_file: Path | None
) -> Table:
    """Read the rows that a study's `data` names.

    Args:
        data: the study's section.
        data_file: where the rows of `source: reference` lie (JSON lines).

    Raises:
        DataError: the file or data set is missing, empty, or malformed.
    """
    if isinstance(data, HubData):
        table = _from_hub(data)
    elif isinstance(data, CsvData):
        table = _from_csv(data.path)
    elif isinstance(data, JsonLinesData):
        table = _from_json_lines(data.path)
    elif data_file is not None:
        table = _from_json_lines(data_file)
    else:
        raise DataError(
            f"the reference data '{data.name}' has not been made yet",
            next_step="harness demo makes it; so does harness export on the study",
        )
    if not table.rows:
        raise DataError(f"{table.source}: holds no samples")
    return table


def refuse(source: str, problems: Sequence[str], *, next_step: str = "") -> None:
    """Raise all problems of a source as one error; none, and nothing happens.

    Raises:
        DataError: with the first of them, and how many more there are.
    """
    if not problems:
        return
    shown = [f"  - {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  - and {len(problems) - _SHOWN} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise DataError("\n".join([f"{source}: {count}", *shown]), next_step=next_step)


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x})",
            next_step=f"convert it, for example: iconv -f latin1 -t utf-8 {path.name}",
        ) from error


def _from_csv(path: Path) -> Table:
    # The csv module and not pandas: it knows line numbers, guesses no types, and refuses short
    # rows instead of filling them.
    text = _read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    problems: list[str] = []
    header: list[str] = []
    line = 1
    try:
        header = next(reader, [])
        line = reader.line_num + 1
        for values in reader:
            if len(values) == len(header):
                rows.append(dict(zip(header, values, strict=True)))
                lines.append(line)
            elif values:
                problems.append(
                    f"line {line}: {len(values)} fields where the header has {len(header)}"
                )
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append(f"line {line}: {error}")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        problems.append(f"line 1: repeated columns: {', '.join(repeated)}")
    refuse(str(path), problems)
    return Table(str(path), tuple(header), rows, lines)


def _from_json_lines(path: Path) -> Table:
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    problems: list[str] = []
    for line, row in _json_objects(_read_text(path)):
        if isinstance(row, str):
            problems.append(f"line {line}: {row}")
        else:
            rows.append(row)
            lines.append(line)
    refuse(str(path), problems, next_step="JSON lines hold one JSON object a line")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(str(path), columns, rows, lines)


def _json_objects(text: str) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Line number with the object, or with what is wrong there."""
    # split, not splitlines: U+2028 and its like are allowed inside JSON strings.
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            yield line, f"not JSON: {error.msg} at column {error.colno}"
            continue
        yield line, row if isinstance(row, dict) else "not a JSON object"


def _from_hub(data: HubData) -> Table:
    require_extra("datasets", "huggingface_hub")
    import datasets

    source = f"data set {data.name}" + (f" ({data.config})" if data.config else "")
    _reach(data, source)
    try:
        split = datasets.load_dataset(
            data.name, data.config, split=data.split, revision=data.revision
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{source}, split {data.split}: {error}",
            next_step="check name, config and split, or save the rows as JSON lines and use "
            "'source: jsonl'",
        ) from error
    declared = {
        name: tuple(feature.names)
        for name, feature in split.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return Table(
        f"{source}, split {data.split}",
        tuple(split.column_names),
        split.to_list(),
        class_names=declared,
    )


def _reach(data: HubData, source: str) -> None:
    """Ask for one small file first: `load_dataset` retries for 20 s where nobody answers."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if Path(data.name).exists():
        return
    try:
        snapshot_download(
            data.name,
            repo_type="dataset",
            revision=data.revision,
            allow_patterns=["README.md"],
        )
    except (HFValidationError, HfHubHTTPError) as error:
        raise DataError(f"{source}: {_first_line(error)}") from error
    except LocalEntryNotFoundError as error:
        raise DataError(
            f"{source}: the Hugging Face hub cannot be reached and the local cache has no copy",
            next_step=f"where there is a network: hf download --repo-type dataset {data.name}; "
            f"or save the rows as JSON lines and use 'source: jsonl'",
        ) from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))
