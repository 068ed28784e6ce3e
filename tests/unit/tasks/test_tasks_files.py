"""What people's files hold, and what they are: read as it is, or named with the line."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from harness.errors import DataError
from harness.study import CsvData, JsonLinesData
from harness.tasks.rows import read_table

LONG = "word " * 60_000
"""300,000 characters: over twice what the csv module takes by itself."""
ODD = ("a\x00b\x00", "\u2028 \u0085 \x0b", "two\r\nlines", '"', "\ufeffmark", "")


def csv_file(path, rows, **style):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, **style).writerows([("text", "label"), *((one, "x") for one in rows)])
    return path


def read(path, source="csv"):
    kind = CsvData if source == "csv" else JsonLinesData
    return read_table(kind.model_validate({"source": source, "path": str(path)}), None)


def texts(path, source="csv"):
    return [row["text"] for row in read(path, source).rows]


def refusal(path, source="csv"):
    with pytest.raises(DataError) as caught:
        read(path, source)
    return f"{caught.value}\n{caught.value.next_step}"


def test_a_long_document_is_data_in_either_form(tmp_path):
    before = csv.field_size_limit()
    assert texts(csv_file(tmp_path / "d.csv", [LONG, "a"])) == [LONG, "a"]
    assert csv.field_size_limit() == before
    lines = tmp_path / "d.jsonl"
    lines.write_text(json.dumps({"text": LONG, "label": "x"}))
    assert texts(lines, "jsonl") == [LONG]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_character_of_a_csv_is_kept_whatever_ends_its_lines(tmp_path, ends, mark):
    path = csv_file(tmp_path / "d.csv", ODD, lineterminator=ends, quoting=csv.QUOTE_ALL)
    path.write_bytes(mark.encode() + path.read_bytes())
    assert texts(path) == list(ODD)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_character_of_json_lines_is_kept(tmp_path, ends):
    path = tmp_path / "d.jsonl"
    lines = [json.dumps({"text": one, "label": 0}, ensure_ascii=False) for one in ODD]
    path.write_bytes(f"\ufeff{ends.join(lines)}{ends}{ends}".encode())
    assert texts(path, "jsonl") == list(ODD)


@pytest.mark.parametrize("source", ["csv", "jsonl"])
def test_gzip_is_read_as_it_is(tmp_path, source):
    path = tmp_path / f"d.{source}.gz"
    content = b"text,label\nnaive,x\n" if source == "csv" else b'{"text": "naive", "label": "x"}\n'
    path.write_bytes(gzip.compress(content))
    assert texts(path, source) == ["naive"]
    path.write_bytes(gzip.compress(content)[:-9])
    assert "cut short or broken" in refusal(path, source)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named_with_how_to_convert_it(tmp_path, encoding):
    path = tmp_path / "d.csv"
    path.write_bytes("text,label\nnaïve,x\n".encode(encoding))
    said = refusal(path)
    name = encoding.replace("-le", "le").replace("-be", "be")
    assert f"line 1: {name.upper()}, not UTF-8" in said
    assert f"iconv -f {name} -t utf-8 d.csv" in said


def test_a_table_that_is_no_text_is_named(tmp_path):
    table = pa.table({"text": ["a"], "label": ["x"]})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    pyarrow.feather.write_feather(table, tmp_path / "d.arrow")
    assert "is a Parquet file, not text" in refusal(tmp_path / "d.parquet")
    assert "is an Arrow file, not text" in refusal(tmp_path / "d.arrow", "jsonl")
    assert "orient='records', lines=True" in refusal(tmp_path / "d.parquet")


CSV_FAULTS = {
    'text,label\na,x\n"b,x\nc,x\n': "line 3: a quote that is opened in this row is never closed",
    "text,label,text\na,x,b\n": "line 1: repeated columns: text",
    "text,label,,\na,x,,\n": "line 1: 2 columns have no name (are there commas too many",
    "text,label\na,x\nb\n": "line 3: 1 fields where the header has 2",
    'text,label\na,x\n"a \\"b\\" c",x\n': "line 3: a field goes on behind its closing quote",
    "text,label\n": "holds no samples",
}


@pytest.mark.parametrize("content", CSV_FAULTS)
def test_a_csv_that_cannot_be_right_is_refused_with_the_line(tmp_path, content):
    path = tmp_path / "d.csv"
    path.write_text(content)
    assert CSV_FAULTS[content] in refusal(path)


def test_blank_lines_of_a_csv_are_no_rows_and_count_as_lines(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('text,label\n\n"a\nb",x\n\nc\n')
    assert "line 6: 1 fields" in refusal(path)


JSON_FAULTS = {
    '{"text": "a"}\n{"text": "a", "text": "b"}\n': "line 2: repeated names: text",
    '[\n{"text": "a"}\n]\n': "jq -c '.[]' FILE",
    '{"text": "a"}\n[1]\n': "line 2: not a JSON object",
    '{"text": "a"}\n{"text": "b"\n': "line 2: not JSON",
    '{"n": ' + "1" * 5000 + "}\n": "line 1: Exceeds the limit",
    '{"n": ' + "[" * 200_000 + "}\n": "line 1: ",
}


@pytest.mark.parametrize("content", JSON_FAULTS, ids=range(len(JSON_FAULTS)))
def test_json_lines_that_cannot_be_right_are_refused_with_the_line(tmp_path, content):
    path = tmp_path / "d.jsonl"
    path.write_text(content)
    assert JSON_FAULTS[content] in refusal(path, "jsonl")
