"""Docstrings -> paragraphs of prose, split without leaks."""

import pytest

from harness.errors import DataError
from harness.reference import corpus as prose
from harness.reference.corpus import SourceFile, Split, build_prose, is_prose

SENTENCE = (
    "The gradient of the loss flows back through every layer, and each of them adds to it what "
    "its own weights have done to the answer of the network."
)


def docstring(*paragraphs: str) -> str:
    body = "\n\n    ".join(paragraphs)
    return f'def function():\n    """{body}\n    """\n'


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        (SENTENCE, True),
        (SENTENCE[:-1], False),
        (SENTENCE.lower(), False),
        (SENTENCE[:100] + ".", False),
        (">>> x = torch.randn(3, 4); y = x @ x.T  # (3, 3) [0.1, 0.2]" * 4 + ".", False),
        ("", False),
    ],
)
def test_prose_is_told_from_code(paragraph, expected):
    assert is_prose(paragraph) is expected


def test_paragraphs_are_unwrapped_and_distinct(monkeypatch):
    monkeypatch.setattr(prose, "MINIMUM_ROWS", 1)
    wrapped = SENTENCE.replace(" flows", "\n    flows")
    source = SourceFile("a.py", docstring(wrapped, SENTENCE, "Short."))
    rows = [text for texts in build_prose([source]).values() for text in texts]
    assert rows == [SENTENCE]


def test_each_paragraph_lands_in_one_split(monkeypatch):
    monkeypatch.setattr(prose, "MINIMUM_ROWS", 1)
    sources = [
        SourceFile(f"f{n}.py", docstring(*(f"{word} {n}. {SENTENCE}" for word in ("One", "Two"))))
        for n in range(300)
    ]
    splits = build_prose(sources)
    texts = [text for rows in splits.values() for text in rows]
    assert len(texts) == len(set(texts)) == 600
    assert len(splits[Split.TRAIN]) > len(splits[Split.TEST]) > len(splits[Split.VALIDATION]) > 0


def test_source_without_docstrings_is_refused():
    with pytest.raises(DataError, match="only 1 paragraphs"):
        build_prose([SourceFile("a.py", docstring(SENTENCE))])
