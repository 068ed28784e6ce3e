"""Documents of a run folder: the newest counts, none is overwritten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.errors import RunFolderError
from harness.runs.documents import documents_of, read_document, write_document


@dataclass(frozen=True)
class Plan:
    replicas: int
    by_rate: dict[int, float]


def test_the_newest_of_many_counts_and_none_is_overwritten(tmp_path: Path) -> None:
    assert read_document(tmp_path, "plan", Plan) is None
    plans = [Plan(n, {100: n / 3}) for n in range(1, 12)]
    paths = [write_document(tmp_path, "plan", plan) for plan in plans]
    assert [path.name for path in paths[:2]] == ["plan.json", "plan-2.json"]
    assert len(documents_of(tmp_path, "plan")) == 11
    assert read_document(tmp_path, "plan", Plan) == plans[-1]
    assert write_document(tmp_path, "plan", plans[-1]) == paths[-1]
    assert write_document(tmp_path, "plan", plans[0]).name == "plan-12.json"
    assert read_document(tmp_path, "plan", Plan) == plans[0]


def test_another_names_documents_are_not_taken_for_it(tmp_path: Path) -> None:
    write_document(tmp_path, "plan-b", Plan(1, {}))
    write_document(tmp_path, "planned", Plan(2, {}))
    assert documents_of(tmp_path, "plan") == {}


def test_a_damaged_document_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"replicas": "many"}')
    with pytest.raises(RunFolderError, match="not a plan that this version wrote") as raised:
        read_document(tmp_path, "plan", Plan)
    assert "harness plan" in raised.value.next_step
