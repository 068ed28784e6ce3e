"""The recorder: every request of a process, as slices of time with histograms in them.

The hot path only notes four numbers. What they come to is worked out some thousand requests at a
time, in numpy, and handed on in batches to whoever else counts: Locust's page, the record file.

Which latencies there are is said by `harness.types.SPANS`. A span between two of the moments that
every request has is measured here; the values of any other span come with the requests that have
them (`Recorder.add_with_spans`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness import hdr
from harness.load.engine.batches import (
    NO_SPANS,
    FailedRequest,
    RecordedBatch,
    SpanValues,
    token_arrivals_ns,
)
from harness.load.engine.goodput import meets_all
from harness.load.transports.contract import LEFT, NO_TOKENS, RequestFailure, StreamTokens
from harness.types import (
    SPANS,
    Latencies,
    LatencySpan,
    Moment,
    RequestBound,
    SparseHistogram,
    StreamCounts,
    TimeSlice,
)
from harness.types.streams import NO_STREAMS

MOST_HELD = 100_000
"""Requests held unsummed. `take` comes several times per second and finds far fewer; the bound is
for a process whose reports are held up."""
_MOMENTS = len(Moment)
"""Scheduled, sent, completed: in this order throughout."""
_FIELDS = 4
"""The moments and the rows."""
_OK, _FAILED = 0, 1
_OUTCOMES = 2


Listener = Callable[[RecordedBatch], None]


class Recorder:
    """Takes every request of one process; `take` gives what came since the last `take`.

    A request belongs to the slice it was scheduled in, however late it ends: leaving those out
    would drop the slowest. `completed` counts where it ended: that is the throughput. What lies
    before the first slice is counted in it.

    Args:
        start_ns: of slice 0.
        slice_ns: length of a slice.
        listeners: called with every batch, from `take` or from the request that fills a batch.
        keep_ids: hand the requests' ids on to the listeners.
        bounds: the clauses that a request has to meet to be `good`; empty counts none.
    """

    def __init__(
        self,
        start_ns: int,
        slice_ns: int,
        *,
        listeners: Sequence[Listener] = (),
        keep_ids: bool = False,
        bounds: Sequence[RequestBound] = (),
    ) -> None:
        self.first_failure = ""
        """The first failure's own words."""
        self.first_failure_ns = 0
        self._start_ns, self._slice_ns = start_ns, slice_ns
        self._listeners = tuple(listeners)
        self._bounds = tuple(bounds)
        self._spans = tuple(SPANS.values())
        self._place_of_span = {span.name: place for place, span in enumerate(self._spans)}
        moments = list(Moment)
        self._measured = [
            (place, moments.index(Moment(span.start)), moments.index(Moment(span.end)))
            for place, span in enumerate(self._spans)
            if span.is_between_moments
        ]
        """The spans that every request has: place, first moment and last moment."""
        self._log: list[int] = []
        """Four numbers per success, flat: a tuple each would cost the garbage collector's time."""
        self._identities: list[bytes] | None = [] if keep_ids else None
        """Ids of the successes, one each."""
        self._noted: defaultdict[str, tuple[list[int], list[int]]] = defaultdict(_two_lists)
        """By span: of each value the success's place in the log, and the value."""
        self._tokens: dict[int, StreamTokens] = {}
        """Tokens of streams, by the success's place in the log."""
        self._failures: list[FailedRequest] = []
        self._dropped: list[int] = []
        self._sums = _Sums(self._spans)

    def add(
        self,
        scheduled_ns: int,
        sent_ns: int,
        completed_ns: int,
        rows: int,
        identity: bytes = b"",
    ) -> None:
        """A request that was answered as it should be; a load generator's every request is here."""
        log = self._log
        log += (scheduled_ns, sent_ns, completed_ns, rows)
        if self._identities is not None:
            self._identities.append(identity)
        if len(log) >= MOST_HELD * _FIELDS:
            self._flush()

    def add_with_spans(
        self,
        scheduled_ns: int,
        sent_ns: int,
        completed_ns: int,
        rows: int,
        spans_ns: Mapping[str, Sequence[int]],
        identity: bytes = b"",
        tokens: StreamTokens = NO_TOKENS,
    ) -> None:
        """A request that was answered as it should be, and of which more is known.

        Args:
            scheduled_ns: when it fell due.
            sent_ns: when it was sent.
            completed_ns: when its answer was there.
            rows: samples in it.
            spans_ns: values by the name of their span, as many as the request has: a time to the
                first token is one, the times between tokens are many.
            identity: the id that it bore.
            tokens: of a stream, what came.

        Raises:
            KeyError: `SPANS` has no such span, or the recorder measures it itself.
        """
        self._check_spans(spans_ns)
        place = len(self._log) // _FIELDS
        for name, values in spans_ns.items():
            places, noted = self._noted[name]
            places += [place] * len(values)
            noted += values
        if tokens is not NO_TOKENS:
            self._tokens[place] = tokens
        self.add(scheduled_ns, sent_ns, completed_ns, rows, identity)

    def fail(
        self,
        scheduled_ns: int,
        sent_ns: int,
        completed_ns: int,
        failure: RequestFailure,
        identity: bytes = b"",
        spans_ns: Mapping[str, Sequence[int]] = NO_SPANS,
        tokens: StreamTokens = NO_TOKENS,
    ) -> None:
        """A request that was not, with the spans that were measured before it failed.

        A client that left on purpose (`ClientLeft`) comes here too, and is counted apart.

        Raises:
            KeyError: as `add_with_spans`.
        """
        if spans_ns:
            self._check_spans(spans_ns)
        if not self.first_failure and failure.kind != LEFT:
            self.first_failure = str(failure)
            self.first_failure_ns = completed_ns
        moments = (scheduled_ns, sent_ns, completed_ns)
        self._failures.append(FailedRequest(*moments, failure, spans_ns, identity, tokens))
        if len(self._failures) >= MOST_HELD:
            self._flush()

    def drop(self, scheduled_ns: int) -> None:
        """A request that fell due and was never sent."""
        self._dropped.append(scheduled_ns)
        if len(self._dropped) >= MOST_HELD:
            self._flush()

    def take(self) -> list[TimeSlice]:
        """What came since the last `take`: additions to the slices that changed, in order."""
        self._flush()
        sums, self._sums = self._sums, _Sums(self._spans)
        return sums.slices()

    def _flush(self) -> None:
        """Add the held requests to their slices and hand them to the listeners.

        A listener may let other greenlets run, so the recorder is whole again before it is called.
        """
        if not (self._log or self._failures or self._dropped):
            return
        log, self._log = self._log, []
        noted, self._noted = self._noted, defaultdict(_two_lists)
        tokens, self._tokens = self._tokens, {}
        identities, self._identities = self._identities, None if self._identities is None else []
        failures, self._failures = self._failures, []
        dropped, self._dropped = self._dropped, []
        scheduled_ns, sent_ns, completed_ns, rows = _columns(log, _FIELDS)
        # An arrival's stamp is wall-clock time: one that was set back meanwhile must not show.
        completed_ns = np.maximum(completed_ns, sent_ns)
        batch = RecordedBatch(
            scheduled_ns,
            sent_ns,
            completed_ns,
            rows,
            tuple(failures),
            hdr.integers(dropped),
            {name: SpanValues(*map(hdr.integers, two)) for name, two in noted.items()},
            _spans_of(failures),
            tuple(identities or ()),
            tokens,
        )
        self._sum(batch)
        for listener in self._listeners:
            listener(batch)

    def _sum(self, batch: RecordedBatch) -> None:
        sums = self._sums
        failed = _columns([moment for one in batch.failures for moment in one.moments_ns], _MOMENTS)
        answered = (batch.scheduled_ns, batch.sent_ns, batch.completed_ns)
        keys = [self._keys(_OK, *answered), self._keys(_FAILED, *failed)]
        if batch.spans:
            keys.append(self._keys_of_spans(_OK, batch.scheduled_ns, batch.spans))
        if batch.failed_spans:
            keys.append(self._keys_of_spans(_FAILED, failed[0], batch.failed_spans))
        sums.add_latencies(np.concatenate(keys))
        ended = self._slice_of(batch.completed_ns)
        sums.completed.update(_by_slice(ended))
        sums.inferences.update(_by_slice(ended, batch.rows))
        sums.dropped.update(_by_slice(self._slice_of(batch.dropped_ns)))
        for index, one in zip(self._slice_of(failed[0]).tolist(), batch.failures, strict=True):
            if one.failure.kind == LEFT:
                sums.left[index] += 1
            else:
                sums.failures[index][one.failure.kind] += 1
        if self._bounds:
            sums.good.update(_by_slice(self._slice_of(batch.scheduled_ns[self._meeting(batch)])))
        if batch.tokens:
            self._sum_tokens(batch)

    def _meeting(self, batch: RecordedBatch) -> NDArray[np.bool_]:
        """(n,) which of the successes meet every clause."""
        moments = {one.name: batch.moments_of(one) for one in self._spans if one.is_between_moments}
        spans = {name: (one.request, one.values_ns) for name, one in batch.spans.items()}
        return meets_all(self._bounds, len(batch.rows), moments, spans)

    def _sum_tokens(self, batch: RecordedBatch) -> None:
        sums = self._sums
        sums.output_tokens.update(_by_slice(self._slice_of(token_arrivals_ns(batch))))
        places = hdr.integers(batch.tokens)
        asked = hdr.integers(one.input_tokens for one in batch.tokens.values())
        ended = self._slice_of(batch.completed_ns[places])
        sums.input_tokens.update(_by_slice(ended, asked))
        due = self._slice_of(batch.scheduled_ns[places]).tolist()
        for index, one in zip(due, batch.tokens.values(), strict=True):
            sums.irregular[index].update(one.irregular)
            sums.closing_ns[index] += one.closing_ns

    def _keys(
        self,
        outcome: int,
        scheduled_ns: NDArray[np.int64],
        sent_ns: NDArray[np.int64],
        completed_ns: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """One integer per latency: slice, outcome and span in front, bucket behind."""
        moments = (scheduled_ns, sent_ns, completed_ns)
        group = self._groups(outcome, scheduled_ns)
        groups = np.concatenate([group + place for place, _, _ in self._measured])
        spans_ns = [moments[end] - moments[start] for _, start, end in self._measured]
        return _keyed(groups, np.concatenate(spans_ns))

    def _keys_of_spans(
        self, outcome: int, scheduled_ns: NDArray[np.int64], spans: Mapping[str, SpanValues]
    ) -> NDArray[np.int64]:
        """One integer per value of the spans that were handed in, as `_keys` makes them."""
        group = self._groups(outcome, scheduled_ns)
        groups = [group[one.request] + self._place_of_span[name] for name, one in spans.items()]
        values_ns = [one.values_ns for one in spans.values()]
        return _keyed(np.concatenate(groups), np.concatenate(values_ns))

    def _groups(self, outcome: int, scheduled_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) slice and outcome of each request, with room for a span."""
        return (self._slice_of(scheduled_ns) * _OUTCOMES + outcome) * len(self._spans)

    def _check_spans(self, spans_ns: Mapping[str, Sequence[int]]) -> None:
        for name in spans_ns:
            if self._spans[self._place_of_span[name]].is_between_moments:
                raise KeyError(f"{name} is measured by the recorder")

    def _slice_of(self, instants_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        index: NDArray[np.int64] = np.maximum((instants_ns - self._start_ns) // self._slice_ns, 0)
        return index


@dataclass
class _Sums:
    """Counts that wait to be taken; its size depends on their spread, not on how many they are."""

    spans: tuple[LatencySpan, ...]
    """The spans in the order of their places in `keys`."""
    keys: NDArray[np.int64] = field(default_factory=lambda: hdr.integers(()))
    """(k,) of `Recorder._keys`, ascending, without repeats."""
    counts: NDArray[np.int64] = field(default_factory=lambda: hdr.integers(()))
    failures: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    dropped: Counter[int] = field(default_factory=Counter)
    completed: Counter[int] = field(default_factory=Counter)
    inferences: Counter[int] = field(default_factory=Counter)
    good: Counter[int] = field(default_factory=Counter)
    left: Counter[int] = field(default_factory=Counter)
    input_tokens: Counter[int] = field(default_factory=Counter)
    output_tokens: Counter[int] = field(default_factory=Counter)
    irregular: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    closing_ns: Counter[int] = field(default_factory=Counter)

    def add_latencies(self, keys: NDArray[np.int64]) -> None:
        distinct, counts = np.unique(keys, return_counts=True)
        if self.keys.size:
            together = np.concatenate([self.keys, distinct])
            repeated = np.concatenate([self.counts, counts])
            distinct, place = np.unique(together, return_inverse=True)
            counts = np.bincount(place, weights=repeated).astype(np.int64)
        self.keys, self.counts = distinct, counts

    def slices(self) -> list[TimeSlice]:
        latencies = self._latencies()
        changed = {*self.failures, *self.dropped, *self.completed, *self.output_tokens, *self.left}
        changed |= {group // _OUTCOMES for group in latencies}
        return [
            TimeSlice(
                index=index,
                ok=latencies.get(index * _OUTCOMES + _OK, Latencies()),
                failed=latencies.get(index * _OUTCOMES + _FAILED, Latencies()),
                failures=dict(self.failures.get(index, {})),
                dropped=self.dropped[index],
                completed=self.completed[index],
                inferences=self.inferences[index],
                good=self.good[index],
                streams=self._streams(index),
            )
            for index in sorted(changed)
        ]

    def _streams(self, index: int) -> StreamCounts:
        irregular = dict(self.irregular.get(index, {}))
        counts = (self.input_tokens[index], self.output_tokens[index], self.left[index])
        closing_ns = self.closing_ns[index]
        if not (irregular or closing_ns or any(counts)):
            return NO_STREAMS
        return StreamCounts(*counts, irregular, closing_ns)

    def _latencies(self) -> dict[int, Latencies]:
        """The latencies seen, by slice and outcome."""
        group = self.keys >> hdr.INDEX_BITS
        edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
        buckets = (self.keys & ((1 << hdr.INDEX_BITS) - 1)).tolist()
        counts = self.counts.tolist()
        groups = group[edges[:-1]].tolist() if len(group) else []
        found: defaultdict[int, dict[str, SparseHistogram]] = defaultdict(dict)
        for at, first, last in zip(groups, edges[:-1], edges[1:], strict=False):
            slice_and_outcome, place = divmod(at, len(self.spans))
            found[slice_and_outcome][self.spans[place].name] = SparseHistogram(
                tuple(buckets[first:last]), tuple(counts[first:last])
            )
        return {key: Latencies(spans) for key, spans in found.items()}


def _two_lists() -> tuple[list[int], list[int]]:
    return [], []


def _keyed(groups: NDArray[np.int64], spans_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    return (groups << hdr.INDEX_BITS) + hdr.bucket_of_nanoseconds(spans_ns)


def _spans_of(failures: Sequence[FailedRequest]) -> dict[str, SpanValues]:
    noted: defaultdict[str, tuple[list[int], list[int]]] = defaultdict(_two_lists)
    for place, one in enumerate(failures):
        for name, values in one.spans_ns.items():
            places, held = noted[name]
            places += [place] * len(values)
            held += values
    return {name: SpanValues(*map(hdr.integers, two)) for name, two in noted.items()}


def _columns(flat: list[int], width: int) -> tuple[NDArray[np.int64], ...]:
    """Rows that lie one behind the other, as an array for each column."""
    return tuple(np.ascontiguousarray(hdr.integers(flat).reshape(-1, width).T))


def _by_slice(index: NDArray[np.int64], counts: NDArray[np.int64] | None = None) -> dict[int, int]:
    """How often each slice occurs, or the sum of its counts; floats hold them exactly."""
    if not index.size:
        return {}
    first = int(index.min())
    sums = np.bincount(index - first, weights=counts)
    return {first + place: int(sums[place]) for place in np.flatnonzero(sums).tolist()}
