"""Source text -> labelled rows, evenly and without leaks."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness.reference import corpus as topics
from harness.reference.corpus import (
    CANDIDATES,
    SourceFile,
    Split,
    build_topics,
    label_of,
    package_folder,
    read_sources,
    split_words,
)

SMALL = {Split.TRAIN: 30, Split.VALIDATION: 3, Split.TEST: 6}


@pytest.fixture
def small_rows(monkeypatch):
    monkeypatch.setattr(topics, "ROWS_PER_CLASS", SMALL)


def letters(number: int) -> str:
    """A number as a word, because digits are dropped from the text."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def package(name: str, files: int = 12) -> list[SourceFile]:
    """A sub-package of distinct words: enough blocks for every split of SMALL."""
    counter = itertools.count(100_000)
    return [
        SourceFile(
            f"{name}/file_{number}.py",
            " ".join(f"{letters(next(counter))}of{name.strip('_')}x" for _ in range(1200)),
        )
        for number in range(files)
    ]


def sources(*names: str) -> list[SourceFile]:
    return [source for name in names for source in package(name)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("self.assertEqual(x, 1)", ["self", "assert", "equal"]),
        ("snake_case_name", ["snake", "case", "name"]),
        ("HTTPServer", ["http", "server"]),
        ("torch.nn.Linear", ["torch", "linear"]),
        ("class OnnxExporter:", ["class"]),
        ("i = j + k  # 42", []),
        ("", []),
    ],
)
def test_words_of_source_text(text, words):
    assert split_words(text) == words


@given(st.text())
def test_words_are_lower_case_unmasked_and_stable(text):
    words = split_words(text)
    assert all(word.islower() and len(word) > 1 for word in words)
    assert not {candidate.lstrip("_") for candidate in CANDIDATES} & set(words)
    assert split_words(" ".join(words)) == words


def test_private_packages_lose_their_underscore():
    assert label_of("_dynamo/utils.py") == "dynamo"
    assert label_of("nn/modules/linear.py") == "nn"


def test_every_class_has_its_rows_in_every_split(small_rows):
    splits = build_topics(sources(*CANDIDATES[:10]), seed=1)
    for split, rows in splits.items():
        counts = Counter(row.label for row in rows)
        assert set(counts.values()) == {SMALL[split]}
        assert sorted(counts) == sorted(name.lstrip("_") for name in CANDIDATES[:10])


def test_no_text_stands_twice_or_in_two_splits(small_rows):
    doubled = sources(*CANDIDATES[:10])
    splits = build_topics([*doubled, *doubled], seed=1)
    texts = [row.text for rows in splits.values() for row in rows]
    assert len(texts) == len(set(texts))


def test_the_seed_decides_the_rows(small_rows):
    text = sources(*CANDIDATES[:10])
    assert build_topics(text, seed=1) == build_topics(text, seed=1)
    assert build_topics(text, seed=1) != build_topics(text, seed=2)


def test_a_missing_package_is_replaced_by_the_next_of_the_list(small_rows):
    names = [name for name in CANDIDATES if name != "jit"]
    labels = {row.label for row in build_topics(sources(*names), seed=1)[Split.TEST]}
    assert "jit" not in labels
    assert len(labels) == 10
    assert CANDIDATES[10].lstrip("_") in labels


def test_a_package_with_too_little_source_is_no_class(small_rows):
    text = [*sources(*CANDIDATES[:9]), *package("optim", files=1)[:1]]
    labels = {row.label for row in build_topics(text, seed=1)[Split.TEST]}
    assert len(labels) == 9


def test_too_few_packages_are_refused_with_the_next_step(small_rows):
    with pytest.raises(DataError, match="only 5 of torch's sub-packages") as caught:
        build_topics(sources(*CANDIDATES[:5]), seed=1)
    assert "pip install" in caught.value.next_step


def test_the_installed_torch_gives_ten_classes_and_a_test_split_worth_its_name():
    splits = build_topics(read_sources(package_folder()), seed=20)
    assert {row.label for row in splits[Split.TEST]} == {
        name.lstrip("_") for name in CANDIDATES[:10]
    }
    assert len(splits[Split.TEST]) >= 1200
    train = {row.text for row in splits[Split.TRAIN]}
    assert not train & {row.text for row in splits[Split.TEST]}
