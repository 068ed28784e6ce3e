"""Generations end where stock lm-eval ends them: stops of every kind, one prompt a batch.

The model is asked in this process by a predictor that knows transformers alone, so that only what
is done with its answers is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import DataError
from harness.quality.lm_eval.generation import end_tokens, generation_settings
from harness.quality.lm_eval.model import ServedLM
from harness.quality.lm_eval.tasks import lm_eval_quiet
from harness.quality.token_scores import TokenScorer
from harness.tasks.tokenizers import load_tokenizer
from harness.types import ModelFormat, ModelVariant, Precision, Role, TensorSpec
from tests.bare_language_model import Bare
from tests.tiny_models import LINES, WEIGHT_SPREAD

POSITIONS = 48
NEW_TOKENS = 12
SPECIAL = ["<|end|>", "<|begin|>", "<|im_end|>", *(f"<|mark{n}|>" for n in range(60))]
"""So many that a random model says some of them."""
PROMPTS = [*LINES, *(line[:17] for line in LINES), "<|begin|>naïve", "<|end|>a server", " "]


@dataclass(frozen=True)
class Checkpoint:
    folder: Path

    @cached_property
    def stock(self) -> Any:
        from lm_eval.models.huggingface import HFLM

        return HFLM(str(self.folder), device="cpu", dtype="float32", batch_size=1)

    @cached_property
    def ours(self) -> ServedLM:
        tokenizer = load_tokenizer(self.folder)
        variant = ModelVariant(
            name="lm", family="f", role=Role.TEACHER, task="causal-lm",
            format=ModelFormat.ONNX, precision=Precision.FP32, source="", sha256="",
            path=self.folder, parameters=1, size_bytes=1,
            inputs=tuple(TensorSpec(n, "INT64", (-1,)) for n in ("input_ids", "attention_mask")),
            outputs=(
                TensorSpec("token_logprobs", "FP32", (-1,)),
                TensorSpec("greedy_token_ids", "INT64", (-1,)),
            ),
        )  # fmt: skip
        scorer = TokenScorer(variant, Bare(self.folder), pad_token_id=tokenizer.pad_token_id)
        return ServedLM(
            scorer,
            tokenizer,
            max_length=POSITIONS,
            end_tokens=end_tokens(generation_settings(self.folder)),
        )

    def both(self, options: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """What our model and lm-eval's own make of every prompt."""
        with lm_eval_quiet():
            ours, stock = (
                lm.generate_until(
                    [
                        SimpleNamespace(args=(prompt, {**options, "max_gen_toks": NEW_TOKENS}))
                        for prompt in PROMPTS
                    ]
                )
                for lm in (self.ours, self.stock)
            )
        return ours, stock

    @cached_property
    def unstopped(self) -> list[str]:
        return self.both({"until": []})[0]

    def made(self, prompt: str) -> list[int]:
        """What transformers alone generates after a prompt."""
        tokenizer, model = self.stock.tokenizer, self.stock.model
        begins = tokenizer.bos_token is None or not prompt.startswith(tokenizer.bos_token)
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=begins).input_ids
        kwargs = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
        return model.generate(ids, **kwargs)[0, ids.shape[1] :].tolist()


def make(folder: Path, *, begin: bool, settings: Mapping[str, Any] | None = None) -> Checkpoint:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if begin:
        backend.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", 1)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL[2:],
        **({"bos_token": "<|begin|>"} if begin else {}),
    )
    torch.manual_seed(5)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=2,
        initializer_range=WEIGHT_SPREAD, bos_token_id=1, eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if settings is not None:
        GenerationConfig(**settings).save_pretrained(folder)
    return Checkpoint(folder)


@pytest.fixture(scope="module", params=[False, True], ids=["no begin token", "begin token"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory) -> Checkpoint:
    return make(tmp_path_factory.mktemp("generation") / "lm", begin=request.param)


STOPS = {
    "special": ["<|mark58|>"],
    "a string alone": "<|mark9|>",
    "several": ["go", "<|mark38|>", " a"],
    "special and text": ["<|mark58|>p", "<|mark58|> a"],
    "over two tokens": ["mpp", "roc", "umpmp"],
    "within a token": ["m", "k38|", "hap"],
    "leading space": [" a", " shap"],
    "a character that is not whole": ["\ufffd"],
    "nothing": [""],
    "none": [],
}


@pytest.mark.parametrize("until", STOPS.values(), ids=STOPS.keys())
def test_a_generation_ends_where_stock_lm_eval_ends_it(checkpoint: Checkpoint, until) -> None:
    ours, stock = checkpoint.both({"until": until})
    assert ours == stock
    assert (ours != checkpoint.unstopped) == bool(until)


def test_a_special_token_ends_a_generation_and_is_no_part_of_its_text(
    checkpoint: Checkpoint,
) -> None:
    tokenizer = checkpoint.stock.tokenizer
    mark = tokenizer.convert_tokens_to_ids("<|mark58|>")
    ours, _ = checkpoint.both({"until": ["<|mark58|>"]})
    ended = 0
    for text, prompt in zip(ours, PROMPTS, strict=True):
        made = checkpoint.made(prompt)
        if mark in made:
            ended += 1
            made = made[: made.index(mark)]
        assert text == tokenizer.decode(made, skip_special_tokens=True)
    assert ended >= 5


def test_every_end_token_of_the_generation_settings_ends_it(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain", begin=False)
    vocabulary = plain.stock.tokenizer.get_vocab()
    ends = [0, vocabulary["p"], vocabulary["<|mark9|>"]]
    checkpoint = make(tmp_path / "lm", begin=False, settings={"eos_token_id": ends})

    ours, stock = checkpoint.both({"until": ["go"]})

    assert ours == stock
    # One that is not a special token stands in the text, as transformers leaves it there.
    assert sum(text.endswith("p") for text in ours) >= 2
    assert ours != plain.both({"until": ["go"]})[0]


def test_settings_without_an_end_token_do_not_fall_back_to_the_configuration(
    tmp_path: Path,
) -> None:
    """`config.json` names token 0, which the tokenizer calls otherwise."""
    checkpoint = make(tmp_path / "lm", begin=False, settings={"bos_token_id": 1})
    assert end_tokens(generation_settings(checkpoint.folder)) == frozenset()
    (checkpoint.folder / "generation_config.json").unlink()
    assert end_tokens(generation_settings(checkpoint.folder)) == {0}


def test_a_long_prompt_is_cut_from_the_left_to_leave_room(checkpoint: Checkpoint) -> None:
    long = " ".join(LINES)
    asked = [SimpleNamespace(args=(long, {"until": ["go"], "max_gen_toks": NEW_TOKENS}))]
    with lm_eval_quiet():
        ours, stock = (one.generate_until(asked) for one in (checkpoint.ours, checkpoint.stock))
    assert ours == stock
    assert checkpoint.ours.counts.truncated == 1


def test_an_answer_that_leaves_no_room_for_its_prompt_is_refused(checkpoint: Checkpoint) -> None:
    asked = [SimpleNamespace(args=(LINES[0], {"until": ["go"], "max_gen_toks": POSITIONS}))]
    with pytest.raises(DataError, match=f"{POSITIONS} new tokens, and the model takes"):
        checkpoint.ours.generate_until(asked)
    with lm_eval_quiet(), pytest.raises(AssertionError, match="must be less than"):
        checkpoint.stock.generate_until(asked)
