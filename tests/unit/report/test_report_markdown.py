"""The report in Markdown."""

from harness.report.markdown import table_blocks
from harness.report.tables.model import Column, Table, words


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
