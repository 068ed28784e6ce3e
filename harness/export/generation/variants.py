"""From a checkpoint to the generating variants that are served: the export, top to bottom.

An artefact's folder in the model repository:

    <variant>/1/model.onnx        the decoder (with model.onnx.data beside it above 1.8 GB)
    <variant>/1/encoder.onnx      of an encoder-decoder, what reads its prompts
    <variant>/1/generation.json   what whoever runs it must know of it
    <variant>/1/tokenizer.json    as transformers built it
    <variant>/tokenizer/          the checkpoint's tokenizer, chat template and configuration
    <variant>/manifest.json       digests, tensors, parity, versions

`config.pbtxt`, and the Python that Triton runs, join them when serving writes them.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError, HarnessError
from harness.export.artefacts import make_artefacts
from harness.export.checkpoint import Checkpoint
from harness.export.checkpoint_files import (
    CODE_FILES,
    SMALL_FILES,
    load_model,
    positions_held,
    read_config,
    windows_of,
)
from harness.export.convert import OPSET, artefact_files
from harness.export.folders import (
    ArtefactManifest,
    digest_files,
    read_manifest,
    repository_lock,
    scratch_folder,
    staged_folder,
    write_manifest,
)
from harness.export.generation.checkpoint_rules import answer_rules, read_generation_config
from harness.export.generation.graphs import MadeGraphs, graphs_of_causal, graphs_with_encoder
from harness.export.generation.outliers import MOST_NOISE
from harness.export.generation.parity import NEW_TOKENS
from harness.export.source import ONNX_FILE
from harness.study import Model
from harness.system.libraries import require_extra
from harness.tasks.registry import family_of
from harness.tasks.tokenizers import load_tokenizer, open_bare, with_special_tokens
from harness.types import ModelFormat, ModelVariant, Precision, Progress, TensorSpec
from harness.types import generation as tensors
from harness.types.generation import (
    ENCODER_FILE,
    SETTINGS_FILE,
    TOKENIZER_FILE,
    AnswerRules,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KIND = "generation"
DEFAULT_CONTEXT = 1024
"""Tokens of prompt and answer, where nobody says: memory grows with it, and so does each slot."""
REVISION = 1
"""Revision of the recipe: raise it when the same checkpoint would export to another graph."""
LONG_PROMPT = 512
"""Tokens of the longest prompt in which a graph is held against the library."""
BEHIND_WINDOW = 64
"""Tokens that the prompt has more than a window of attention which lies within the context."""
_TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
_PROMPTS = 6
INPUTS = (
    TensorSpec(tensors.TEXT_INPUT, "BYTES", (1,)),
    TensorSpec(tensors.INPUT_IDS, "INT32", (-1,)),
    TensorSpec(tensors.STREAM, "BOOL", (1,)),
    TensorSpec(tensors.SAMPLING_PARAMETERS, "BYTES", (1,)),
    TensorSpec(tensors.EXCLUDE_INPUT_IN_OUTPUT, "BOOL", (1,)),
    TensorSpec(tensors.RETURN_FINISH_REASON, "BOOL", (1,)),
    TensorSpec(tensors.RETURN_NUM_INPUT_TOKENS, "BOOL", (1,)),
    TensorSpec(tensors.RETURN_NUM_OUTPUT_TOKENS, "BOOL", (1,)),
    TensorSpec(tensors.RETURN_QUEUE_TIME, "BOOL", (1,)),
)
"""All optional, except that there must be a text or tokens."""
OUTPUTS = (
    TensorSpec(tensors.TEXT_OUTPUT, "BYTES", (-1,)),
    TensorSpec(tensors.FINISH_REASON, "BYTES", (1,)),
    TensorSpec(tensors.NUM_INPUT_TOKENS, "UINT32", (1,)),
    TensorSpec(tensors.NUM_OUTPUT_TOKENS, "UINT32", (1,)),
    TensorSpec(tensors.TOKEN_IDS, "INT32", (-1,)),
    TensorSpec(tensors.QUEUE_TIME_US, "UINT32", (1,)),
    TensorSpec(tensors.PROMPT_LOGPROBS, "FP32", (-1,)),
    TensorSpec(tensors.PROMPT_RANKS, "INT32", (-1,)),
)


@dataclass(frozen=True)
class GeneratorJob:
    """A model that is to be served for generation, and where its variants go."""

    model: Model
    checkpoint: Checkpoint
    family: str
    repository: Path
    prompts: Sequence[str] = ()
    """Texts that the library is asked to go on with; a few are taken, from short to long."""
    context: int | None = None
    """Tokens of prompt and answer (with an encoder, of each); None: the model's positions,
    `DEFAULT_CONTEXT` at most."""
    num_beams: int | None = None
    """1: greedy answers are wanted, though the checkpoint's configuration asks for more beams."""


def export_generators(
    job: GeneratorJob,
    progress: Callable[[Progress], None],
    failed: Callable[[str, HarnessError], None] | None = None,
) -> tuple[ModelVariant, ...]:
    """Make every precision of a generating model exist in the repository, checked.

    What is there already, unharmed and from an equal recipe, stays.

    Args:
        job: the model.
        progress: told about each artefact.
        failed: takes the name of an artefact that cannot be made, with its error, and the others
            go on; None ends the export with the first such error.

    Returns:
        One variant an artefact that is there, in the study's order.

    Raises:
        CheckpointError: the checkpoint cannot be exported for generation.
        ParityError: an artefact writes other tokens than the checkpoint.
        StorageError: the repository cannot be written.
        MissingExtraError: torch or an ONNX package is not installed.
    """
    require_extra("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
    with repository_lock(job.repository), scratch_folder(job.repository) as scratch:
        source = _Source(job, scratch)

        def make(name: str, precision: Precision, form: ModelFormat) -> ModelVariant:
            manifest = _manifest(source, job.repository / name, precision, form)
            return _variant(manifest, job.repository / name, job, precision)

        return make_artefacts(job.model, make, progress, failed)


@dataclass(frozen=True)
class _Source:
    """A checkpoint while it is exported: loaded once, asked once, traced once."""

    job: GeneratorJob
    scratch: Path

    def load(self) -> PreTrainedModel:
        """The bare checkpoint, with the library's own choice of attention."""
        model, folder = self.job.model, self.job.checkpoint.folder
        return load_model(model, folder, family_of(KIND), attention=None)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's own tokenizer."""
        trusted = self.job.model.trust_remote_code
        load_tokenizer(self.job.checkpoint.folder, trust_remote_code=trusted)  # refuses a slow one
        return open_bare(self.job.checkpoint.folder, trust_remote_code=trusted)

    @cached_property
    def context(self) -> int:
        """Tokens of prompt and answer.

        Raises:
            CheckpointError: more are asked for than the model has positions.
        """
        held = positions_held(read_config(self.job.model, self.job.checkpoint.folder))
        wanted = self.job.context or min(held or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        if held is not None and wanted > held:
            raise CheckpointError(
                f"checkpoint {self.job.checkpoint.name} has {held} positions; a context of "
                f"{wanted} tokens is asked for"
            )
        return wanted

    @cached_property
    def prompts(self) -> tuple[tuple[int, ...], ...]:
        """Tokens of a few prompts, from one token to a long one, behind any window of attention.

        The long one has `LONG_PROMPT` tokens or `BEHIND_WINDOW` more than such a window, and all
        that the context has room for where that is less.
        """
        room = self.context if self.has_encoder else max(1, self.context - NEW_TOKENS)
        rows = [self.tokenizer(text)["input_ids"] for text in self.job.prompts]
        joined: list[int] = [token for row in rows for token in row]
        if not joined:
            joined = list(range(min(len(self.tokenizer), 64)))
        config = read_config(self.job.model, self.job.checkpoint.folder)
        windows = [window for window in windows_of(config) if window < room]
        wanted = {1, 48, max([LONG_PROMPT, *(one + BEHIND_WINDOW for one in windows)])}
        lengths = {min(room, max(1, length)) for length in (*wanted, *map(len, _spread(rows)))}
        repeats = -(-max(lengths) // len(joined))
        tokens = joined * repeats
        return tuple(tuple(tokens[:length]) for length in sorted(lengths))

    @cached_property
    def has_encoder(self) -> bool:
        """Whether an encoder reads the prompts."""
        return bool(read_config(self.job.model, self.job.checkpoint.folder).is_encoder_decoder)

    @cached_property
    def splits_special_tokens(self) -> bool:
        """Whether a special token's name in a text is text like any other."""
        return bool(self.tokenizer.split_special_tokens)

    @cached_property
    def made(self) -> MadeGraphs:
        """The graphs in single precision, checked, with what the library writes of the prompts."""
        make = graphs_with_encoder if self.has_encoder else graphs_of_causal
        return make(
            self.load(),
            self.prompts,
            self.context,
            self.scratch,
            num_beams=self.job.num_beams,
            name=self.job.checkpoint.name,
        )

    @cached_property
    def has_rules(self) -> bool:
        """Whether the checkpoint asks something of every answer."""
        folder = self.job.checkpoint.folder
        config = read_config(self.job.model, folder)
        return answer_rules(read_generation_config(folder, config)) != AnswerRules()

    def recipe(self, precision: Precision) -> dict[str, Any]:
        """All that decides what the artefact is, as JSON has it."""
        return {
            "revision": REVISION,
            "checkpoint": self.job.checkpoint.digest,
            "kind": KIND,
            "precision": str(precision),
            "context": self.context,
            "prompts": [list(one) for one in self.prompts],
            "opset": OPSET,
            **({"encoder": 1} if self.has_encoder else {}),
            # 3: the gate saw no difference under rules that take tokens out; what passed is redone.
            **({"rules": 3 if self.has_encoder else 2} if self.has_rules else {}),
            **({"split_special_tokens": True} if self.splits_special_tokens else {}),
            **({"outliers": MOST_NOISE} if precision is Precision.INT8 else {}),
            "versions": {tool: version(tool) for tool in _TOOLS},
        }


def _spread(rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """A few rows from the shortest to the longest."""
    ordered = sorted(rows, key=len)
    if len(ordered) <= _PROMPTS:
        return ordered
    step = (len(ordered) - 1) / (_PROMPTS - 1)
    return [ordered[round(place * step)] for place in range(_PROMPTS)]


def _manifest(
    source: _Source, folder: Path, precision: Precision, form: ModelFormat
) -> ArtefactManifest:
    manifest = read_manifest(folder)
    if manifest is not None and manifest.recipe == source.recipe(precision):
        files = _files(folder / "1", has_encoder=source.has_encoder)
        if files and (folder / "tokenizer").is_dir() and digest_files(files) == manifest.sha256:
            return manifest
    if form is not ModelFormat.ONNX or precision is Precision.FP16:
        raise CheckpointError(
            f"{folder.name}: a generating model is exported as ONNX in fp32 or int8",
            next_step="for other formats serve it with vLLM or TensorRT-LLM "
            "(docs/generation.md says how)",
        )
    try:
        return _made(source, folder, precision)
    except (HarnessError, OSError):
        raise
    except Exception as error:
        # Quantisers and runtimes raise what they like.
        raise CheckpointError(
            f"{folder.name} cannot be made of checkpoint {source.job.checkpoint.name}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _files(version_folder: Path, *, has_encoder: bool) -> list[Path]:
    """The files that decide what is answered; empty if one is missing."""
    others = [version_folder / SETTINGS_FILE, version_folder / TOKENIZER_FILE]
    names = (ONNX_FILE, ENCODER_FILE) if has_encoder else (ONNX_FILE,)
    graphs = [artefact_files(version_folder / name) for name in names]
    if not all(graphs) or not all(one.is_file() for one in others):
        return []
    return [*(file for files in graphs for file in files), *others]


def _made(source: _Source, target: Path, precision: Precision) -> ArtefactManifest:
    with staged_folder(target) as folder:
        version_folder = folder / "1"
        version_folder.mkdir()
        made = source.made
        for graph in made.graphs:
            if precision is Precision.INT8:
                made.quantise(graph, version_folder / graph.name)
            else:
                for file in artefact_files(graph):
                    shutil.copyfile(file, version_folder / file.name)
        parity = made.check(version_folder, precision, target.name)
        splits = source.splits_special_tokens
        settings = dataclasses.replace(made.settings, split_special_tokens=splits).to_json()
        (version_folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
        definition = source.tokenizer.backend_tokenizer.to_str()
        texts = [*source.job.prompts[:_TEXTS], *with_special_tokens(source.tokenizer)]
        check_definition(definition, source.tokenizer, texts, split_special_tokens=splits)
        (version_folder / TOKENIZER_FILE).write_text(definition, encoding="utf-8")
        files = _files(version_folder, has_encoder=source.has_encoder)
        manifest = ArtefactManifest(
            variant=target.name,
            source=source.job.checkpoint.name,
            recipe=source.recipe(precision),
            sha256=digest_files(files),
            size_bytes=sum(
                file.stat().st_size
                for graph in made.graphs
                for file in artefact_files(version_folder / graph.name)
            ),
            parameters=source.job.checkpoint.parameters,
            inputs=INPUTS,
            outputs=OUTPUTS,
            parity=dataclasses.asdict(parity),
            warmup={},
        )
        _copy_tokenizer(source, folder / "tokenizer")
        write_manifest(folder, manifest)
    return manifest


def check_definition(
    definition: str,
    library: Callable[[str], Mapping[str, Any]],
    texts: Sequence[str],
    *,
    split_special_tokens: bool = False,
) -> None:
    """Make sure that the tokenizer in the server makes the library's tokens of a prompt.

    Args:
        definition: `tokenizer.json`'s content, as it is served.
        library: the checkpoint's tokenizer as transformers opens it.
        texts: that are tried.
        split_special_tokens: what the server is told beside the definition.

    Raises:
        CheckpointError: it makes other tokens of a text.
    """
    from tokenizers import Tokenizer

    served = Tokenizer.from_str(definition)
    served.no_truncation()
    served.no_padding()
    served.encode_special_tokens = split_special_tokens
    for text in texts:
        ours, theirs = served.encode(text).ids, list(library(text)["input_ids"])
        if ours != theirs:
            raise CheckpointError(
                f"the tokenizer that would be served makes {ours[:_SHOWN]} of {text[:40]!r}, where "
                f"transformers makes {theirs[:_SHOWN]}",
                next_step="save the tokenizer anew: "
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            )


_TEXTS = 256
"""Of a study's prompts."""
_SHOWN = 8


def _copy_tokenizer(source: _Source, folder: Path) -> None:
    folder.mkdir()
    code = CODE_FILES if source.job.model.trust_remote_code else ()
    for pattern in (*SMALL_FILES, *CHAT_FILES, *code):
        for file in source.job.checkpoint.folder.glob(pattern):
            copy = folder / file.relative_to(source.job.checkpoint.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


CHAT_FILES = ("chat_template.jinja", "chat_template.json")
"""Where transformers keeps a chat template, if not in the tokenizer's configuration."""


def _variant(
    manifest: ArtefactManifest, folder: Path, job: GeneratorJob, precision: Precision
) -> ModelVariant:
    return ModelVariant(
        name=folder.name,
        family=job.family,
        role=job.model.role,
        task=KIND,
        format=ModelFormat.ONNX,
        precision=precision,
        source=job.model.checkpoint,
        sha256=manifest.sha256,
        path=folder,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        parameters=manifest.parameters,
        size_bytes=manifest.size_bytes,
        parity={"logits": manifest.parity["max_difference"]},
    )
