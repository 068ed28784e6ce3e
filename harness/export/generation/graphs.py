"""The graphs of a generating checkpoint in single precision, checked against the bare library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.export.convert import write_int8
from harness.export.generation.checkpoint_rules import answer_rules, decoder_start, unserved
from harness.export.generation.convert import write_decoder
from harness.export.generation.encoder_decoder_files import write_encoder_decoder
from harness.export.generation.encoder_decoder_parity import (
    ask_generate_of_sources,
    check_encoder_decoder,
)
from harness.export.generation.outliers import (
    Feed,
    decoder_feeds,
    encoder_feeds,
    sourced_decoder_feeds,
    spoilt_products,
)
from harness.export.generation.parity import (
    NEW_TOKENS,
    GenerationParity,
    ask_generate,
    check_decoder,
)
from harness.export.generation.rules_parity import (
    ask_generate_with_rules,
    check_forced,
    check_rules,
)
from harness.export.source import ONNX_FILE
from harness.types import Precision
from harness.types.generation import ENCODER_FILE, AnswerRules, GeneratorSettings

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

Check = Callable[[Path, Precision, str], GenerationParity]


@dataclass(frozen=True)
class MadeGraphs:
    """What is served of a checkpoint, before a precision is chosen."""

    settings: GeneratorSettings
    graphs: tuple[Path, ...]
    """Files in single precision; weights may lie beside them."""
    check: Check
    """Holds the graphs of a folder in a precision against the library, under a name for messages;
    raises ParityError."""
    feeds: Callable[[Path], Iterable[Feed]]
    """What one of the graphs reads where the library's answers are written."""

    def quantise(self, graph: Path, path: Path) -> None:
        """Write one of the graphs in int8; products that huge values would spoil stay as they are.

        Args:
            graph: its file.
            path: the file to write.
        """
        kept = spoilt_products(graph, self.feeds(graph))
        write_int8(graph, path, by_column=True, kept=kept)


def graphs_of_causal(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    context: int,
    folder: Path,
    *,
    num_beams: int | None,
    name: str,
) -> MadeGraphs:
    """The decoder of a causal model.

    Args:
        model: as the library loads it; of no other use afterwards.
        prompts: tokens that the library is asked to go on with.
        context: tokens of prompt and answer together.
        folder: where the graph is written.
        num_beams: 1 accepts greedy answers of a checkpoint that searches with beams.
        name: of the checkpoint, for messages.

    Raises:
        CheckpointError: it cannot be exported, or its `generation_config` asks for what is not
            served.
        ParityError: its graph writes other tokens than the library.
    """
    from harness.export.generation.graph import cache_shape

    asked = _served_configuration(model, num_beams, name)
    new_tokens = min(NEW_TOKENS, context - 1)
    library = ask_generate(model, prompts, new_tokens)
    shape, vocabulary = cache_shape(model), library[0].logits.shape[-1]
    settings = GeneratorSettings(
        *shape,
        vocabulary=vocabulary,
        context=context,
        end_tokens=_end_tokens(asked, vocabulary),
        start_token=asked.bos_token_id,
        rules=answer_rules(asked),
    )
    check_forced(settings, name)
    if settings.rules != AnswerRules():
        check_rules(settings, ask_generate_with_rules(model, prompts, new_tokens), new_tokens, name)
    write_decoder(model, shape, folder / ONNX_FILE)

    def check(where: Path, precision: Precision, called: str) -> GenerationParity:
        return check_decoder(where / ONNX_FILE, settings, library, precision, called)

    def feeds(_: Path) -> Iterable[Feed]:
        return decoder_feeds(settings, ((*one.prompt, *one.tokens) for one in library))

    check(folder, Precision.FP32, name)
    return MadeGraphs(settings, (folder / ONNX_FILE,), check, feeds)


def graphs_with_encoder(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    context: int,
    folder: Path,
    *,
    num_beams: int | None,
    name: str,
) -> MadeGraphs:
    """The encoder and the decoder of an encoder-decoder.

    Args:
        model: as the library loads it; of no other use afterwards.
        prompts: tokens that the library is asked to answer.
        context: tokens of a prompt at most, and of an answer with its start token.
        folder: where the graphs are written.
        num_beams: 1 accepts greedy answers of a checkpoint that searches with beams.
        name: of the checkpoint, for messages.

    Raises:
        CheckpointError: it cannot be exported, or its `generation_config` asks for what is not
            served.
        ParityError: its graphs write other tokens than the library.
    """
    from harness.export.generation.encoder_decoder import sourced_cache_shape

    asked = _served_configuration(model, num_beams, name)
    new_tokens = min(NEW_TOKENS, context - 1)
    shape = sourced_cache_shape(model)
    library = ask_generate_of_sources(model, prompts, new_tokens)
    vocabulary = library[0].logits.shape[-1]
    settings = GeneratorSettings(
        *shape,
        vocabulary=vocabulary,
        context=context,
        end_tokens=_end_tokens(asked, vocabulary),
        start_token=None,
        source_context=context,
        decoder_start=decoder_start(asked, name),
        rules=answer_rules(asked),
    )
    check_forced(settings, name)
    check_rules(settings, library, new_tokens, name)
    graphs = (folder / ENCODER_FILE, folder / ONNX_FILE)
    write_encoder_decoder(model, settings, *graphs)

    def check(where: Path, precision: Precision, called: str) -> GenerationParity:
        files = (where / ENCODER_FILE, where / ONNX_FILE)
        return check_encoder_decoder(
            files, settings, library, precision, new_tokens=new_tokens, name=called
        )

    def feeds(graph: Path) -> Iterable[Feed]:
        pairs = ((one.prompt, one.tokens) for one in library)
        if graph == graphs[0]:
            return encoder_feeds(source for source, _ in pairs)
        return sourced_decoder_feeds(settings, graphs[0], pairs)

    check(folder, Precision.FP32, name)
    return MadeGraphs(settings, graphs, check, feeds)


def _served_configuration(
    model: PreTrainedModel, num_beams: int | None, name: str
) -> GenerationConfig:
    """What a checkpoint asks of its answers, if all of it is served.

    Raises:
        CheckpointError: it is not.
    """
    asked = model.generation_config
    assert asked is not None  # noqa: S101  (models that write have one)
    has_encoder = bool(model.config.is_encoder_decoder)
    problems = list(unserved(asked, num_beams, has_encoder=has_encoder))
    if problems:
        raise CheckpointError(f"checkpoint {name}: {'; '.join(problems)}")
    return asked


def _end_tokens(asked: GenerationConfig, vocabulary: int) -> tuple[int, ...]:
    """The tokens at which `generate()` stops, of those that the model can write at all.

    A small model with the configuration of a large one may name an end token that it has not.
    """
    configured: Any = asked.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return tuple(int(one) for one in ends if one is not None and 0 <= one < vocabulary)
