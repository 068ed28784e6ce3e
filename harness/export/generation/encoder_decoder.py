"""An encoder-decoder in two graphs. Importing this imports torch and transformers.

The encoder reads a whole source text once and gives the keys and values that every layer of the
decoder attends to. The decoder is that of `graph.py`, with these beside its own: they lie in
buffers of a slot each too, are read up to the longest source of a step, and are never written by
it.

Both are made of transformers' own forward passes. What these would look up by one position for all
rows is replaced: tables of positions (BART, Pegasus) and T5's biases by distance, which are worked
out here once for every distance, so that no runtime's logarithm decides a bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from harness.errors import CheckpointError
from harness.export.generation.graph import (
    MASKED,
    ChosenPositions,
    SlotCache,
    replace_attention,
    seeing,
)
from harness.tasks.generation.encoder_decoders import ENCODER_DECODERS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Sources:
    """What may be seen of source texts: each row's own tokens."""

    def __init__(self, lengths: Tensor, span: Tensor) -> None:
        self.bias = torch.where(
            span[None, None, None, :] < lengths[:, None, None, None], 0.0, MASKED
        )
        """(batch, 1, 1, span)."""

    def bias_of(self, _module: nn.Module, _groups: int, _window: int | None) -> Tensor:
        return self.bias


class _SourceLayer:
    """Keys and values of source texts for one layer of the decoder."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values


class _SourceSide:
    """What a decoder's layers find in place of the cache of their second attention."""

    def __init__(self, layers: Sequence[_SourceLayer]) -> None:
        self.layers = layers


class _SlotsBesideSources(EncoderDecoderCache):
    """The cache of one step: slots for the decoder's own tokens, and what the encoder gave."""

    def __init__(self, own: SlotCache, layers: Sequence[_SourceLayer], sources: _Sources) -> None:
        self.self_attention_cache: Any = own
        self.cross_attention_cache: Any = _SourceSide(layers)
        self.is_updated = dict.fromkeys(range(len(layers)), True)
        self._sources = sources

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Asked for where a model would count positions itself; here they are replaced."""
        return self.self_attention_cache.get_seq_length(layer_idx)  # type: ignore[no-any-return]

    def bias_of(self, module: nn.Module, groups: int, window: int | None) -> Tensor:
        if getattr(module, "is_causal", False):
            return self.self_attention_cache.bias(groups, window)  # type: ignore[no-any-return]
        return self._sources.bias


class _Taken:
    """Takes what layers hand over in place of a cache, and keeps it."""

    is_compileable = False

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def get_seq_length(self, _layer: int = 0) -> int:
        """Nothing is read yet."""
        return 0

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep a layer's."""
        self.kept[layer] = (keys, values)
        return keys, values


class _TakenOfBoth(EncoderDecoderCache):
    """What a decoder that begins hands over: of its own tokens, and of the source."""

    def __init__(self) -> None:
        self.self_attention_cache: Any = _Taken()
        self.cross_attention_cache: Any = _Taken()
        self.is_updated = {}

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  (transformers' name)
        """Nothing is read yet."""
        return 0

    def bias_of(self, _module: nn.Module, _groups: int, _window: int | None) -> Tensor:
        """Whatever is seen: of this pass only the keys and values count."""
        return torch.zeros(1)


class _PositionsOfRows(nn.Module):
    """A decoder's table of positions, looked up by each row's own."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.weight = table.weight
        self.offset = int(getattr(table, "offset", 0))
        self.positions: list[
            Tensor
        ] = []  # a list, because torch takes note of a tensor that changes

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return nn.functional.embedding(self.positions[0] + self.offset, self.weight)


class _Distances(nn.Module):
    """T5's bias of attention by the distance of two tokens, from a table of every distance."""

    def __init__(self, attention: Any, longest: int) -> None:
        super().__init__()
        distances = torch.arange(1 - longest, longest)
        buckets = attention._relative_position_bucket(
            distances,
            bidirectional=not attention.is_decoder,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        with torch.no_grad():
            table = attention.relative_attention_bias(buckets).clone()
        self.table = nn.Parameter(table, requires_grad=False)
        """(distances, heads)."""
        self.zero = longest - 1
        self.positions: list[Tensor] = []
        """Of the tokens that ask, (batch, length), in a decoder; none: 0, 1, ..."""

    def compute_bias(self, length: int, span: int, **_: Any) -> Tensor:
        """(batch, heads, length, span)."""
        asking = self.positions[0] if self.positions else torch.arange(length)[None]
        distance = torch.arange(span)[None, None, :] - asking[:, :, None]
        # The span is rounded up: what lies beyond the table is not seen anyway.
        place = (distance + self.zero).clamp(0, 2 * self.zero)
        return nn.functional.embedding(place, self.table).permute(0, 3, 1, 2)


def _replace_distances(stack: nn.Module, longest: int) -> list[_Distances]:
    """Give a stack of T5's layers the table in place of buckets that are worked out."""
    found = []
    for module in stack.modules():
        attention: Any = module
        if getattr(module, "has_relative_attention_bias", False):
            table = _Distances(attention, longest)
            attention.distances = table
            attention.compute_bias = table.compute_bias
            found.append(table)
    return found


class EncoderGraph(nn.Module):
    """A source text to the keys and values that the decoder's layers attend to."""

    def __init__(self, model: Any, longest: int) -> None:
        """Wrap a model; it is of no other use afterwards.

        Args:
            model: a transformers model with its weights.
            longest: tokens of a source text at most.

        Raises:
            CheckpointError: its attention is its own code, which cannot be replaced.
        """
        super().__init__()
        replace_attention(model)
        self.model: Any = model
        _replace_distances(self.model.get_encoder(), longest)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Read source texts.

        Args:
            input_ids: their tokens, (batch, length), shorter ones filled up behind with any token.
            lengths: tokens of each, (batch,).

        Returns:
            Keys and values of each layer in turn, (batch, heads, length, head size).
        """
        with seeing(_Sources(lengths, torch.arange(input_ids.shape[1]))):
            hidden = self.model.get_encoder()(input_ids=input_ids).last_hidden_state
        taken = _TakenOfBoth()
        with seeing(taken):
            self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
                decoder_input_ids=input_ids[:, :1],
                cache=taken,
                use_cache=True,
            )
        kept = taken.cross_attention_cache.kept
        return tuple(side for layer in sorted(kept) for side in kept[layer])


class SourcedDecoderGraph(nn.Module):
    """Token ids behind what the slots hold, to the logits of the next token of each answer."""

    def __init__(self, model: Any, longest: int) -> None:
        """Wrap a model; it is of no other use afterwards.

        Args:
            model: a transformers model with its weights.
            longest: tokens of an answer at most, the start token included.

        Raises:
            CheckpointError: its attention is its own code, which cannot be replaced.
        """
        super().__init__()
        replace_attention(model)
        self._head = ChosenPositions(model.get_output_embeddings())
        model.set_output_embeddings(self._head)
        self.model: Any = model
        decoder: Any = self.model.get_decoder()
        self._placed: list[Any] = [*_replace_distances(decoder, longest)]
        table = getattr(decoder, "embed_positions", None)
        if isinstance(table, nn.Embedding):
            decoder.embed_positions = _PositionsOfRows(table)
            self._placed.append(decoder.embed_positions)
        if not self._placed:
            raise CheckpointError(f"{type(model).__name__} has no positions that can be given")
        self._width = int(self.model.config.d_model)

    def forward(
        self,
        input_ids: Tensor,
        start: Tensor,
        span: Tensor,
        at: Tensor,
        sources: tuple[Tensor, Tensor],
        past: list[Tensor],
        read: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """One step.

        Args:
            input_ids: new tokens, (batch, length); see `DecoderGraph.forward`.
            start: tokens of its answer that each row has already, (batch,).
            span: 0, 1, ... up to the longest answer's length after the step, (span,).
            at: which of the new tokens are asked what follows them, (batch, answers).
            sources: tokens of each row's source text, (batch,), and 0, 1, ... up to the longest
                source's length, (source span,).
            past: keys and values of answers, of each layer in turn,
                (batch, heads, capacity, head size).
            read: keys and values of source texts likewise, (batch, heads, source capacity, size).

        Returns:
            Logits (batch, answers, vocabulary), and the buffers of `past` as the step leaves them.
        """
        lengths, source_span = sources
        own = SlotCache(past, start, span, input_ids.shape[1])
        shown = [_first(one, source_span) for one in read]
        layers = [_SourceLayer(*shown[place : place + 2]) for place in range(0, len(shown), 2)]
        cache = _SlotsBesideSources(own, layers, _Sources(lengths, source_span))
        self._head.at[:] = [at]
        for one in self._placed:
            one.positions[:] = [own.positions]
        with seeing(cache):
            answer = self.model(
                # Its size alone is looked at: what it would be read for is in `read`.
                encoder_outputs=BaseModelOutput(torch.zeros(input_ids.shape[0], 2, self._width)),
                decoder_input_ids=input_ids,
                cache=cache,
                use_cache=True,
            )
        return (answer.logits.float(), *(own.present[place] for place in range(len(past))))


def _first(buffer: Tensor, span: Tensor) -> Tensor:
    """What of a buffer of source texts is read, (batch, heads, span, head size)."""
    batch, heads, _, size = buffer.shape
    return torch.onnx.ops.symbolic(
        "Slice",
        (buffer, torch.tensor([0]), span[-1:] + 1, torch.tensor([2])),
        dtype=buffer.dtype,
        shape=(batch, heads, span.shape[0], size),
        version=13,
    )


def sourced_cache_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Layers of the decoder, heads of keys and values, and the size of a head.

    Raises:
        CheckpointError: it is of an architecture whose graphs are not made, or layers differ.
    """
    kind = model.config.model_type
    if kind not in ENCODER_DECODERS:
        raise CheckpointError(
            f"{type(model).__name__} is an encoder-decoder of type {kind}; those of type "
            f"{', '.join(ENCODER_DECODERS)} can be served"
        )
    tokens = torch.zeros(1, 2, dtype=torch.long)
    with torch.inference_mode():
        kept: Any = model(input_ids=tokens, decoder_input_ids=tokens, use_cache=True).cache
    layers: list[Any] = [*kept.self_attention_cache.layers, *kept.cross_attention_cache.layers]
    shapes = {tuple(side.shape) for layer in layers for side in (layer.keys, layer.values)}
    if len(shapes) != 1:
        raise CheckpointError(
            f"{type(model).__name__} keeps other things of its tokens than keys and values of one "
            "size in every layer"
        )
    ((_, heads, _, size),) = shapes
    return len(kept.self_attention_cache.layers), heads, size
