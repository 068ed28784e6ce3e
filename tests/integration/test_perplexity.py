"""Perplexity is what the bare library says of the same windows, whatever the text and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from harness.cli.main import run_command
from harness.quality.collection import collect_outcomes
from harness.quality.lm_eval.tasks import lm_eval_quiet
from harness.quality.scores import score
from harness.runs.folder import read_run
from harness.study import CausalLanguageModelling, CsvData
from harness.tasks.loading import encode
from harness.tasks.samples import Samples
from harness.types import ModelFormat, ModelVariant, Precision, Role, TensorSpec
from tests.bare_language_model import Bare
from tests.tiny_models import LINES, make_language_model

LENGTH = 16
TEXTS = (
    *LINES,
    "x",
    "",
    "  two  spaces\n\nand lines ",
    "Ünïcödé 東京 🚀🚀 " * 9,
    " ".join(LINES * 3),
)
"""Among them one of a single token, one of none, and some longer than the model's positions."""


@pytest.fixture(scope="module", params=["gpt2", "llama"], ids=["no begin token", "begin token"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("perplexity") / "lm"
    return make_language_model(folder, architecture=request.param, max_positions=2 * LENGTH)


def windows_of(tokenizer: Any, texts: Sequence[str], length: int) -> Iterator[list[int]]:
    """As the documentation has them, cut by hand."""
    lead = [tokenizer.bos_token_id] if tokenizer.bos_token else []
    step = length - len(lead)
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        for start in range(0, len(ids), step):
            window = lead + ids[start : start + step]
            if len(window) > 1:
                yield window


def nats_of(model: Any, *windows: Sequence[int]) -> float:
    """Of all tokens but the first, windows of one length, unpadded."""
    import torch

    ids = torch.tensor(windows)
    with torch.inference_mode():
        scores = model(ids).logits.double().log_softmax(-1)
    return float(-scores[:, :-1].gather(-1, ids[:, 1:, None]).sum())


def scored(checkpoint: Path, texts: Sequence[str]) -> dict[str, float]:
    """By metric, through our encoding, batches and statistics."""
    task = CausalLanguageModelling(
        kind="causal-lm", data=CsvData(source="csv", path=__file__), max_length=LENGTH
    )
    samples = Samples(
        texts=tuple(texts), pairs=None, digest="", rows=tuple(range(len(texts))), seed=0
    )
    dataset = encode(task, samples, checkpoint)
    variant = ModelVariant(
        name="lm", family="f", role=Role.TEACHER, task="causal-lm",
        format=ModelFormat.ONNX, precision=Precision.FP32, source="", sha256="",
        path=checkpoint, parameters=1, size_bytes=1,
        inputs=tuple(TensorSpec(n, "INT64", (-1,)) for n in ("input_ids", "attention_mask")),
        outputs=(
            TensorSpec("token_logprobs", "FP32", (-1,)),
            TensorSpec("greedy_token_ids", "INT64", (-1,)),
        ),
    )  # fmt: skip
    outcomes = collect_outcomes(
        variant, dataset, Bare(checkpoint), batch_size=8, progress=lambda _: None
    )
    found = score(outcomes, dataset, variant=variant, teacher=outcomes, seed=0)
    return {one.metric: one.value for one in found}


def test_perplexity_is_that_of_the_bare_library_on_the_same_windows(checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    windows = list(windows_of(tokenizer, TEXTS, LENGTH))
    nats = sum(nats_of(model, window) for window in windows)
    tokens = sum(len(window) - 1 for window in windows)

    found = scored(checkpoint, TEXTS)

    assert found["perplexity"] == pytest.approx(np.exp(nats / tokens), rel=1e-4)
    if not tokenizer.bos_token:
        return
    # With a begin token in front every byte and every word of every text is scored.
    whole = sum(len(text.rstrip().encode()) for text in TEXTS)
    trailing = sum(len(text.encode()) - len(text.rstrip().encode()) for text in TEXTS)
    assert trailing < 0.01 * whole  # a tokenizer may drop it
    assert found["byte_perplexity"] == pytest.approx(np.exp(nats / (whole + trailing)), rel=1e-4)
    assert found["word_perplexity"] == pytest.approx(
        np.exp(nats / sum(len(text.split()) for text in TEXTS)), rel=1e-3
    )


def test_without_a_begin_token_the_bytes_are_those_after_each_windows_first_token(
    tmp_path: Path,
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = make_language_model(tmp_path / "lm", max_positions=2 * LENGTH)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    texts = [line for line in LINES if line.isascii()] * 2
    windows = list(windows_of(tokenizer, texts, LENGTH))
    nats = sum(nats_of(model, window) for window in windows)
    own = sum(len("".join(tokenizer.convert_ids_to_tokens(window[1:]))) for window in windows)

    assert scored(checkpoint, texts)["byte_perplexity"] == pytest.approx(
        np.exp(nats / own), rel=1e-4
    )


def test_where_the_definitions_coincide_it_is_lm_evals_own_rolling_likelihood(
    tmp_path: Path,
) -> None:
    """Texts that fit a window, after one begin token: lm-eval puts it in front by itself."""
    from lm_eval.models.huggingface import HFLM

    checkpoint = make_language_model(tmp_path / "lm", architecture="llama", max_positions=64)
    texts = [line[:12] for line in LINES if line.isascii()]
    with lm_eval_quiet():
        stock = HFLM(
            str(checkpoint), device="cpu", dtype="float32", batch_size=1, add_bos_token=False
        )
        total = sum(stock.loglikelihood_rolling([SimpleNamespace(args=(text,)) for text in texts]))

    found = scored(checkpoint, texts)

    words = sum(len(text.split()) for text in texts)
    whole = sum(len(text.encode()) for text in texts)
    assert found["word_perplexity"] == pytest.approx(np.exp(-total / words), rel=1e-4)
    assert found["byte_perplexity"] == pytest.approx(np.exp(-total / whole), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(-total / whole / np.log(2), rel=1e-4)


def many_windows(folder: Path) -> list[str]:
    """Write a study of two language models with more windows than a chain asks; its texts."""
    rng = np.random.default_rng(3)
    words = sorted({word for line in LINES for word in line.split()})
    texts = [" ".join(rng.choice(words, 3)) for _ in range(2030)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    models = []
    for seed, role in enumerate(("teacher", "student")):
        checkpoint = make_language_model(folder / role, seed=seed)
        models.append({"name": role, "role": role, "checkpoint": str(checkpoint)})
    task = {
        "kind": "causal-lm",
        "data": {"source": "jsonl", "path": "texts.jsonl"},
        "text": "text",
        "max_length": LENGTH,
    }
    study = {
        "name": "many",
        "seed": 1,
        "objective": "p95 < 1000 ms",
        "families": [{"name": "texts", "task": task, "models": models}],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return texts


def bare_perplexity(checkpoint: Path, texts: list[str]) -> float:
    """By transformers alone, over all windows of the texts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    windows = list(windows_of(tokenizer, texts, LENGTH))
    assert len(windows) > 2000
    lengths = {len(window) for window in windows}
    nats = sum(nats_of(model, *(w for w in windows if len(w) == size)) for size in lengths)
    return float(np.exp(nats / sum(len(window) - 1 for window in windows)))


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.timeout(900)
def test_more_windows_than_the_chain_asks_go_through_scoring_losses_and_report(
    tmp_path: Path, server_environment: Any
) -> None:
    """As a real corpus has them: `chain_samples` is left at its default, 2,000."""
    texts = many_windows(tmp_path)
    out, repository = tmp_path / "run", tmp_path / "repository"

    asked = [str(tmp_path / "study.yaml"), "--out", str(out), "--repository", str(repository)]
    assert run_command(["evaluate", *asked]) == 0

    run = read_run(out)
    perplexities = {one.variant: one.value for one in run.scores if one.metric == "perplexity"}
    for role in ("teacher", "student"):
        expected = bare_perplexity(tmp_path / role, texts)
        assert perplexities[f"{role}-fp32"] == pytest.approx(expected, rel=1e-4)
    chains = {entry.variant: entry.chain for entry in run.losses}
    assert {name: chain.samples for name, chain in chains.items()} == dict.fromkeys(
        ("teacher-fp32", "student-fp32"), 2000
    )
    assert chains["teacher-fp32"].total.value == pytest.approx(0, abs=1e-4)
    assert [link.step for link in chains["student-fp32"].links][1] == "distillation"
    (student,) = (entry for entry in run.losses if entry.variant == "student-fp32")
    assert student.slices
    assert student.examples
    assert "Where the quality of texts went" in (out / "report.html").read_text()
