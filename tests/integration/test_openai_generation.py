"""OpenAI's API before an exported model on the real Triton: the texts are transformers' own."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
import torch
import transformers
from generating_models import POSITIONS

from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.generation.repository import GenerationServing, write_generator
from harness.serving.openai.models import offered
from harness.serving.openai.server import OpenAIServer
from tests.openai_rig import client_of

pytestmark = pytest.mark.triton
PROMPT = "teachers are large, students"
TOKENS = 20


@pytest.fixture(scope="module")
def checkpoint(generator):
    """The model and its tokenizer, as transformers opens them."""
    folder, _ = generator
    return (
        transformers.AutoModelForCausalLM.from_pretrained(folder).eval(),
        transformers.AutoTokenizer.from_pretrained(folder),
    )


@pytest.fixture(scope="module")
def served(generator, server_environment, tmp_path_factory) -> Iterator[tuple[str, openai.OpenAI]]:
    """The model's name, and a client."""
    _, variant = generator
    write_generator(variant, GenerationServing(slots=2))
    log = tmp_path_factory.mktemp("log") / "triton.log"
    with (
        EmbeddedTriton(server_environment, variant.path.parent, log_file=log) as server,
        TritonClient(server.endpoint) as client,
    ):
        client.load(variant.name)
        with OpenAIServer([offered(variant)], server.endpoint.grpc) as front_end:
            yield variant.name, client_of(front_end)


def generated(checkpoint, prompt: str) -> tuple[list[int], str]:
    """The prompt's ids, and the text that transformers goes on with greedily."""
    model, tokenizer = checkpoint
    ids = tokenizer(prompt)["input_ids"]
    with torch.inference_mode():
        answer = model.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False)
    return ids, tokenizer.decode(answer[0, len(ids) :], skip_special_tokens=True)


def test_greedy_texts_are_those_of_the_library(served, checkpoint):
    name, client = served
    ids, text = generated(checkpoint, PROMPT)
    greedy = {"model": name, "max_tokens": TOKENS, "temperature": 0}
    answer = client.completions.create(prompt=PROMPT, **greedy)
    assert answer.choices[0].text == text
    assert answer.usage.prompt_tokens == len(ids)
    assert client.completions.create(prompt=ids, **greedy).choices[0].text == text
    chunks = client.completions.create(prompt=PROMPT, stream=True, **greedy)
    assert "".join(one.choices[0].text for one in chunks) == text


def test_a_stop_string_ends_the_text_before_it(served, checkpoint):
    name, client = served
    _, text = generated(checkpoint, PROMPT)
    middle = text[len(text) // 2 : len(text) // 2 + 3]
    answer = client.completions.create(
        model=name, prompt=PROMPT, max_tokens=TOKENS, temperature=0, stop=middle
    )
    assert answer.choices[0].text == text[: text.index(middle)]
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_gives_the_same_text_again(served):
    name, client = served

    def drawn(seed: int) -> str:
        answer = client.completions.create(model=name, prompt=PROMPT, max_tokens=TOKENS, seed=seed)
        return answer.choices[0].text

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) > 1


def test_the_context_bounds_the_prompt_and_the_answer(served):
    name, client = served
    assert client.models.retrieve(name).max_model_len == POSITIONS
    short = client.completions.create(
        model=name, prompt=[5] * (POSITIONS - 3), max_tokens=TOKENS, extra_body={"ignore_eos": True}
    )
    assert (short.usage.completion_tokens, short.choices[0].finish_reason) == (3, "length")
    with pytest.raises(openai.BadRequestError, match=str(POSITIONS)):
        client.completions.create(model=name, prompt=[5] * POSITIONS)


def test_a_checkpoint_without_a_chat_template_says_so(served):
    name, client = served
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model=name, messages=[{"role": "user", "content": "a"}])
