"""CoNLL files: a word a line with its tags, an empty line between sentences."""

import pytest

from harness.errors import DataError
from harness.study import ConllData, CsvData
from harness.tasks.rows import read_table

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER

"""


def read(tmp_path, text, columns=None):
    path = tmp_path / "test.txt"
    path.write_text(text, encoding="utf-8")
    return read_table(
        ConllData.model_validate({"source": "conll", "path": path, "columns": columns}), None
    )


def test_sentences_of_conll_2003(tmp_path):
    table = read(tmp_path, CONLL_2003)
    assert table.columns == ("tokens", "column_2", "column_3", "ner_tags")
    assert [row["tokens"] for row in table.rows] == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert [row["ner_tags"] for row in table.rows] == [["B-ORG", "O"], ["B-PER", "I-PER"]]
    assert table.place(1) == "line 6"


def test_columns_are_named_by_the_study(tmp_path):
    table = read(tmp_path, "O\tEU\nO\trejects", ["tag", "word"])
    assert table.rows == [{"tag": ["O", "O"], "word": ["EU", "rejects"]}]


def test_a_word_may_be_a_hash_and_hold_spaces_between_tabs(tmp_path):
    """WNUT's words begin with one; CoNLL-U's remarks stand above a sentence."""
    table = read(tmp_path, "# id 7 domain=en\n# text = # New York\n#\tO\nNew York\tB-LOC\r\n")
    assert table.rows == [{"tokens": ["#", "New York"], "ner_tags": ["O", "B-LOC"]}]


def test_a_no_break_space_is_part_of_its_word(tmp_path):
    table = read(tmp_path, "10\u00a0000 O\n\u00a0  O\nfrancs B-CUR\n")
    assert table.rows == [
        {"tokens": ["10\u00a0000", "\u00a0", "francs"], "ner_tags": ["O", "O", "B-CUR"]}
    ]  # fmt: skip


def test_a_line_with_other_columns_is_named(tmp_path):
    with pytest.raises(DataError, match="line 3: 2 columns where there are 3") as caught:
        read(tmp_path, "a X O\n\nb O\n")
    assert "empty line" in caught.value.next_step


def test_words_without_tags_are_refused(tmp_path):
    with pytest.raises(DataError, match="line 1: 1 columns"):
        read(tmp_path, "a\nb\n")


@pytest.mark.parametrize(
    "first", ["-DOCSTART- -X- -X- O\n", "EU NNP B-NP B-ORG\n", "the\tO\n", "Bonn\tU-LOC\n"]
)
def test_a_file_of_tagged_words_that_is_called_a_csv_is_refused_at_once(tmp_path, first):
    path = tmp_path / "train.csv"
    path.write_text(first + "rejects VBZ O O\n" * 300)

    with pytest.raises(DataError, match="line 1: a word with its tags") as caught:
        read_table(CsvData(source="csv", path=path), None)

    assert "source: conll" in caught.value.next_step
