"""Every architecture that a user may bring answers as its own library does, row by row.

The right value is the bare library's on single, unpadded texts. Classes must be the same on every
row, perplexities to 1e-4. What the export serves is asked here in process: the encoding, the graph
and ONNX Runtime are those of the embedded server.

Two parts: the wrapped checkpoint in PyTorch, over all sides and with pairs (a second a case); and
the exported graph, once a head. All of the 57 exports took 12.5 minutes on 2 cores that others
used too; so all but a few are marked slow and are run by `make check-slow`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from harness.errors import CheckpointError, HarnessError, ParityError
from harness.tasks.encoding import EncodedDataset
from harness.tasks.loading import encode
from harness.tasks.samples import Samples
from tests.architecture_case import ROWS, Case, change_config
from tests.architectures import (
    ARCHITECTURES,
    LENGTH,
    Sides,
    library_logits,
    library_perplexity,
)

EITHER_SIDE = (Sides(), Sides("left", "left"))
NO_PAD = Sides("left", "left", pad_token=False)
LEAKS_PADDING = ("mobilebert", "convbert", "xlnet")
"""Their own library answers a padded row otherwise than the row alone: refused."""
NOT_RUN = "falcon-alibi"
"""Its bias is computed in bfloat16, which ONNX Runtime's processor kernels do not multiply."""
ENCODERS = ("words", "roberta")
ALWAYS = ("albert", "deberta-v2", "roberta", "gpt2", "llama", "modernbert")
"""Of each kind one: shared layers and token types, relative positions, positions with an offset,
learned and rotary positions with a pooled last token, local attention. The others, and most graphs
that are really exported, take minutes together: `make check-slow` has them."""
ALWAYS_EXPORTED = ("modernbert",)
"""Classifiers and language models of two other kinds are exported in test_export_variants."""


def case_of(name: str, *values: Any, always: Sequence[str] = ALWAYS) -> Any:
    """A case that is slow but for a few architectures."""
    return pytest.param(name, *values, marks=[] if name in always else pytest.mark.slow)


CLASSIFIERS = [
    case_of(name, sides, paired)
    for name, one in ARCHITECTURES.items()
    if one.classifies and name not in LEAKS_PADDING
    for sides, paired in (
        (Sides(), False),
        (EITHER_SIDE[1] if one.tokenizer in ENCODERS else NO_PAD, False),
        (Sides(), True),
    )
]
SPEAKERS = [
    case_of(name, sides)
    for name, one in ARCHITECTURES.items()
    if one.speaks
    for sides in (Sides(), NO_PAD)
]


def classes(predictor: Any, encoded: EncodedDataset) -> list[int]:
    found = np.zeros(encoded.size, dtype=int)
    for group in encoded.groups:
        found[group.rows] = predictor.infer("m", dict(group.inputs))["logits"].argmax(-1)
    return found.tolist()


def perplexity(predictor: Any, encoded: EncodedDataset) -> float:
    (group,) = encoded.groups
    nats = 0.0
    for start in range(0, encoded.size, 8):
        batch = {name: values[start : start + 8] for name, values in group.inputs.items()}
        nats -= float(predictor.infer("m", batch)["token_logprobs"].astype(float).sum())
    return float(np.exp(nats / (group.inputs["attention_mask"].sum() - encoded.size)))


def windows_of(encoded: EncodedDataset) -> list[list[int]]:
    (group,) = encoded.groups
    rows = zip(group.inputs["input_ids"], group.inputs["attention_mask"], strict=True)
    return [ids[mask == 1].tolist() for ids, mask in rows]


def right_classes(case: Case) -> list[int]:
    """The bare library's; token types asked by name where the model was trained with them."""
    typed = ARCHITECTURES[case.folder.name].settings.get("type_vocab_size", 2) > 1
    takes = case.encoded.groups[0].inputs
    options = {"return_token_type_ids": True} if typed and "token_type_ids" in takes else {}
    found = library_logits(case.folder, ROWS, case.pairs, **options).argmax(-1).tolist()
    assert len(set(found)) > 1, "the predictions must vary, or this shows nothing"
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "sides", "paired"), CLASSIFIERS, ids=str)
def test_a_wrapped_classifier_predicts_as_its_library(
    tmp_path: Path, name: str, sides: Sides, paired: bool
) -> None:
    case = Case(tmp_path, name, sides, paired=paired)
    assert len(case.encoded.groups) > 1
    assert classes(case.wrapped(), case.encoded) == right_classes(case)


@pytest.mark.parametrize(("name", "sides"), SPEAKERS, ids=str)
def test_a_wrapped_language_model_scores_as_its_library(
    tmp_path: Path, name: str, sides: Sides
) -> None:
    case = Case(tmp_path, name, sides, language=True)
    right = library_perplexity(case.folder, windows_of(case.encoded))
    assert perplexity(case.wrapped(), case.encoded) == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        case_of(name, number, always=ALWAYS_EXPORTED)
        for number, (name, one) in enumerate(ARCHITECTURES.items())
        if one.classifies and name not in (*LEAKS_PADDING, NOT_RUN)
    ],
)
def test_an_exported_classifier_predicts_as_its_library(
    tmp_path: Path, name: str, number: int
) -> None:
    case = Case(tmp_path, name, EITHER_SIDE[number % 2], paired=number % 3 == 0)
    assert classes(case.exported(tmp_path / "r"), case.encoded) == right_classes(case)


@pytest.mark.parametrize(
    "name",
    [
        case_of(name, always=())
        for name, one in ARCHITECTURES.items()
        if one.speaks and name != NOT_RUN
    ],
)
def test_an_exported_language_model_scores_as_its_library(tmp_path: Path, name: str) -> None:
    case = Case(tmp_path, name, NO_PAD, language=True)
    right = library_perplexity(case.folder, windows_of(case.encoded))
    got = perplexity(case.exported(tmp_path / "r"), case.encoded)
    assert got == pytest.approx(right, rel=1e-4)


@pytest.mark.slow
def test_a_graph_that_onnx_runtime_does_not_run_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, NOT_RUN, Sides())
    with pytest.raises(CheckpointError, match="Could not find an implementation for Mul"):
        case.exported(tmp_path / "r")


@pytest.mark.parametrize("name", LEAKS_PADDING)
def test_an_architecture_that_reads_its_padding_is_refused(tmp_path: Path, name: str) -> None:
    case = Case(tmp_path, name, Sides())
    with pytest.raises(ParityError, match=r"answers otherwise where a row is padded.*sample \d+"):
        case.gate()


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "roformer", "xlnet"])
def test_a_language_model_that_sees_the_future_is_refused(tmp_path: Path, model_type: str) -> None:
    case = Case(tmp_path, model_type, Sides(), language=True)
    with pytest.raises(CheckpointError, match="sees the tokens that it is to predict") as caught:
        case.gate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "roformer", "big-bird"])
def test_the_same_as_a_decoder_scores_as_its_library(tmp_path: Path, model_type: str) -> None:
    case = Case(tmp_path, model_type, Sides(), language=True)
    change_config(case.folder, is_decoder=True)
    case.open()
    assert case.gate() < 1e-4
    right = library_perplexity(case.folder, windows_of(case.encoded))
    assert perplexity(case.wrapped(), case.encoded) == pytest.approx(right, rel=1e-4)


def _texts_that_end_in_token_0(case: Case) -> None:
    """Every second text ends in the word whose id is 0, which the configuration calls padding."""
    texts = [f"{text} bada" if row % 2 else text for row, text in enumerate(ROWS)]
    case.samples = Samples(
        texts=tuple(texts), pairs=None, digest="d", rows=case.samples.rows, seed=0
    )
    case.encoded = encode(case.task, case.samples, case.folder)


def _append_end(folder: Path) -> None:
    """Let the tokenizer put its end-of-text token behind every text."""
    from tokenizers import Tokenizer, processors

    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    end = settings["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.save(str(path))


POOLED = [
    "gpt2",
    "llama",
    "opt",
    "gpt-neox",
    "qwen3",
    "mistral",
    "gemma2",
    "phi",
    "falcon",
    "bloom",
]
UNUSUAL: dict[str, tuple[dict[str, Any], Callable[[Case], None] | None, bool]] = {
    "pad-is-a-word": ({"pad_token_id": 0}, _texts_that_end_in_token_0, False),
    "pad-null-and-end-appended": ({"pad_token_id": None}, None, True),
    "pad-is-minus-one": ({"pad_token_id": -1}, None, True),
}


@pytest.mark.parametrize("unusual", UNUSUAL)
@pytest.mark.parametrize("name", [case_of(name) for name in POOLED])
def test_the_pooled_token_is_the_librarys_whatever_pads(
    tmp_path: Path, name: str, unusual: str
) -> None:
    settings, prepare, append = UNUSUAL[unusual]
    case = Case(tmp_path, name, NO_PAD)
    change_config(case.folder, **settings)
    if append:
        _append_end(case.folder)
    case.open()
    if prepare is not None:
        prepare(case)
    right = library_logits(case.folder, case.samples.texts)
    for bucket in (12, 24, LENGTH):
        task = case.task.model_copy(update={"length_buckets": [*({bucket} - {LENGTH}), LENGTH]})
        encoded = encode(task, case.samples, case.folder)
        wrapped = case.wrapped()
        for group in encoded.groups:
            got = wrapped.infer("m", dict(group.inputs))["logits"]
            np.testing.assert_allclose(got, right[group.rows], rtol=1e-4, atol=1e-4)


def test_all_refusals_are_the_harness_own(tmp_path: Path) -> None:
    """A model that needs more than a text is refused, not crashed with."""
    case = Case(tmp_path, "bert", Sides())
    weights = case.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(HarnessError, match="the weights cannot be read"):
        case.wrapped()


def test_weights_that_are_no_numbers_are_said_to_be_the_checkpoint_s(tmp_path: Path) -> None:
    case = Case(tmp_path, "bert", Sides())
    weights = case.folder / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(HarnessError, match=r"itself answers .* \(NaN or infinite\)"):
        case.gate()
