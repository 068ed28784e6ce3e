"""Which model a server has is told by its address and its answers, not by its name alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import ServerError
from harness.flow.external.identity import Identities, difference
from harness.serving.external.server import ServerFacts, describe
from harness.types import ModelFormat, ModelVariant, Precision, Role

ROWS = [
    {"input_ids": np.arange(12).reshape(6, 2), "attention_mask": np.ones((6, 2), np.int64)},
    {"input_ids": np.arange(40).reshape(10, 4), "attention_mask": np.ones((10, 4), np.int64)},
]
WEIGHTS = np.array([[1.0, -2.0], [0.5, 3.0]])


class Server:
    """One model, `m`: two logits of the sum and the last of a row's token numbers."""

    def __init__(self, weights: np.ndarray = WEIGHTS) -> None:
        self.weights = weights
        self.noise: Callable[[], float] = lambda: 0.0
        self.versions = ["1"]
        self.asked: list[tuple[int, ...]] = []
        self.datatype = "INT64"

    def facts(self) -> ServerFacts:
        return ServerFacts("somebody's", "1.0")

    def metadata(self, model: str) -> dict[str, Any]:
        return {
            "name": model,
            "versions": self.versions,
            "inputs": [
                {"name": name, "datatype": self.datatype, "shape": [-1, -1]}
                for name in ("input_ids", "attention_mask")
            ],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
        }

    def config(self, model: str) -> None:
        return None

    def infer(self, model: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        ids = inputs["input_ids"]
        assert ids.dtype == self.datatype.lower()
        self.asked.append(ids.shape)
        features = np.stack([ids.sum(axis=1), ids[:, -1]], axis=1)
        return {"logits": (features @ self.weights * (1 + self.noise())).astype(np.float32)}


def establish(
    server: Server, folder: Path, url: str = "http://one:8000", warned: list[str] | None = None
) -> tuple[Identities, ModelVariant]:
    identities = Identities(server, url)
    told = [] if warned is None else warned
    identity = identities.establish(
        describe(server, "m"), ROWS, Precision.FP32, folders=[folder], warn=told.append
    )
    variant = ModelVariant(
        name="m-fp32", family="f", role=Role.TEACHER, task="sequence-classification",
        format=ModelFormat.ONNX, precision=Precision.FP32, source="", sha256=identity,
        path=Path(), inputs=(), outputs=(), parameters=0, size_bytes=None, served_as="m",
    )  # fmt: skip
    return identities, variant


def test_models_of_one_name_on_two_servers_are_two_models(tmp_path: Path) -> None:
    _, one = establish(Server(), tmp_path)
    _, other = establish(Server(), tmp_path, "http://two:8000")
    _, again = establish(Server(), tmp_path, "http://one:8000/")

    assert one.sha256.startswith("remote:")
    assert one.sha256 != other.sha256
    assert one.sha256 == again.sha256


def test_a_model_retrained_under_its_name_is_another_until_its_old_weights_are_back(
    tmp_path: Path,
) -> None:
    first, retrained, back = (
        establish(Server(weights), tmp_path)[1].sha256
        for weights in (WEIGHTS, WEIGHTS * [1, 1.01], WEIGHTS)
    )

    assert first == back != retrained


def test_the_last_digits_of_an_answer_make_no_other_model(tmp_path: Path) -> None:
    server = Server()
    server.noise = lambda: np.random.default_rng(len(server.asked)).normal() * 1e-6
    identities, variant = establish(server, tmp_path)

    server.noise = lambda: 3e-6
    identities.check(variant)
    assert establish(server, tmp_path)[1].sha256 == variant.sha256


def test_weights_exchanged_while_measuring_are_seen_though_all_is_told_alike(
    tmp_path: Path,
) -> None:
    server = Server()
    identities, variant = establish(server, tmp_path)
    identities.check(variant)
    server.weights = WEIGHTS * 1.01

    with pytest.raises(ServerError, match="version and configuration are as they were") as ended:
        identities.check(variant)
    assert "'m' at http://one:8000 was replaced while it was measured" in str(ended.value)
    assert "--resume" in ended.value.next_step


def test_another_version_is_seen_before_it_is_asked(tmp_path: Path) -> None:
    server = Server()
    identities, variant = establish(server, tmp_path)
    asked = len(server.asked)
    server.versions = ["2"]

    with pytest.raises(ServerError, match="its version or its configuration is another"):
        identities.check(variant)
    assert len(server.asked) == asked


def test_one_disturbed_answer_ends_no_run(tmp_path: Path) -> None:
    server = Server()
    identities, variant = establish(server, tmp_path)
    disturbed = iter([0.5])
    server.noise = lambda: next(disturbed, 0.0)

    identities.check(variant)


def test_a_model_that_does_not_repeat_itself_is_never_taken_for_an_earlier_one(
    tmp_path: Path,
) -> None:
    server, warned = Server(), []
    server.noise = lambda: np.random.default_rng(len(server.asked)).normal()
    identities, variant = establish(server, tmp_path, warned=warned)
    _, again = establish(server, tmp_path)

    assert variant.sha256 != again.sha256
    assert "cannot be identified by its answers" in warned[0]
    identities.check(variant)  # what is told of it is still watched
    server.versions = ["2"]
    with pytest.raises(ServerError, match="was replaced"):
        identities.check(variant)


def test_rows_are_asked_one_by_one_of_the_shortest_and_the_longest(tmp_path: Path) -> None:
    server = Server()
    server.datatype = "INT32"
    establish(server, tmp_path)

    assert server.asked == ([(1, 2)] * 4 + [(1, 4)] * 4) * 2


def test_a_kept_answer_that_cannot_be_read_is_nobodys_word(tmp_path: Path) -> None:
    _, variant = establish(Server(), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"torn")

    assert establish(Server(), tmp_path)[1].sha256 == variant.sha256


def test_a_model_that_stands_for_two_variants_is_one_whatever_their_rows(tmp_path: Path) -> None:
    server = Server()
    identities, variant = establish(server, tmp_path)
    other_rows = [{name: values + 1 for name, values in group.items()} for group in ROWS]

    def again() -> str:
        return identities.establish(
            describe(server, "m"), other_rows, Precision.FP32, folders=[tmp_path], warn=print
        )

    assert again() == variant.sha256
    server.weights = WEIGHTS * [1, 2]
    assert again() != variant.sha256


def test_a_model_that_nobody_established_is_not_checked(tmp_path: Path) -> None:
    identities, variant = establish(Server(), tmp_path)
    identities.check(dataclasses.replace(variant, sha256="of a file"))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([4.0, 2.0], [4.0, 1.0], 0.25),
        ([np.nan, 2.0], [np.nan, 2.0], 0.0),
        ([np.nan, 2.0], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [np.nan, 2.0], np.inf),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1.0], [1.0, 1.0], np.inf),
        ([-np.inf, 1.0], [-np.inf, 1.0], 0.0),
        ([-np.inf, 1.0], [np.inf, 1.0], np.inf),
    ],
)
def test_differences_are_shares_of_the_largest_element(one, other, expected: float) -> None:
    assert difference([{"x": np.array(one)}], [{"x": np.array(other)}]) == expected
    assert difference([{"x": np.array(one)}], [{"y": np.array(one)}]) == np.inf
