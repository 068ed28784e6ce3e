"""The report in Markdown."""

import ast
import re
from pathlib import Path

import pytest

from harness.report import tables
from harness.report.markdown import table_blocks
from harness.report.tables.model import Cell, Column, Table, words


def test_a_note_speaks_of_brackets_where_the_page_has_small_type():
    table = Table(
        caption="Quality",
        columns=(Column("Accuracy"),),
        rows=((words("90.0%", detail="86.0\u201393.2%"),),),
        note="In small type: 95% intervals.",
    )
    header, note = table_blocks(table)
    assert "90.0% (86.0\u201393.2%)" in header
    assert note == "In brackets: 95% intervals."


def blocks(note="", cell=None):
    return list(table_blocks(Table("A table", (Column("A"),), ((cell or words("1"),),), note)))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("In small type: intervals.", "In brackets: intervals."),
        ("Linked; in small type 95% intervals.", "Linked; in brackets 95% intervals."),
        ("Rates. Intervals in small type; no more.", "Rates. Intervals in brackets; no more."),
    ],
)
def test_brackets_are_spoken_of_wherever_small_type_is(said, shown):
    assert blocks(said)[1] == shown


def notes():
    """What the report's tables say below themselves, as far as it is written out."""
    for path in Path(tables.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_note = isinstance(node, ast.keyword) and node.arg == "note"
            if is_note or (isinstance(node, ast.FunctionDef) and "note" in node.name):
                body = [node.value] if is_note else [one for one in node.body if not is_doc(one)]
                texts = [one for part in body for one in ast.walk(part)]
                yield (
                    path.name,
                    "".join(
                        one.value
                        for one in texts
                        if isinstance(one, ast.Constant) and isinstance(one.value, str)
                    ),
                )


def is_doc(statement):
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def test_notes_speak_of_small_type_in_the_words_that_markdown_replaces():
    found = list(notes())
    assert sum("small type" in text for _, text in found) > 9
    for name, text in found:
        rest = re.sub(r"\b[Ii]n small type\b", "", text)
        assert not re.search(r"\bsmall\b", rest, re.IGNORECASE), (name, text)


def test_links_within_the_page_are_none_in_markdown_and_others_stay():
    assert "| student |" in blocks(cell=Cell("student", link="#trial-a"))[0]
    elsewhere = blocks(cell=Cell("student", link="report.html#trial-a"))[0]
    assert "| [student](report.html#trial-a) |" in elsewhere
