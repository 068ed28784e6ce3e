"""An encoder-decoder as it is served writes what its checkpoint's generate() writes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from encoder_decoders import POSITIONS, SHAPES, START, SUMMARISER, make_encoder_decoder
from generating_models import BOTH, export_generator
from tiny_models import LINES

from harness.errors import CheckpointError
from harness.export.convert import write_int8
from harness.export.generation.outliers import (
    encoder_feeds,
    sourced_decoder_feeds,
    spoilt_products,
)
from harness.serving.generation.contract import QueuedRequest
from harness.serving.generation.encoder_decoder import SourcedDecoder, open_decoder
from harness.serving.generation.engine import GenerationEngine
from harness.types.generation import FinishReason, GeneratorSettings, SamplingParameters

NEW = 30
LENGTHS = (1, 2, 7, 20, 33, 48)


@pytest.fixture(scope="module", params=[pytest.param("t5", marks=pytest.mark.slow), "bart"])
def made(request, tmp_path_factory):
    """A checkpoint and its variants: T5's positions are distances, BART's a table with an offset.

    BART's asks of its answers what summarisers ask.
    """
    folder = tmp_path_factory.mktemp("encoder-decoders") / request.param
    # Without it an untrained T5 says the same token again and again.
    asked = SUMMARISER if request.param == "bart" else {"no_repeat_ngram_size": 2}
    checkpoint = make_encoder_decoder(folder / "checkpoint", request.param, **asked)
    # What an untrained T5 loses in int8 is beyond what is let through.
    precisions = BOTH if request.param == "bart" else {}
    return checkpoint, export_generator(checkpoint, folder / "repository", **precisions)


def library(checkpoint):
    import transformers

    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    return model, transformers.AutoTokenizer.from_pretrained(checkpoint)


def prompts_of(checkpoint):
    _, tokenizer = library(checkpoint)
    return [tokenizer(line)["input_ids"][:length] for line, length in zip(
        LINES, LENGTHS, strict=True
    )]  # fmt: skip


def generated(model, prompts, side=None, **asked):
    """generate() itself: each prompt alone, or all as a batch padded on a side; ends included."""
    import torch

    batches = [[prompt] for prompt in prompts] if side is None else [prompts]
    found = []
    for batch in batches:
        width = max(map(len, batch))
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(batch):
            place = slice(0, len(prompt)) if side != "left" else slice(width - len(prompt), width)
            ids[row, place] = torch.tensor(prompt)
            mask[row, place] = 1
        asked = {"max_new_tokens": NEW, "do_sample": False, "num_beams": 1} | asked
        for row in model.generate(ids, attention_mask=mask, **asked)[:, 1:].tolist():
            ends = [place for place, one in enumerate(row) if one == model.config.eos_token_id]
            found.append(row[: ends[0] + 1] if ends else row)
    return found


def settings_of(variant):
    return GeneratorSettings.from_json((variant.path / "1" / "generation.json").read_text())


def engine_of(checkpoint, variant, *, slots=3, **settings):
    _, tokenizer = library(checkpoint)
    known = settings_of(variant)
    path = variant.path / "1" / "model.onnx"
    decoder = open_decoder(path, known, slots=slots, threads=1, context=known.context)
    return GenerationEngine(decoder, tokenizer.backend_tokenizer, known, **settings)


def answers(engine, prompts, **asked):
    """Tokens and last reason of each prompt, all submitted together."""
    pieces = [[] for _ in prompts]
    for prompt, own in zip(prompts, pieces, strict=True):
        parameters = SamplingParameters(**({"max_tokens": NEW} | asked))
        engine.submit(QueuedRequest(prompt, parameters, own.append))
    while engine.step():
        pass
    return [([token for one in own for token in one.tokens], own[-1].reason) for own in pieces]


def test_every_token_is_that_of_generate_whatever_stands_beside(made):
    """Six prompts in three slots: rows begin at different times, and move as others end."""
    checkpoint, variant = made
    model, _ = library(checkpoint)
    prompts = prompts_of(checkpoint)
    wanted = generated(model, prompts)
    assert all(len(set(one)) > 5 for one in wanted)  # no text that says the same again and again
    assert wanted == generated(model, prompts, side="right")
    if model.config.model_type == "t5":  # learned positions are others behind a padding
        assert wanted == generated(model, prompts, side="left")
    found = answers(engine_of(checkpoint, variant, read_tokens=40), prompts)
    assert [tokens for tokens, _ in found] == wanted
    engine = engine_of(checkpoint, variant, slots=1)
    assert [answers(engine, [one])[0][0] for one in prompts] == wanted


def test_a_prompt_as_long_as_the_encoder_reads_is_answered_and_a_longer_one_refused(made):
    from harness.serving.generation.contract import RejectedRequestError

    checkpoint, variant = made
    model, tokenizer = library(checkpoint)
    whole = tokenizer(" ".join(LINES))["input_ids"]
    context = settings_of(variant).source_context
    longest = (whole * (1 + context // len(whole)))[:context]
    engine = engine_of(checkpoint, variant)
    assert answers(engine, [longest])[0][0] == generated(model, [longest])[0]
    with pytest.raises(
        RejectedRequestError, match=f"{context + 1} tokens; the encoder reads {context}"
    ):
        engine.submit(QueuedRequest([*longest, 7], SamplingParameters(), lambda _: None))


def test_the_reference_is_as_probable_as_in_the_library_s_own_loss(made):
    """Teacher forcing through what is served: the sum is that of `model(labels=...)`."""
    import torch

    checkpoint, variant = made
    model, tokenizer = library(checkpoint)
    prompt, label = prompts_of(checkpoint)[3], tokenizer(text_target="small students")["input_ids"]
    with torch.inference_mode():
        loss = model(input_ids=torch.tensor([prompt]), labels=torch.tensor([label])).loss
        begun = torch.tensor([[START, *label[:-1]]])
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=begun).logits[0]
    own = logits.gather(-1, torch.tensor(label)[:, None])
    told = []
    engine = engine_of(checkpoint, variant, read_tokens=5)
    asked = SamplingParameters(max_tokens=0, prompt_logprobs=True, decoder_prompt=tuple(label))
    engine.submit(QueuedRequest(prompt, asked, told.append))
    while engine.step():
        pass
    (piece,) = told
    assert piece.reason is FinishReason.LENGTH
    assert len(piece.prompt.logprobs) == len(label)
    np.testing.assert_allclose(-piece.prompt.logprobs.mean(), loss.item(), rtol=1e-4)
    np.testing.assert_array_equal(piece.prompt.ranks, 1 + (logits > own).sum(-1).numpy())


def test_a_row_is_computed_alike_to_the_last_bit_alone_and_in_a_batch(made):
    checkpoint, variant = made
    prompts = [np.array(one) for one in prompts_of(checkpoint)]
    path, settings = variant.path / "1" / "model.onnx", settings_of(variant)

    def logits_of(rows, which):
        decoder = SourcedDecoder(path, settings, slots=6)
        for slot, row in enumerate(rows):
            decoder.encode(slot, prompts[row])
        begun = [np.array([START]) for _ in rows]
        read = decoder.read(0, begun, [0] * len(begun))[which].copy()
        return read, decoder.write([7] * len(begun), [1] * len(begun))[which].copy()

    for row in (1, 3):
        alone, together = logits_of([row], 0), logits_of(range(6), row)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_written_down_of_an_export(made):
    checkpoint, variant = made
    manifest = json.loads((variant.path / "manifest.json").read_text())
    assert manifest["parity"]["agreement"] == 1.0
    int8 = variant.path.with_name("writer-int8") / "1"
    assert int8.is_dir() == ("bart" in str(checkpoint))
    for name in ("encoder.onnx", "model.onnx") if int8.is_dir() else ():
        assert (int8 / name).stat().st_size < (variant.path / "1" / name).stat().st_size
    before = (variant.path / "1" / "encoder.onnx").stat().st_mtime_ns
    assert export_generator(checkpoint, variant.path.parent) == variant
    assert (variant.path / "1" / "encoder.onnx").stat().st_mtime_ns == before


def with_outliers(checkpoint):
    """Lets the token that every answer begins with bring a huge value before one product of the
    encoder and one of the decoder."""
    import torch

    model, _ = library(checkpoint)
    dimension, channel = 0, 0
    with torch.no_grad():
        words = model.shared.weight
        words[:, dimension] = 0.0
        words[START, dimension] = 2 * words.abs().max()
        for side in (model.encoder, model.decoder):
            for block in side.block:
                for layer in block.layer[:-1]:  # only that token has anything there
                    attention = getattr(layer, "SelfAttention", None) or layer.EncDecAttention
                    attention.o.weight[dimension] = 0.0
            inner = side.block[0].layer[-1].DenseReluDense.wi.weight
            inner[channel] = 0.0
            inner[channel, dimension] = 200.0
    model.save_pretrained(checkpoint)
    return checkpoint


@pytest.mark.slow
def test_int8_leaves_alone_what_huge_values_would_spoil_in_either_graph(tmp_path):
    checkpoint = with_outliers(make_encoder_decoder(tmp_path / "checkpoint", "t5"))
    variant = export_generator(checkpoint, tmp_path / "repository")
    encoder, decoder = (variant.path / "1" / name for name in ("encoder.onnx", "model.onnx"))
    settings = settings_of(variant)
    pairs = [([START, *prompt], prompt[:5]) for prompt in prompts_of(checkpoint)]
    feeds = {
        encoder: encoder_feeds(source for source, _ in pairs),
        decoder: sourced_decoder_feeds(settings, encoder, pairs),
    }
    for graph, read in feeds.items():
        (spoilt,) = spoilt_products(graph, read)
        quantised = tmp_path / f"int8-{graph.name}"
        write_int8(graph, quantised, by_column=True, kept=[spoilt])
        left = {one.name for one in onnx.load(quantised).graph.node if one.op_type == "MatMul"}
        assert spoilt in left
    assert not list(encoder.parent.glob("watched*"))


def test_answers_at_their_limit_end_with_the_forced_token_and_say_so(made):
    checkpoint, variant = made
    model, _ = library(checkpoint)
    prompts = prompts_of(checkpoint)[2:4]
    for limit in (1, 2, 8):
        found = answers(engine_of(checkpoint, variant), prompts, max_tokens=limit)
        assert [one for one, _ in found] == generated(model, prompts, max_new_tokens=limit)
        if model.config.model_type == "bart":
            assert all(reason is FinishReason.LENGTH for _, reason in found)


def test_a_seed_gives_the_same_draw_alone_and_among_others(made):
    checkpoint, variant = made
    prompts = prompts_of(checkpoint)
    drawn = {"temperature": 1.0, "seed": 3}
    together = answers(engine_of(checkpoint, variant), prompts, **drawn)
    alone = answers(engine_of(checkpoint, variant), prompts[4:5], **drawn)
    assert together[4] == alone[0]
    assert together != answers(engine_of(checkpoint, variant), prompts)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [one for one in SHAPES if one not in {"t5", "bart"}])
def test_other_architectures_write_what_generate_writes(shape, tmp_path):
    checkpoint = make_encoder_decoder(tmp_path / "checkpoint", shape)
    variant = export_generator(checkpoint, tmp_path / "repository")
    model, _ = library(checkpoint)
    prompts = prompts_of(checkpoint)
    found = answers(engine_of(checkpoint, variant), prompts)
    assert [tokens for tokens, _ in found] == generated(model, prompts)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_beams": 4}, "searches with 4 beams, and answers are served greedily: say num_beams"),
        ({"encoder_repetition_penalty": 1.5}, "has encoder_repetition_penalty 1.5, which is not"),
        ({"bad_words_ids": [[7, 8]]}, "has bad_words_ids of several tokens"),
    ],
)
def test_what_generate_would_do_and_is_not_served_is_refused(asked, message, tmp_path):
    checkpoint = make_encoder_decoder(tmp_path / "checkpoint", "t5", layers=1, **asked)
    with pytest.raises(CheckpointError, match=message):
        export_generator(checkpoint, tmp_path / "repository")


def test_more_positions_than_a_table_has_are_refused(made, tmp_path):
    from harness.export.checkpoint import open_checkpoint
    from harness.export.generation.variants import GeneratorJob, export_generators
    from harness.study import Model

    checkpoint, _ = made
    if "bart" not in str(checkpoint):
        return
    model = Model.model_validate({"name": "m", "role": "student", "checkpoint": str(checkpoint)})
    job = GeneratorJob(model, open_checkpoint(model, folder=None), "f", tmp_path, context=65)
    with pytest.raises(CheckpointError, match=f"has {POSITIONS} positions; a context of 65"):
        export_generators(job, lambda _: None)
