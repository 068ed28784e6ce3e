"""A decoder with its slots writes what transformers' own generate() writes, token for token."""

import json
import shutil

import numpy as np
import onnx
import pytest
from generating_models import BOTH, POSITIONS, export_generator, make_generator
from tiny_models import LINES, byte_level_tokenizer
from tokenizers import Tokenizer

from harness.errors import CheckpointError, ParityError
from harness.export.checkpoint import open_checkpoint
from harness.export.convert import write_int8
from harness.export.generation import parity
from harness.export.generation.outliers import decoder_feeds, rounding_noise, spoilt_products
from harness.export.generation.parity import (
    NEW_TOKENS,
    DecoderSession,
    ask_generate,
    check_decoder,
)
from harness.export.generation.variants import (
    GeneratorJob,
    _Source,
    check_definition,
    export_generators,
)
from harness.serving.generation.contract import QueuedRequest
from harness.serving.generation.decoder import SlotDecoder
from harness.serving.generation.engine import GenerationEngine
from harness.study import Model
from harness.types import Precision
from harness.types.generation import GeneratorSettings, SamplingParameters


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def made(request, tmp_path_factory):
    """A checkpoint and its variants in fp32 and int8: Llama's shape has rotary positions and
    heads that share keys, GPT-2's a table of positions."""
    folder = tmp_path_factory.mktemp("generators") / request.param
    checkpoint = make_generator(folder / "checkpoint", request.param)
    return checkpoint, export_generator(checkpoint, folder / "repository", **BOTH)


def library(checkpoint):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    return model, transformers.AutoTokenizer.from_pretrained(checkpoint)


def settings_of(variant):
    return GeneratorSettings.from_json((variant.path / "1" / "generation.json").read_text())


def generated(checkpoint, prompts, count):
    """generate() itself, each prompt alone."""
    import torch

    model, _ = library(checkpoint)
    return [
        model.generate(
            torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None
        )[0, len(prompt) :].tolist()
        for prompt in prompts
    ]


def prompts_of(checkpoint):
    _, tokenizer = library(checkpoint)
    return [tokenizer(line)["input_ids"][:length] for line, length in zip(
        LINES, (1, 2, 7, 20, 33, 48), strict=True
    )]  # fmt: skip


def test_every_token_is_that_of_generate_whatever_stands_beside(made):
    """Rows begin at different times, in slots that move, and are written together."""
    checkpoint, variant = made
    prompts = prompts_of(checkpoint)
    wanted = generated(checkpoint, prompts, 30)
    decoder = SlotDecoder(variant.path / "1" / "model.onnx", settings_of(variant), slots=6)
    first = decoder.read(0, [np.array(one) for one in prompts[:3]], [0, 0, 0])
    written = [[int(row.argmax())] for row in first]
    lengths = [len(one) for one in prompts[:3]]

    def write():
        logits = decoder.write([one[-1] for one in written], lengths)
        for row, one in enumerate(written):
            lengths[row] += 1
            one.append(int(logits[row].argmax()))

    for _ in range(4):
        write()
    for slot in (3, 4, 5):  # a part of a prompt behind another
        prompt = np.array(prompts[slot])
        decoder.read(slot, [prompt[:9]], [0])
        last = decoder.read(slot, [prompt[9:]], [len(prompt[:9])])
        written.append([int(last[0].argmax())])
        lengths.append(len(prompt))
    for _ in range(25):
        write()
    assert [one[:26] for one in written] == [one[:26] for one in wanted]
    assert all(len(set(one)) > 5 for one in wanted)  # no text that says the same again and again
    # The last row moves to the second slot and goes on there.
    decoder.move(5, 1, lengths[5])
    rows, lengths = [written[0], written[5]], [lengths[0], lengths[5]]
    logits = decoder.write([rows[0][-1], rows[1][-1]], lengths)
    assert int(logits[1].argmax()) == wanted[5][len(rows[1])]


def test_logits_behind_every_token_are_the_library_s(made):
    import torch

    checkpoint, variant = made
    model, _ = library(checkpoint)
    prompt = prompts_of(checkpoint)[-1]
    with torch.inference_mode():
        expected = model(torch.tensor([prompt])).logits[0].numpy()
    decoder = SlotDecoder(variant.path / "1" / "model.onnx", settings_of(variant), slots=2)
    decoder.read_all(1, [np.array(prompt[:10])], [0])
    (answered,) = decoder.read_all(1, [np.array(prompt[10:])], [10])
    np.testing.assert_allclose(answered, expected[10:], atol=1e-3 * np.abs(expected).max())


def test_a_row_is_computed_alike_to_the_last_bit_alone_and_in_a_batch(made):
    """So a greedy answer cannot depend on who else is in the batch."""
    checkpoint, variant = made
    prompts = [np.array(one) for one in prompts_of(checkpoint)]
    path, settings = variant.path / "1" / "model.onnx", settings_of(variant)

    def logits_of(rows, which):
        decoder = SlotDecoder(path, settings, slots=6)
        read = decoder.read(0, [prompts[row] for row in rows], [0] * len(rows))[which].copy()
        write = decoder.write([5] * len(rows), [len(prompts[row]) for row in rows])
        return read, write[which].copy()

    for row in (1, 3):
        alone, together = logits_of([row], 0), logits_of(range(6), row)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)


def test_tokens_read_together_are_computed_as_one_by_one(made):
    """So a draft, whose tokens are checked together, does not change what is written.

    To the last bit where heads share keys; else ONNX Runtime takes another product for a single
    row of scores, which rounds otherwise.
    """
    checkpoint, variant = made
    prompts = [np.array(one) for one in prompts_of(checkpoint)[:3]]
    lengths = [len(one) for one in prompts]
    ahead = [np.array([5, 9, 2, 7]), np.array([1, 8, 8, 3]), np.array([6, 4, 5, 2])]

    def opened():
        path = variant.path / "1" / "model.onnx"
        decoder = SlotDecoder(path, settings_of(variant), slots=3)
        decoder.read(0, prompts, [0] * 3)
        return decoder

    together = opened().read_all(0, ahead, lengths)
    decoder = opened()
    model, _ = library(checkpoint)
    heads = model.config.num_attention_heads
    rounding = 0 if settings_of(variant).heads < heads else 1e-5 * np.abs(together).max()
    for place in range(4):
        seen = [length + place for length in lengths]
        one_by_one = decoder.write([int(row[place]) for row in ahead], seen)
        np.testing.assert_allclose(together[:, place], one_by_one, rtol=0, atol=rounding)


def test_the_gate_s_session_and_the_engine_s_decoder_agree(made):
    checkpoint, variant = made
    path, settings = variant.path / "1" / "model.onnx", settings_of(variant)
    prompt = np.array([prompts_of(checkpoint)[3]])
    at = np.array([[prompt.shape[1] - 1]])
    plain = DecoderSession(path, settings, 1).step(prompt, np.zeros(1, np.int64), at)
    bound = SlotDecoder(path, settings, slots=1).read(0, [prompt[0]], [0])
    np.testing.assert_array_equal(plain[0, 0], bound[0])


def test_what_is_written_down_of_an_export(made):
    checkpoint, variant = made
    manifest = json.loads((variant.path / "manifest.json").read_text())
    assert manifest["parity"]["agreement"] == 1.0
    assert manifest["parity"]["prompts"] == len(manifest["recipe"]["prompts"]) >= 5
    assert manifest["recipe"]["context"] == settings_of(variant).context == POSITIONS
    int8 = variant.path.with_name("writer-int8")
    assert (int8 / "1" / "model.onnx").stat().st_size < variant.size_bytes
    # The same checkpoint again: nothing is made anew.
    before = (variant.path / "1" / "model.onnx").stat().st_mtime_ns
    again = export_generator(checkpoint, variant.path.parent, **BOTH)
    assert again == variant
    assert (variant.path / "1" / "model.onnx").stat().st_mtime_ns == before


def test_a_graph_with_other_weights_does_not_pass_the_gate(made, tmp_path):
    checkpoint, variant = made
    texts = ask_generate(library(checkpoint)[0], prompts_of(checkpoint), 8)
    graph = onnx.load(variant.path / "1" / "model.onnx")
    matrices = [one for one in graph.graph.initializer if len(one.dims) == 2 and one.dims[1] > 8]
    spoiled = matrices[-1]
    values = onnx.numpy_helper.to_array(spoiled)
    spoiled.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1, axis=0), spoiled.name))
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    for precision in (Precision.FP32, Precision.INT8):
        with pytest.raises(ParityError, match=r"generate\(\) writes|not the model"):
            check_decoder(path, settings_of(variant), texts, precision, "spoiled")


def test_a_long_prompt_is_in_no_batch_and_read_in_parts(made, monkeypatch):
    monkeypatch.setattr(parity, "TOGETHER", 20)
    checkpoint, variant = made
    texts = ask_generate(library(checkpoint)[0], prompts_of(checkpoint)[::-1], 8)
    path, steps = variant.path / "1" / "model.onnx", []
    step = DecoderSession.step

    def watched(session, ids, start, at):
        if start[0] == 0 or ids.shape[1] > 1:
            steps.append((*ids.shape, int(start[0])))
        return step(session, ids, start, at)

    monkeypatch.setattr(DecoderSession, "step", watched)
    found = check_decoder(path, settings_of(variant), texts, Precision.FP32, "writer")
    assert (found.agreement, found.prompts) == (1.0, 6)
    lengths = [len(one) for one in prompts_of(checkpoint)]
    assert lengths == [1, 2, 7, 20, 33, 25]
    alone = [(1, 20, 0), (1, 5, 20), (1, 20, 0), (1, 13, 20)]
    assert steps == [(4, 20, 0), *alone]


def with_window(checkpoint, folder, window):
    """The same weights, told of another window of attention."""
    shutil.copytree(checkpoint, folder)
    told = json.loads((folder / "config.json").read_text()) | {"sliding_window": window}
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def test_attention_behind_a_window_is_seen_in_the_longest_prompt(tmp_path):
    """A graph that keeps no window, beside a library that has one of 73 tokens."""
    made = make_generator(tmp_path / "made", "mistral")
    endless, narrow = (
        with_window(made, tmp_path / name, window)
        for name, window in (("endless", None), ("narrow", 73))
    )
    variant = export_generator(endless, tmp_path / "repository")
    prompts = json.loads((variant.path / "manifest.json").read_text())["recipe"]["prompts"]
    assert len(prompts[-1]) == POSITIONS - NEW_TOKENS
    texts = ask_generate(library(narrow)[0], prompts)
    path, settings = variant.path / "1" / "model.onnx", settings_of(variant)
    short = [one for one in texts if len(one.prompt) <= 73 - NEW_TOKENS]
    assert len(short) < len(texts)
    check_decoder(path, settings, short, Precision.FP32, "writer")
    with pytest.raises(ParityError, match=r"generate\(\) writes"):
        check_decoder(path, settings, texts, Precision.FP32, "writer")


@pytest.mark.parametrize(
    ("window", "context", "longest"),
    [(None, 4096, 512), (700, 4096, 764), (700, 720, 512), (3000, 3050, 3026), (None, 300, 276)],
)
def test_the_longest_prompt_is_behind_the_window(window, context, longest, tmp_path):
    checkpoint = make_generator(tmp_path / "made", "mistral")
    told = json.loads((checkpoint / "config.json").read_text())
    told |= {"sliding_window": window, "max_position_embeddings": 4096}
    (checkpoint / "config.json").write_text(json.dumps(told))
    model = Model.model_validate({"name": "m", "role": "student", "checkpoint": str(checkpoint)})
    opened = open_checkpoint(model, folder=None)
    job = GeneratorJob(model, opened, "f", tmp_path, prompts=["one two"], context=context)
    lengths = [len(one) for one in _Source(job, tmp_path).prompts]
    assert (lengths[0], lengths[-1], 48 in lengths) == (1, longest, True)


def test_an_end_token_that_the_model_has_not_is_none(tmp_path):
    """As a small GPT-2 that kept the configuration of the large one: the library never meets it."""
    checkpoint = make_generator(tmp_path / "made", "gpt2")
    asked = checkpoint / "generation_config.json"
    told = json.loads(asked.read_text()) | {"eos_token_id": [50256, 2]}
    asked.write_text(json.dumps(told))
    variant = export_generator(checkpoint, tmp_path / "repository")
    settings = settings_of(variant)
    assert (settings.end_tokens, settings.vocabulary > 2) == ((2,), True)
    asked.write_text(json.dumps(told | {"forced_eos_token_id": 50256}))
    with pytest.raises(CheckpointError, match="forced_eos_token_id 50256, and the model"):
        export_generator(checkpoint, tmp_path / "forced")


def test_a_longer_context_than_the_model_has_is_refused(made, tmp_path):
    model = Model.model_validate({"name": "m", "role": "student", "checkpoint": str(made[0])})
    job = GeneratorJob(model, open_checkpoint(model, folder=None), "f", tmp_path, context=97)
    with pytest.raises(CheckpointError, match="has 96 positions; a context of 97 tokens"):
        export_generators(job, lambda _: None)


def test_a_tokenizer_that_makes_other_tokens_in_the_server_is_refused():
    tokenizer = byte_level_tokenizer()
    definition = tokenizer.backend_tokenizer.to_str()
    check_definition(definition, tokenizer, LINES)
    begun = byte_level_tokenizer(begin_of_text=True)
    with pytest.raises(CheckpointError, match=r"where transformers makes \[1, "):
        check_definition(definition, begun, LINES)


def test_a_tokenizer_that_splits_special_tokens_does_so_in_the_server(tmp_path):
    """Its tokenizer.json does not say so."""
    checkpoint = make_generator(tmp_path / "made")
    told = json.loads((checkpoint / "tokenizer_config.json").read_text())
    told["split_special_tokens"] = True
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(told))
    variant = export_generator(checkpoint, tmp_path / "repository")
    settings, (_, tokenizer) = settings_of(variant), library(checkpoint)
    assert settings.split_special_tokens
    definition = (variant.path / "1" / "tokenizer.json").read_text()
    named = ["cat <|begin|> cat"]
    check_definition(definition, tokenizer, named, split_special_tokens=True)
    with pytest.raises(CheckpointError, match="where transformers makes"):
        check_definition(definition, tokenizer, named)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["mistral", "qwen3", "opt", "gpt_neox", "phi", "gemma2"])
def test_other_architectures_write_what_generate_writes(shape, tmp_path):
    """The gate says so, or refuses; sliding windows and capped scores are among them."""
    checkpoint = make_generator(tmp_path / "checkpoint", shape)
    variant = export_generator(checkpoint, tmp_path / "repository")
    assert json.loads((variant.path / "manifest.json").read_text())["parity"]["agreement"] == 1.0


@pytest.mark.slow
def test_a_model_whose_attention_is_its_own_code_is_refused(tmp_path):
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    model = transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=1, n_head=2)
    )
    for one in (model, tokenizer):
        one.save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="Bloom"):
        export_generator(tmp_path / "checkpoint", tmp_path / "repository")


def with_outlier(checkpoint):
    """Lets one token, with which the export's prompts begin, bring a value as trained models have
    it: a thousand times the others, in one place before the second matrix of one layer."""
    import torch

    model, tokenizer = library(checkpoint)
    first = tokenizer(LINES[0])["input_ids"][0]
    layer, channel, dimension = model.model.layers[0], 0, 0
    with torch.no_grad():
        words = model.model.embed_tokens.weight
        words[:, dimension] = 0.0
        words[first, dimension] = words.abs().max()
        for one in model.model.layers:
            one.self_attn.o_proj.weight[dimension] = 0.0  # only that token has anything there
        for matrix in (layer.mlp.gate_proj, layer.mlp.up_proj):
            matrix.weight[channel] = 0.0
            matrix.weight[channel, dimension] = 20.0
    model.save_pretrained(checkpoint)
    return checkpoint


def test_int8_leaves_alone_what_a_single_huge_value_would_spoil(tmp_path):
    checkpoint = with_outlier(make_generator(tmp_path / "checkpoint"))
    variant = export_generator(checkpoint, tmp_path / "repository", **BOTH)
    path, settings = variant.path / "1" / "model.onnx", settings_of(variant)
    (first, *_), *_ = prompts = prompts_of(checkpoint)
    prompts = [[first, *prompt] for prompt in prompts]
    (spoilt,) = spoilt_products(path, decoder_feeds(settings, prompts))
    assert not list(path.parent.glob("watched*"))
    kept = {node.name for node in onnx.load(path).graph.node if node.op_type == "MatMul"}
    int8 = tmp_path / "repository" / "writer-int8" / "1" / "model.onnx"
    left = {node.name for node in onnx.load(int8).graph.node if node.op_type == "MatMul"}
    assert spoilt in left
    assert len(left & kept) < len(kept)
    model, _ = library(checkpoint)
    texts = ask_generate(model, prompts, 8)
    whole = tmp_path / "whole.onnx"
    write_int8(path, whole, by_column=True)
    off = {
        one: check_decoder(one, settings, texts, Precision.INT8, "writer").max_difference
        for one in (int8, whole)
    }
    assert off[int8] < 0.7 * off[whole], off


def test_the_noise_of_rounding_is_that_of_an_ordinary_token():
    values = np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
    alone = rounding_noise(values)
    assert alone < 1e-3
    values[0, 5] = 4000.0
    assert rounding_noise(values) == pytest.approx(4000**2 / 255**2 / 12, rel=0.2)
    assert rounding_noise(np.zeros((3, 4), np.float32)) == 0.0


RULES = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "suppress_tokens": [4, 55, 112],
    "begin_suppress_tokens": [9, 10],
    "bad_words_ids": [[7], [0]],
    "min_length": 30,
    "forced_eos_token_id": 0,
}


def test_what_a_checkpoint_asks_of_its_answers_is_kept(tmp_path):
    """The penalty counts the prompt's tokens, and so does the least length."""
    import torch

    checkpoint = make_generator(tmp_path / "checkpoint", **RULES)
    variant = export_generator(checkpoint, tmp_path / "repository")
    model, tokenizer = library(checkpoint)
    folder = variant.path / "1"
    decoder = SlotDecoder(folder / "model.onnx", settings_of(variant), slots=3)
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    engine = GenerationEngine(decoder, made, settings_of(variant))
    prompts = [tokenizer(line)["input_ids"] for line in LINES]
    answers = [[] for _ in prompts]
    for prompt, answer in zip(prompts, answers, strict=True):
        wanted = SamplingParameters(max_tokens=24)
        engine.submit(QueuedRequest(prompt, wanted, lambda piece, own=answer: own.append(piece)))
    while engine.step():
        pass
    for prompt, answer in zip(prompts, answers, strict=True):
        written = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
        tokens = [token for piece in answer for token in piece.tokens]
        assert tokens == written[0, len(prompt) :].tolist()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"num_beams": 3}, "searches with 3 beams"),
        ({"sequence_bias": [[[5], 2.0]]}, "has sequence_bias"),
        ({"bad_words_ids": [[5, 6]]}, "bad_words_ids of several tokens"),
    ],
)
def test_what_a_checkpoint_asks_and_is_not_served_is_refused(asked, told, tmp_path):
    checkpoint = make_generator(tmp_path / "checkpoint", **asked)
    with pytest.raises(CheckpointError, match=told):
        export_generator(checkpoint, tmp_path / "repository")
