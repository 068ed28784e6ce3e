"""The third side of the parity gate: what the bare library answers, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness.tasks.causal_lm.graph
import harness.tasks.graphs
import harness.tasks.loading
from harness.errors import CheckpointError, ParityError
from harness.export.library import LibraryAnswer, ask_library, choose_rows
from harness.export.library_parity import check_rows
from harness.export.source import ExportSource, check_fit
from harness.study import QuestionAnswering
from harness.tasks.loading import encode
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.question_answering.rows import QuestionSamples
from harness.tasks.registry import family_of
from harness.tasks.samples import Samples
from harness.types import Precision
from tests.architecture_case import PAIRS, ROWS, Case, change_config
from tests.architectures import LENGTH, Sides
from tests.tiny_models import make_question_answerer


def test_token_types_that_are_left_out_are_refused_with_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, "albert", Sides(), paired=True)
    assert case.gate() < 1e-4
    untyped = ModelInputs(("input_ids", "attention_mask"))
    monkeypatch.setattr(harness.tasks.loading, "model_inputs", lambda *_, **__: untyped)
    case.encoded = encode(case.task, case.samples, case.folder)
    with pytest.raises(
        ParityError, match=r"differently from how transformers runs it: .*tokens padded"
    ):
        case.gate()


def test_a_pooled_token_that_padding_moves_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was: the tokenizer's pad token stands in the row, and the model looks for another."""

    def as_sent(graph: Any, ids: Any, mask: Any, types: Any) -> Any:
        return graph.model(input_ids=ids, attention_mask=mask)

    case = Case(tmp_path, "gpt2", Sides("left", "left", pad_token=False))
    change_config(case.folder, pad_token_id=0)
    case.open()
    assert case.gate() < 1e-4
    monkeypatch.setattr(harness.tasks.graphs.PaddedModel, "ask", as_sent)
    with pytest.raises(ParityError, match=r"answers otherwise where a row is padded.*sample \d+"):
        case.gate()


def test_positions_counted_from_elsewhere_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was: RoBERTa as a decoder, told to count from 0 rather than from behind its pad."""

    def from_zero(graph: Any, ids: Any, mask: Any) -> Any:
        order = torch.arange(ids.shape[1])[None]
        return graph.model(input_ids=ids, attention_mask=mask, position_ids=order).logits

    case = Case(tmp_path, "roberta", Sides(), language=True)
    change_config(case.folder, is_decoder=True)
    case.open()
    assert case.gate() < 1e-4
    monkeypatch.setattr(harness.tasks.causal_lm.graph.ScoringGraph, "scores", from_zero)
    with pytest.raises(ParityError, match="differently from how transformers runs it"):
        case.gate()


def test_a_graph_that_sees_the_future_is_refused_where_the_library_does_not(
    tmp_path: Path,
) -> None:
    case = Case(tmp_path, "gpt2", Sides(), language=True)
    rows = choose_rows(case.task, case.samples, case.encoded)
    answers = ask_library(case.model, case.checkpoint, case.task, rows)
    wrapped = case.wrapped()
    sound = list(answers)

    class Foreseeing:
        """Right for these rows; for others it looks at their ends."""

        def run(self, inputs: Any) -> list[Any]:
            values, greedy = wrapped.infer("m", inputs).values()
            known = [one.inputs["input_ids"].tolist() for one in sound]
            for row, ids in enumerate(inputs["input_ids"].tolist()):
                values[row] += 0 if ids in known else 0.5
            return [values, greedy]

    with pytest.raises(CheckpointError, match="what was exported of m sees the tokens"):
        check_rows(Foreseeing(), family_of("causal-lm"), answers, "m")


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_start_and_end_are_those_of_the_library(
    tmp_path: Path, architecture: str, side: str
) -> None:
    folder = make_question_answerer(tmp_path / "qa", architecture=architecture)
    case = Case.__new__(Case)
    case.folder = folder
    case.task = QuestionAnswering.model_validate(
        {
            "kind": "question-answering",
            "data": {"source": "reference", "name": "topics"},
            "max_length": LENGTH,
            "length_buckets": [24, LENGTH],
            "doc_stride": 4,
        }
    )
    case.pairs = PAIRS
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("{", f'{{"truncation_side": "{side}",', 1))
    questions = tuple(text[:9] for text in ROWS)
    case.model, case.checkpoint = _opened(folder)
    case.samples = QuestionSamples(
        texts=questions,
        pairs=PAIRS,
        digest="d",
        rows=tuple(range(40)),
        seed=0,
        answers=((),) * 40,
    )
    case.encoded = encode(case.task, case.samples, folder)
    assert case.gate() < 1e-4


def _opened(folder: Path) -> Any:
    from harness.export.checkpoint import open_checkpoint
    from harness.study import Model

    model = Model.model_validate({"name": "m", "role": "teacher", "checkpoint": str(folder)})
    return model, open_checkpoint(model, folder=None)


def test_the_rows_are_short_and_long_and_one_fills_the_length(tmp_path: Path) -> None:
    case = Case(tmp_path, "bert", Sides())
    rows = choose_rows(case.task, case.samples, case.encoded)
    lengths = [len(text.split()) for text in rows.samples.texts]
    everything = [len(text.split()) for text in ROWS]
    assert lengths[0] == min(everything)
    assert lengths[-2] == max(everything)
    assert rows.names[-1] == f"a text that fills max_length {LENGTH}"
    answers = ask_library(case.model, case.checkpoint, case.task, rows)
    assert answers[-1].tokens == LENGTH


def test_attention_that_is_sparse_from_some_length_on_is_refused_beyond_it(tmp_path: Path) -> None:
    """BigBird's own: (5 + 2 x random blocks) x block size tokens, here 28 of 48."""
    case = Case(tmp_path, "big-bird", Sides(), block_size=4, num_random_blocks=1)
    with pytest.raises(ParityError, match="differently from how transformers runs it"):
        case.gate()
    shorter = case.task.model_copy(update={"max_length": 28, "length_buckets": [28]})
    case.task = shorter
    case.open()
    assert case.gate() < 1e-4


def test_other_rows_are_another_recipe(tmp_path: Path) -> None:
    """So an artefact that was made for other data is made, and compared with the library, again."""
    case = Case(tmp_path, "bert", Sides())

    def recipe(samples: Samples) -> Any:
        source = ExportSource(
            case.model, case.checkpoint, case.task, samples, case.encoded, tmp_path
        )
        return source.recipe(Precision.FP32)

    others = tuple(f"{text} bada" for text in case.samples.texts)
    assert recipe(case.samples) == recipe(case.samples)
    assert recipe(case.samples) != recipe(dataclasses.replace(case.samples, texts=others))


def test_a_model_that_takes_no_mask_is_refused_before_its_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, "bert", Sides())
    takes = frozenset({"input_ids", "token_type_ids"})  # FNet's
    monkeypatch.setattr("harness.export.source.forward_parameters", lambda *_: takes)
    with pytest.raises(CheckpointError, match="takes no attention mask, so that padding would"):
        check_fit(case.model, case.checkpoint, case.task, case.encoded)


def test_a_difference_as_small_as_rounding_passes_and_a_larger_one_does_not() -> None:
    inputs = {"input_ids": np.array([5, 6, 7, 0]), "attention_mask": np.array([1, 1, 1, 0])}
    values = np.array([0.5, -20.0, 3.0], dtype=np.float32)
    answers = [LibraryAnswer(f"sample {n}", inputs, values * (1 + n)) for n in range(3)]

    classifier = family_of("sequence-classification")

    class Off:
        def __init__(self, by: float) -> None:
            self.by = np.float32(by)

        def run(self, batch: Any) -> list[Any]:
            rows = [values * (1 + n) for n in range(len(batch["input_ids"]))]
            return [np.stack(rows) + self.by]

    assert check_rows(Off(1e-4), classifier, answers, "m") == pytest.approx(5e-6, rel=0.1)
    for by in (0.5, float("nan")):
        with pytest.raises(ParityError, match="sample 0, 3 tokens padded to 4"):
            check_rows(Off(by), classifier, answers, "m")
