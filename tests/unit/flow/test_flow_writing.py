"""Which commands take a family that writes, and how its streams are asked for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.flow.input_checks import check_driven
from harness.flow.spaces import streamed, streams_of, workloads
from harness.study import Study
from harness.study.file import parse_study
from harness.types import StreamApi, WireProtocol, Workload
from tests.samples import sample_study


def _study(tmp_path: Path, **task: Any) -> Study:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "reference": "b"}))
    document = sample_study(objective="ttft p95 < 200 ms, perplexity <= 1.1x teacher")
    document["families"][0]["task"] = {
        "kind": "generation",
        "data": {"source": "jsonl", "path": str(path)},
        **task,
    }
    document["traffic"] = {"client_batch_sizes": [1, 16], "concurrencies": [1, 4]}
    return parse_study(document, source="writing")


def test_streams_of_a_family_that_writes(tmp_path: Path) -> None:
    study = _study(tmp_path, max_new_tokens=9, stop=["\n"])
    (family, *_) = study.families
    generation = streams_of(family)
    assert generation is not None
    assert generation.api is StreamApi.TRITON
    assert json.loads(generation.sampling) == {"stop": ["\n"]}
    assert "9 tokens" in generation.traffic


def test_a_stream_answers_one_prompt_whatever_the_batch_sizes(tmp_path: Path) -> None:
    study = _study(tmp_path)
    (family, *_) = study.families
    asked = workloads(study, study.traffic_of(family), generation=streams_of(family))
    assert {one.client_batch_size for one in asked} == {1}
    assert {one.concurrency for one in asked} == {1, 4}
    assert all(one.generation is not None for one in asked)


def test_other_families_are_not_asked_for_streams() -> None:
    study = parse_study(sample_study(objective="p95 < 50 ms"), source="plain")
    assert streams_of(study.families[0]) is None
    check_driven(study)


def test_what_measures_requests_refuses_a_family_that_writes(tmp_path: Path) -> None:
    study = _study(tmp_path)
    with pytest.raises(UsageError, match="measures models that answer a request at once"):
        check_driven(study)
    check_driven(study, streams=True)


def test_a_load_of_one_variant_asks_for_streams_of_single_prompts(tmp_path: Path) -> None:
    (family, *_) = _study(tmp_path).families
    plain = Workload(WireProtocol.HTTP, 1, 4, 1.0, 1.0, 0)
    assert streamed(plain, family).generation == streams_of(family)
    for rows in ({"client_batch_size": 8}, {"batch_mix": ((1, 1.0), (8, 1.0))}):
        with pytest.raises(UsageError, match="a stream answers one prompt"):
            streamed(dataclasses.replace(plain, **rows), family)
    other = parse_study(sample_study(objective="p95 < 50 ms"), source="plain").families[0]
    assert streamed(plain, other) == plain
