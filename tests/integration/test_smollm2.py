"""SmolLM2-135M-Instruct, a real chat model: made, exported, served, asked and scored.

It comes in a Python package of its own (scripts/make_smollm2.py says how to install it).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.cli.main import run_command
from harness.errors import EXIT_UNDECIDED, CheckpointError
from harness.quality.collection import read_outcomes
from harness.runs.folder import read_run, samples_file
from harness.system.storage import bundled, cache_root
from harness.tasks.generation.outcomes import WrittenOutcomes
from scripts.make_smollm2 import NEW_TOKENS, Making, make, weights_file
from tests.held_up import PATIENCE_S
from tests.ports import free_port

try:
    weights_file()
    missing = ""
except CheckpointError as lacking:
    missing = lacking.next_step
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(missing), reason=f"the model is not installed: {missing}"),
]
FEW = Making(training_prompts=16, test_prompts=8, steps=4)
"""A student that has barely learned: what it writes is beside the point here."""
COMPARED = 8
"""Prompts that the library is asked by itself, which takes seconds each."""
CHECKOUT = Path(__file__).parents[2] / "checkpoints" / "smollm2"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def made() -> Path:
    """Checkpoints and prompts: the checkout's, if the script has made them there, or small ones
    that are kept for the next run of the tests."""
    if (CHECKOUT / "student").is_dir():
        return CHECKOUT
    folder = cache_root() / "smollm2-tests"
    make(folder, FEW)
    return folder


@pytest.fixture(scope="module")
def study(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study as it is shipped, on these checkpoints."""
    text = bundled("studies/smollm2.yaml").read_text()
    assert "../checkpoints/smollm2" in text
    path = tmp_path_factory.mktemp("smollm2") / "smollm2.yaml"
    path.write_text(text.replace("../checkpoints/smollm2", str(made)))
    return path


@pytest.fixture(scope="module")
def evaluated(study: Path) -> Path:
    """The run in which every variant wrote; a student that has barely learned may fail."""
    out = study.parent / "run"
    code = run_command(["evaluate", str(study), "--out", str(out), *REPOSITORY])
    assert code <= EXIT_UNDECIDED
    return out


REPOSITORY = ["--repository", str(cache_root() / "smollm2-tests" / "repository")]
"""Kept, too: what was exported by another recipe is exported anew."""


def _generated(checkpoint: Path, prompt: str, new_tokens: int) -> list[int]:
    """What transformers' own `generate()` writes behind a chat's first message, greedily."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        whole = model.generate(**asked, do_sample=False, max_new_tokens=new_tokens)
    return whole[0, asked["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(
    ("variant", "checkpoint"), [("smollm2-fp32", "teacher"), ("smollm2-half-fp32", "student")]
)
def test_what_the_server_wrote_is_what_generate_writes(
    evaluated: Path, made: Path, variant: str, checkpoint: str
) -> None:
    found = read_outcomes(samples_file(evaluated, variant))
    assert isinstance(found, WrittenOutcomes)
    rows = [json.loads(line) for line in (made / "texts" / "test.jsonl").open()]
    assert len(found.tokens) == len(rows) > 0
    for row, tokens in list(zip(rows, found.tokens, strict=True))[:COMPARED]:
        assert tokens.tolist() == _generated(made / checkpoint, row["prompt"], NEW_TOKENS)


def test_every_variant_is_scored_beside_the_teacher(evaluated: Path) -> None:
    scores = {(one.variant, one.metric): one.value for one in read_run(evaluated).scores}
    # The references are the library's own text of the teacher.
    assert scores["smollm2-fp32", "rouge_l"] > 0.95
    assert scores["smollm2-fp32", "agreement"] == 1.0
    assert 1.0 <= scores["smollm2-fp32", "perplexity"] < 4.0
    for variant in ("smollm2-quantised-int8", "smollm2-half-fp32"):
        assert 0.0 <= scores[variant, "rouge_l"] <= 1.0
        assert scores[variant, "perplexity"] > scores["smollm2-fp32", "perplexity"]
    assert (
        scores["smollm2-quantised-int8", "perplexity"] < scores["smollm2-half-fp32", "perplexity"]
    )


@pytest.fixture(scope="module")
def address(study: Path) -> Iterator[str]:
    """OpenAI's API before the embedded server with the teacher alone."""
    document = yaml.safe_load(study.read_text())
    (family,) = document["families"]
    family["models"] = family["models"][:1]
    alone = study.with_name("teacher.yaml")
    alone.write_text(yaml.safe_dump(document))
    port = free_port()
    command = [sys.executable, "-m", "harness", "serve", str(alone), *REPOSITORY,
               "--json", "--openai", str(port)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    # The JSON document ends in its own line: everything is loaded by then.
    written = "".join(iter(process.stdout.readline, "}\n"))
    try:
        yield json.loads(written + "}")["openai"]
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors


def test_a_chat_is_streamed_as_generate_writes_it(address: str, made: Path) -> None:
    client = openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=PATIENCE_S)
    stream = client.chat.completions.create(
        model="smollm2-fp32",
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_tokens=NEW_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    text = "".join(one.choices[0].delta.content or "" for one in chunks)
    tokens = _generated(made / "teacher", QUESTION, NEW_TOKENS)
    tokenizer = AutoTokenizer.from_pretrained(made / "teacher")
    assert text == tokenizer.decode(tokens, skip_special_tokens=True)
    assert "Paris" in text
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == len(tokens)
    assert len(chunks) > 4, "it came in pieces"
