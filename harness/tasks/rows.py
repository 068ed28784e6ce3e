"""Rows of text from where a study says they are: CSV, JSON lines, CoNLL, or the hub.

Values stay as they were written; every complaint names the line.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import DataError
from harness.system.libraries import require_extra
from harness.tasks.section import ConllData, CsvData, HubData, JsonLinesData, ReferenceData

_SHOWN = 8
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_LINES = "JSON lines hold one JSON object per line"
_ARRAY = "JSON lines hold one JSON object per line; an array becomes them by: jq -c '.[]' FILE"
_CSV_FAULTS = {
    "end of data": "a quote that is opened in this row is never closed",
    "expected after": "a field goes on behind its closing quote: within a field that begins with "
    'a quote each further one is written twice, "", and not behind a backslash',
}
"""What Python's csv module says of a row (in part), and what is wrong with it."""


@dataclass(frozen=True)
class DataTable:
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
    data: CsvData | JsonLinesData | ConllData | HubData | ReferenceData, data_file: Path | None
) -> DataTable:
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
    elif isinstance(data, ConllData):
        table = _from_conll(data)
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
    if len(problems) == 1:
        raise DataError(f"{source}: {problems[0]}", next_step=next_step)
    shown = [f"  - {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  - and {len(problems) - _SHOWN} more")
    raise DataError("\n".join([f"{source}: {len(problems)} problems", *shown]), next_step=next_step)


def _from_csv(path: Path) -> DataTable:
    # The csv module and not pandas: it knows line numbers, guesses no types, and refuses short
    # rows instead of filling them.
    text = read_text(path)
    reader = csv.reader(_lines(text), strict=True)
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    problems: list[str] = []
    header: list[str] = []
    line = 1
    try:
        with _fields_of_any_size():
            header = next(reader, [])
            _check_separator(path, header)
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
        told = (why for said, why in _CSV_FAULTS.items() if said in str(error))
        problems.append(f"line {line}: {next(told, error)}")
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if header.count("") > 1:
        problems.append(
            f"line 1: {header.count('')} columns have no name (are there commas too many at the "
            "end of the lines?)"
        )
    if repeated:
        problems.append(f"line 1: repeated columns: {', '.join(repeated)}")
    refuse(str(path), problems)
    return DataTable(str(path), tuple(header), rows, lines)


_TAGGED_WORD = re.compile(r"-DOCSTART-|\S+([ \t]+\S+)*[ \t]+(O|[BIESLU]-\S+)\s*$")
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars"}


def begins_as_conll(start: str) -> bool:
    """Whether a text begins with a word and its tags, below remarks and empty lines."""
    lines = (line.strip() for line in start.splitlines())
    first = next((line for line in lines if line and not _is_remark(line)), "")
    return "," not in first and _TAGGED_WORD.match(first) is not None


def _check_separator(path: Path, header: Sequence[str]) -> None:
    """Raises DataError for a header without a comma that has another separator in it."""
    if len(header) != 1:
        return
    if _TAGGED_WORD.match(header[0]):
        raise DataError(
            f"{path}: line 1: a word with its tags, and not the names of a CSV's columns",
            next_step="say `source: conll` of a file with a word a line",
        )
    for sign, called in _SEPARATORS.items():
        if sign in header[0]:
            raise DataError(
                f"{path}: line 1: the columns are separated by {called}, and a CSV's by commas",
                next_step='convert it: python -c "import pandas as p; '
                f"p.read_csv('{path.name}', sep={sign!r}, dtype=str, keep_default_na=False)"
                f".to_csv('{path.stem}-commas.csv', index=False)\"",
            )


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends, one at a time: `io.StringIO` takes four bytes a character for them."""
    return (match.group() for match in _LINE.finditer(text))


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """A long document is data: without this the csv module stops at 131,072 characters."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _from_json_lines(path: Path) -> DataTable:
    rows: list[dict[str, object]] = []
    lines: list[int] = []
    problems: list[str] = []
    text = read_text(path)
    for line, row in _json_objects(text):
        if isinstance(row, str):
            problems.append(f"line {line}: {row}")
        else:
            rows.append(row)
            lines.append(line)
    one_array = text.lstrip().startswith("[")
    refuse(str(path), problems, next_step=_ARRAY if one_array else _LINES)
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return DataTable(str(path), columns, rows, lines)


def _json_objects(text: str) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Line number with the object, or with what is wrong there."""
    # split, not splitlines: U+2028 and its like are allowed inside JSON strings.
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            yield line, f"not JSON: {error.msg} at column {error.colno}"
        except (ValueError, RecursionError) as error:
            yield line, str(error)
        else:
            yield line, row if isinstance(row, dict) else "not a JSON object"


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose names are all different: of two values json would keep the last.

    Raises:
        ValueError: with the names that are there twice.
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"repeated names: {', '.join(repeated)}")
    return row


_BLANKS = " \t\r\f\v"


def _from_conll(data: ConllData) -> DataTable:
    """A row a sentence; each column holds a list with an entry a word."""
    text = read_text(data.path)
    names = data.columns
    sentences: list[list[list[str]]] = []
    lines: list[int] = []
    problems: list[str] = []
    between = True
    for line, content in enumerate(text.split("\n"), 1):
        # Not at a no-break space and its like: that is part of a word (10\u00a0000).
        stripped = content.strip(_BLANKS)
        if not content.strip() or stripped.startswith("-DOCSTART-") or (
            between and _is_remark(stripped)
        ):  # fmt: skip
            between = True
            continue
        tabs = "\t" in stripped
        values = [one.strip(_BLANKS) for one in stripped.split("\t" if tabs else " ")]
        if not tabs:
            values = [one for one in values if one]
        if names is None:
            names = ["tokens", *(f"column_{n}" for n in range(2, len(values))), "ner_tags"]
        if len(values) != len(names) or len(values) == 1:
            problems.append(f"line {line}: {len(values)} columns where there are {len(names)}")
            continue
        if between:
            sentences.append([])
            lines.append(line)
            between = False
        sentences[-1].append(values)
    refuse(
        str(data.path),
        problems,
        next_step="each line holds a word and its tags, parted by white space, and an empty line "
        "ends a sentence; 'columns' names them",
    )
    columns = tuple(names or ("tokens", "ner_tags"))
    rows = [
        dict(zip(columns, map(list, zip(*words, strict=True)), strict=True)) for words in sentences
    ]
    return DataTable(str(data.path), columns, rows, lines)


def _is_remark(line: str) -> bool:
    """What stands above a sentence in CoNLL-U and its like: `# text = ...`, `# id 7`."""
    return line.startswith("# ") and ("=" in line or line.split()[1:2] == ["id"])


def _from_hub(data: HubData) -> DataTable:
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
    # A list of class indexes (a tag a word) declares its names one level down.
    features = {
        name: getattr(feature, "feature", feature) for name, feature in split.features.items()
    }
    declared = {
        name: tuple(feature.names)
        for name, feature in features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return DataTable(
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


_GZIP = b"\x1f\x8b"
_OTHER_KINDS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive (or a spreadsheet)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"SQLite format 3": "an SQLite database",
}
"""First bytes of what is often taken for text."""
_BYTE_ORDERS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_LOOKED_AT = 400
"""Bytes at the start of a file that are looked at."""
_MANY_ZEROS = 0.25
"""Share of zeros among them from which it is UTF-16: read as UTF-8 it has a zero after each
letter."""


def read_text(path: Path) -> str:
    """The whole of a file in UTF-8, with or without a byte-order mark; one made by gzip is opened.

    Raises:
        DataError: it cannot be read, or is something else: with what, and the line.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: a gzip file that is cut short or broken: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    _check_kind(path, data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x})",
            next_step=f"convert it, for example: iconv -f latin1 -t utf-8 {path.name}",
        ) from error


def _check_kind(path: Path, data: bytes) -> None:
    for first, kind in _OTHER_KINDS.items():
        if data.startswith(first):
            raise DataError(
                f"{path}: is {kind}, not text",
                next_step="save the rows as CSV or as JSON lines (of pandas: "
                "frame.to_json(FILE, orient='records', lines=True)); gzip is read directly",
            )
    start = data[:_LOOKED_AT]
    encoding = next((name for mark, name in _BYTE_ORDERS.items() if data.startswith(mark)), "")
    if not encoding and start.count(0) > _MANY_ZEROS * len(start):
        encoding = "utf-16le" if start[1:2] == b"\x00" else "utf-16be"
    if encoding:
        raise DataError(
            f"{path}, line 1: {encoding.upper()}, not UTF-8",
            next_step=f"convert it: iconv -f {encoding} -t utf-8 {path.name}",
        )
