"""A teacher with a draft on the embedded Triton: the same texts as alone, in fewer runs."""

import dataclasses
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.export.generation.speculative import make_speculative
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.generation.repository import (
    GenerationServing,
    generation_override,
    write_generator,
)
from harness.serving.streams import TritonStreams
from harness.types.generation import SamplingParameters

pytestmark = pytest.mark.triton
TOKENS, WRITTEN = 3, 21
ACCEPTED = (WRITTEN - 1) // (TOKENS + 1) * TOKENS
LAST_REPORTED = "generation_draft_accepted_total"
"""Counters come on the page one by one: a page made after this one was seen has all its report."""


def generated(checkpoint, prompt, count):
    """transformers' own answer: tokens without the prompt's."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    with torch.inference_mode():
        answer = model.generate(
            torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None
        )
    return answer[0, len(prompt) :].tolist()


def counters(endpoint, model):
    with urllib.request.urlopen(endpoint.metrics, timeout=60) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    samples = [one for family in families for one in family.samples]
    return {one.name: one.value for one in samples if one.labels == {"model": model}}


def settled(endpoint, model, name, value):
    """The counters once one has a value: they are reported five times a second.

    A page is collected counter by counter too: the one on which the value is first seen may have
    passed the others before they were reported. So the page is read once more.
    """
    deadline = time.monotonic() + 60
    while (found := counters(endpoint, model)).get(name) != value:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return counters(endpoint, model)


def test_a_teacher_with_a_draft_writes_its_own_texts_in_fewer_runs(
    generator, server_environment, tmp_path
):
    checkpoint, teacher = generator
    # Its own copy is a draft that is always right, unless a step leaves the two caches apart.
    draft = dataclasses.replace(teacher, name="draft")
    repository = tmp_path / "repository"
    variant = make_speculative(
        "pair-speculative", teacher, draft, tokens=TOKENS, repository=repository
    )
    assert variant.drafted_by == "draft"
    assert variant.sha256 != teacher.sha256
    serving = GenerationServing(slots=2, queue_size=8, read_tokens=16)
    write_generator(variant, serving)
    prompts = [(5, 9, 2, 7), (11,), tuple(range(3, 33)), (8, 8, 1)]
    greedy = SamplingParameters(max_tokens=WRITTEN, ignore_eos=True)
    drawn = dataclasses.replace(greedy, temperature=0.9, seed=4)
    with (
        EmbeddedTriton(server_environment, repository, log_file=tmp_path / "log") as server,
        TritonClient(server.endpoint) as client,
        TritonStreams(server.endpoint.grpc) as streams,
        ThreadPoolExecutor(4) as executor,
    ):
        client.load(variant.name, generation_override(variant, serving))
        alone = streams.write(variant.name, prompts[0], greedy)
        counted = settled(server.endpoint, variant.name, LAST_REPORTED, ACCEPTED)
        told = list(executor.map(lambda one: streams.write(variant.name, one, greedy), prompts))
        twice = [streams.write(variant.name, prompts[0], drawn).tokens for _ in range(2)]
    # The first token comes with the prompt; each run adds the draft's three and one more.
    assert counted["generation_decode_steps_total"] == (WRITTEN - 1) / (TOKENS + 1)
    assert counted["generation_output_tokens_total"] == WRITTEN
    assert counted["generation_draft_tokens_total"] == ACCEPTED
    wanted = [generated(checkpoint, list(one), WRITTEN) for one in prompts]
    assert list(alone.tokens) == wanted[0]
    assert [list(one.tokens) for one in told] == wanted
    assert list(twice[0]) == list(twice[1]) != wanted[0]
