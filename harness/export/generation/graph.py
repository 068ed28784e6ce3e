"""The decoder of a causal language model, one step at a time. Importing this imports torch.

The keys and values of all tokens seen lie in buffers of a fixed capacity, a slot for each row. The
graph takes the buffers of some neighbouring slots, writes the new tokens where each row's own
length says, and gives the buffers back. Whoever runs it binds input and output of a buffer to the
same memory: ONNX Runtime's ScatterND then writes the new tokens in place and copies nothing.

Only standard operators are used, so one graph reads whole prompts, parts of prompts behind what is
there already, and single tokens, each row at a position of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from harness.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "harness_slots"
"""The name under which transformers knows the attention below."""
MASKED = -1e30
"""Added to the scores of what a token may not see: its weight is exactly 0."""
_IGNORED = frozenset(
    {"dropout", "is_causal", "position_ids", "use_cache", "cache", "past_key_values"}
    | {"position_embeddings", "output_attentions", "output_hidden_states", "return_dict"}
    | {"cache_position", "head_mask", "layer_head_mask"}
)
"""What models hand their attention and this one has no use for."""
_READ = ("scaling", "sliding_window", "softcap", "position_bias")


class SlotCache:
    """What a model hands its new keys and values to, in place of transformers' own cache."""

    is_compileable = False

    def __init__(self, past: Sequence[Tensor], start: Tensor, span: Tensor, length: int) -> None:
        """Prepare one step.

        Args:
            past: keys and values of each layer in turn, (batch, heads, capacity, head size).
            start: tokens that each row has already, (batch,).
            span: 0, 1, ... up to the longest row's length after the step, (span,).
            length: new tokens of a row.
        """
        self.positions = start[:, None] + torch.arange(length)[None]
        """(batch, length) positions of the new tokens."""
        self.span = span
        self.present: dict[int, Tensor] = {}
        """The buffers as the step leaves them, by their place in `past`."""
        self._past = past
        self._end = span[-1:] + 1
        self._where: dict[int, Tensor] = {}
        self._biases: dict[tuple[int, int | None], Tensor] = {}

    def get_seq_length(self, _layer: int = 0) -> int:
        """Always 0: a model that would count positions itself is given them here."""
        return 0

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values (batch, heads, length, head size); returns all up to `span`."""
        return self._write(2 * layer, keys), self._write(2 * layer + 1, values)

    def bias(self, groups: int, window: int | None) -> Tensor:
        """What is added to scores, (batch, 1, groups * length, span): 0 for what a token may see.

        Args:
            groups: heads of a query that share keys, one behind the other.
            window: tokens that a token sees, itself included; None is all before it.
        """
        if (groups, window) not in self._biases:
            positions = self.positions.repeat(1, groups)[:, None, :, None]
            seen = self.span <= positions
            if window is not None:
                seen = seen & (self.span > positions - window)
            self._biases[groups, window] = torch.where(seen, 0.0, MASKED)
        return self._biases[groups, window]

    def _places(self, batch: int, heads: int, length: int) -> Tensor:
        """Where the new tokens go: slot, head and position, (batch, heads, length, 3)."""
        if heads not in self._where:
            shape = (batch, heads, length)
            indices = [
                torch.arange(batch)[:, None, None].expand(shape),
                torch.arange(heads)[None, :, None].expand(shape),
                self.positions[:, None, :].expand(shape),
            ]
            self._where[heads] = torch.stack(indices, dim=-1)
        return self._where[heads]

    def _write(self, place: int, new: Tensor) -> Tensor:
        past = self._past[place]
        batch, heads, length, size = new.shape
        where = self._places(batch, heads, length)
        written = torch.onnx.ops.symbolic(
            "ScatterND", (past, where, new), dtype=past.dtype, shape=past.shape, version=18
        )
        self.present[place] = written
        # Written as an operator: to torch the span may be longer than the capacity.
        return torch.onnx.ops.symbolic(
            "Slice",
            (written, torch.tensor([0]), self._end, torch.tensor([2])),
            dtype=past.dtype,
            shape=(batch, heads, self.span.shape[0], size),
            version=13,
        )

    def bias_of(self, module: nn.Module, groups: int, window: int | None) -> Tensor:
        """What is added to the scores of one layer's attention; see `bias`."""
        if not getattr(module, "is_causal", True):
            raise CheckpointError(f"its attention ({type(module).__name__}) is not causal")
        return self.bias(groups, window)


class SeenTokens(Protocol):
    """What a step's attention may see."""

    def bias_of(self, module: nn.Module, groups: int, window: int | None) -> Tensor:
        """What is added to a layer's scores, shaped for them.

        Args:
            module: the layer's attention.
            groups: heads of a query that share keys, one behind the other.
            window: tokens that a token sees, itself included; None is all before it.
        """
        ...


_SEEN: ContextVar[SeenTokens] = ContextVar("seen")


def slot_attention(
    module: nn.Module,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention over a `SlotCache`, as transformers' models call theirs.

    Heads that share keys are computed together, so shared keys are not repeated.

    Args:
        module: of the layer.
        queries: (batch, heads, length, head size).
        keys: (batch, shared heads, span, head size).
        values: shaped as the keys.
        attention_mask: None, because transformers makes none for an attention it does not know.
        options: what else a model hands over. `scaling` of the scores is by default one over the
            root of the head size; `sliding_window` is how many tokens a token sees, itself
            included; `softcap` bounds the scores (Gemma 2); `position_bias` is added to them (T5).

    Returns:
        (batch, length, heads, head size), and no weights.

    Raises:
        CheckpointError: the model's attention has something that is not done here.
    """
    scaling, window, softcap, position_bias = (options.pop(name, None) for name in _READ)
    unknown = sorted(
        name for name, value in options.items() if value is not None and name not in _IGNORED
    )
    batch, heads, length, size = queries.shape
    shared = keys.shape[1]
    if position_bias is not None and heads != shared:
        unknown.append("position_bias where heads share keys")
    if attention_mask is not None or unknown:
        what = ", ".join(unknown) or "a mask of its own"
        raise CheckpointError(f"its attention ({type(module).__name__}) has {what}")
    scale = size**-0.5 if scaling is None else scaling
    grouped = (queries * scale).reshape(batch, shared, -1, size)
    scores = torch.matmul(grouped, keys.transpose(2, 3))
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if position_bias is not None:
        scores = scores + position_bias
    seen = _SEEN.get().bias_of(module, heads // shared, window)
    weights = torch.softmax(scores + seen, dim=-1)
    mixed = torch.matmul(weights, values).reshape(batch, heads, length, size)
    return mixed.transpose(1, 2), None


class ChosenPositions(nn.Module):
    """The head that makes logits, asked at some positions alone: a vocabulary is wide."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.at: list[Tensor] = []  # a list, because torch takes note of a tensor that changes

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits at the chosen positions, (batch, answers, vocabulary)."""
        at = self.at[0]
        return self.head(hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[-1])))  # type: ignore[no-any-return]


class DecoderGraph(nn.Module):
    """Token ids behind what the slots hold, to the logits of the next token."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap a model; it is of no other use afterwards.

        Raises:
            CheckpointError: its attention is its own code, which cannot be replaced.
        """
        super().__init__()
        replace_attention(model)
        self._head = ChosenPositions(model.get_output_embeddings())  # type: ignore[no-untyped-call]
        model.set_output_embeddings(self._head)  # type: ignore[no-untyped-call]
        self.model = model
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"
        if "position_ids" not in names:
            raise CheckpointError(f"{type(model).__name__} takes no positions from outside")

    def forward(
        self, input_ids: Tensor, start: Tensor, span: Tensor, at: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """One step.

        Args:
            input_ids: new tokens, (batch, length). Rows with fewer are filled up behind with any
                token: what these write is overwritten by the row's next tokens.
            start: tokens that each row has already, (batch,).
            span: 0, 1, ... up to the longest row's length after the step, (span,).
            at: which of the new tokens are asked what follows them, (batch, answers).
            past: keys and values of each layer in turn, (batch, heads, capacity, head size).

        Returns:
            Logits (batch, answers, vocabulary), and the buffers as the step leaves them.
        """
        cache = SlotCache(past, start, span, input_ids.shape[1])
        self._head.at[:] = [at]
        with seeing(cache):
            answer = self.model(
                input_ids=input_ids,
                position_ids=cache.positions,
                use_cache=True,
                **{self._cache_name: cache},
            )
        if len(cache.present) != len(past):
            raise CheckpointError(
                f"{type(self.model).__name__} keeps {len(cache.present)} buffers of keys and values"
                f" in its cache, not {len(past)}"
            )
        return (answer.logits.float(), *(cache.present[place] for place in range(len(past))))


def replace_attention(model: PreTrainedModel) -> None:
    """Give a model's layers `slot_attention`.

    Raises:
        CheckpointError: its attention is its own code, which cannot be replaced.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, slot_attention)
    try:
        model.set_attn_implementation(ATTENTION)
    except Exception as error:  # it raises what it likes, and some models only warn
        raise CheckpointError(f"{type(model).__name__}: {error}") from error


@contextmanager
def seeing(what: SeenTokens) -> Iterator[None]:
    """Let `slot_attention` see this, within the context."""
    token = _SEEN.set(what)
    try:
        yield
    finally:
        _SEEN.reset(token)


def cache_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Layers, heads of keys and values, and the size of a head: read off one short run.

    Raises:
        CheckpointError: layers differ, or something other than keys and values is kept.
    """
    from transformers import DynamicCache

    with torch.inference_mode():
        answer = model(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=True)
    kept = getattr(answer, "cache", None) or answer.past_key_values
    layers = kept.layers if isinstance(kept, DynamicCache) else []
    shapes = {
        tuple(side.shape)
        for layer in layers
        for side in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if side is not None
    }
    if len(shapes) != 1:
        raise CheckpointError(
            f"{type(model).__name__} keeps other things of its tokens than keys and values of one "
            f"size in every layer"
        )
    ((_, heads, _, size),) = shapes
    return len(layers), heads, size
