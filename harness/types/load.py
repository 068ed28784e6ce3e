"""What the load generators say of one load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types.latency import Latencies, SparseHistogram

_NONE = Latencies()


@dataclass(frozen=True)
class TimeSlice:
    """What was seen of one slice of a load's time; slices of one load are equally long.

    A request belongs to the slice it was scheduled in, however late it completed. Slices of
    several processes add up exactly (`harness.load.engine.recorder.merge_slices`).
    """

    index: int
    """Number of the slice, counted from the load's start, warm-up included."""
    ok: Latencies = _NONE
    failed: Latencies = _NONE
    failures: Mapping[str, int] = field(default_factory=dict)
    """By kind, of requests scheduled inside the slice."""
    dropped: int = 0
    """Fell due inside the slice, with no request in flight to spare: never sent."""
    completed: int = 0
    """Successes that completed inside the slice, whenever they were scheduled."""
    inferences: int = 0
    """Samples in the requests of `completed`."""


@dataclass(frozen=True)
class GeneratorHealth:
    """How one generator process fared over the measured window: whether it kept up."""

    cpu_cores: float
    """1.0 is a core saturated, and with it this process."""
    loop_lag: SparseHistogram
    """How much later than asked its event loop woke a sleeper."""
    memory_bytes: int = 0
    """Resident, at the window's end."""


@dataclass(frozen=True)
class LoadResult:
    """What the load generators saw of one trial, merged over their processes."""

    start_ns: int
    """Start of slice 0: CLOCK_MONOTONIC, as are all times between processes of one machine."""
    slice_s: float
    slices: tuple[TimeSlice, ...]
    """The whole load in order of time, warm-up included; slices without requests are there too."""
    window_start_ns: int
    """A slice's start: what lies before is warm-up."""
    window_end_ns: int
    """A slice's end."""
    generators: tuple[GeneratorHealth, ...]
    """One for each process."""
    first_failure: str = ""
    """The first failure's own words."""
    records_problem: str = ""
    """Why not every request could be written down one by one, where that was asked for."""
    answers_stamped: bool = False
    """Latencies end when the kernel received the answer, however late the generator read it."""

    @property
    def duration_s(self) -> float:
        """Length of the measured window."""
        return (self.window_end_ns - self.window_start_ns) / 1e9

    @property
    def warmup_s(self) -> float:
        """Length of what was cut before the measured window."""
        return (self.window_start_ns - self.start_ns) / 1e9

    @property
    def window(self) -> tuple[TimeSlice, ...]:
        """The measured slices."""
        slice_ns = self.slice_s * 1e9
        first = round((self.window_start_ns - self.start_ns) / slice_ns)
        last = round((self.window_end_ns - self.start_ns) / slice_ns)
        return tuple(one for one in self.slices if first <= one.index < last)

    @property
    def completed(self) -> int:
        """Successful requests that completed inside the window."""
        return sum(one.completed for one in self.window)

    @property
    def inferences(self) -> int:
        """Samples in the successful requests that completed inside the window."""
        return sum(one.inferences for one in self.window)

    @property
    def dropped(self) -> int:
        """Requests that fell due inside the window and were never sent."""
        return sum(one.dropped for one in self.window)

    @property
    def failures(self) -> dict[str, int]:
        """By kind, of requests scheduled inside the window; those dropped are not among them."""
        by_kind: Counter[str] = Counter()
        for one in self.window:
            by_kind.update(one.failures)
        return dict(by_kind)

    @property
    def generator_cpu(self) -> float:
        """Cores used by the busiest process (1.0 = saturated)."""
        return max((one.cpu_cores for one in self.generators), default=0.0)
