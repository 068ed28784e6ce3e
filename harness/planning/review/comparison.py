"""A run against an earlier one, metric by metric.

Only like is compared with like: scores on the same rows, loads on the same machine, and the
highest load that meets an objective under the same objective. Everything else is listed as not
comparable, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from harness.metrics import METRICS, TASK_SEPARATOR, metric_named
from harness.planning.clauses import measure
from harness.planning.review.differences import (
    WorseningTolerance,
    change_of,
    independent_difference,
)
from harness.planning.review.release import Release, ReleasedFamily
from harness.study.clauses import asked_for, judged_latency
from harness.types import (
    ColdStart,
    Decision,
    QualityScore,
    Trial,
    TrialResult,
)
from harness.types.estimates import Pricing
from harness.types.latency import UNBOUNDED_MS
from harness.types.losses import Estimate
from harness.types.metrics import MetricKind
from harness.types.review import Change, ComparedMetric, Figure, RunComparison
from harness.words.labels import trial_words
from harness.words.numbers import asked, asked_percent, factor, number

SAME_SIZE = 0.001
"""Sizes this close are one: an export writes names and dates of a few bytes into its file."""
NOTABLE_START = 1.5
"""A cold start that takes so many times as long is worth a note, though it has no interval."""
_MEASURED_ONCE = "measured once in each run, so it has no interval"


PairedDifference = Callable[[QualityScore, QualityScore], "tuple[Estimate, str] | None"]
"""Later less earlier value of one metric on the same rows, and how many these are, in words; None
where the samples were not kept, or the metric cannot be taken row by row."""


def compare(
    before: Release,
    after: Release,
    *,
    paired: PairedDifference,
    tolerance: WorseningTolerance,
    only: Collection[str] = (),
) -> RunComparison:
    """Compare two runs.

    Args:
        before: the earlier run.
        after: the later one.
        paired: takes the difference of two scores row by row.
        tolerance: what may get worse.
        only: metrics to compare; empty for all.
    """
    found: list[ComparedMetric] = []
    known = {family.name: family for family in after.families}
    for family in before.families:
        later = known.get(family.name)
        if later is None or later.task != family.task:
            found.append(_other_study(after, family, later))
            continue
        pair = _Pair(before, after, family, later, paired, tolerance)
        found += [*pair.quality(), *pair.loads(), *pair.artefacts()]
    chosen = tuple(one for one in found if not only or one.metric in {*only, ""})
    return RunComparison(
        before.run, after.run, chosen, tolerance.words, tuple(_notes(before, after, chosen))
    )


def _other_study(
    after: Release, family: ReleasedFamily, later: ReleasedFamily | None
) -> ComparedMetric:
    reason = f"another study: {after.study} has no family {family.name}"
    if later is not None:
        reason = f"another study: {family.name} is a {family.task} in one and a {later.task} in"
        reason += " the other"
    return ComparedMetric(family.name, "", "", "", None, None, None, Change.NOT_COMPARABLE, reason)


@dataclass(frozen=True)
class _Pair:
    """One family in both runs."""

    before_run: Release
    after_run: Release
    before: ReleasedFamily
    after: ReleasedFamily
    paired: PairedDifference
    tolerance: WorseningTolerance

    def _figure(self, metric: str, value: Estimate, trial: TrialResult | None, *, later: bool
                ) -> Figure:  # fmt: skip
        run = self.after_run.run if later else self.before_run.run
        return Figure(metric, value, run, trial.trial.trial_id if trial else "")

    def _compared(
        self,
        variant: str,
        metric: str,
        point: str,
        figures: tuple[Figure | None, Figure | None],
        reason: str,
        difference: Estimate | None = None,
    ) -> ComparedMetric:
        """A row: not comparable where there is no difference, with the reason."""
        change = Change.NOT_COMPARABLE
        if difference is not None and figures[0] is not None:
            tolerated = self.tolerance.of(metric)
            earlier = figures[0].estimate.value
            change = change_of(metric_named(metric), earlier, difference, tolerated)
        return ComparedMetric(
            self.before.name, variant, metric, point, *figures, difference, change, reason
        )

    # Quality

    def quality(self) -> Iterator[ComparedMetric]:
        """Every metric of every variant of both runs that the earlier scored on its own rows."""
        later = {(score.variant, score.metric): score for score in self.after.scores}
        both = {*self.before.variants} & {*self.after.variants}
        for score in self.before.scores:
            if TASK_SEPARATOR in score.metric or score.variant not in both:
                continue
            other = later.get((score.variant, score.metric))
            if other is not None:
                yield self._scores(score, other)
            else:
                known = self._figure(score.metric, _of_score(score), None, later=False)
                reason = "the later run did not score it"
                yield self._compared(score.variant, score.metric, "", (known, None), reason)

    def _scores(self, before: QualityScore, after: QualityScore) -> ComparedMetric:
        figures = (
            self._figure(before.metric, _of_score(before), None, later=False),
            self._figure(after.metric, _of_score(after), None, later=True),
        )
        refused = self._other_rows()
        difference, reason = None, refused
        if not refused:
            found = self.paired(before, after)
            if found is not None:
                difference, reason = found
            else:
                difference = independent_difference(_of_score(before), _of_score(after))
                reason = "from the two intervals"
        return self._compared(before.variant, before.metric, "", figures, reason, difference)

    def _other_rows(self) -> str:
        if not self.before.rows or not self.after.rows:
            return "other data rows: a run does not say which rows it scored"
        if self.before.rows != self.after.rows:
            return (
                "other data rows: the test split has changed, or what the teacher's tokenizer "
                "makes of it"
            )
        return ""

    # Load

    def loads(self) -> Iterator[ComparedMetric]:
        """The recommended configuration, then each variant at a point that both measured."""
        yield from self._recommended()
        for variant in self.before.variants:
            if variant in self.after.variants:
                yield from self._same_point(variant)

    def _other_machine(self) -> str:
        before, after = self.before_run.machine, self.after_run.machine
        if not before or not after:
            return "other machine: a run does not say which it was measured on"
        return "" if before == after else f"other machine: {before} before, {after} after"

    def _recommended(self) -> Iterator[ComparedMetric]:
        """The throughput at the highest load that meets the objective, each run's own choice."""
        before, after = self.before.recommended, self.after.recommended
        if before is None and after is None:
            return
        told = [
            f"{one.trial.variant} ({trial_words(one.trial)})" if one else "none"
            for one in (before, after)
        ]
        point = " → ".join(dict.fromkeys(told))
        figures = (
            self._load_figure("throughput", before, later=False),
            self._load_figure("throughput", after, later=True),
        )
        reason = self._other_machine() or self._other_objective()
        if not reason and (before is None or after is None):
            which = "before" if before is None else "after"
            reason = f"the run {which} recommends no configuration"
        reason = reason or _without(figures)
        difference = None if reason else _difference(*figures)
        same = before is not None and after is not None and _point(before) == _point(after)
        if difference is not None:
            reason = "the same configuration" if same else "each run's own recommendation"
        yield self._compared("", "throughput", point, figures, reason, difference)

    def _other_objective(self) -> str:
        before, after = self.before.objective, self.after.objective
        if before is None or after is None:
            return "other objective: a run does not say which it had"
        if asked_for(before) != asked_for(after):
            return f"other objective: {before.text} before, {after.text} after"
        return ""

    def _same_point(self, variant: str) -> Iterator[ComparedMetric]:
        """The load metrics of a variant at the point that says most of those both measured."""
        found = _shared_point(
            [one for one in self.before.trials if one.trial.variant == variant],
            [one for one in self.after.trials if one.trial.variant == variant],
        )
        if found is None:
            if any(one.trial.variant == variant for one in self.before.trials):
                reason = "no valid trial of both runs is of the same configuration and load"
                yield self._compared(variant, self._latency, "", (None, None), reason)
            return
        before, after = found
        for metric in self._load_metrics():
            figures = (
                self._load_figure(metric, before, later=False),
                self._load_figure(metric, after, later=True),
            )
            reason = self._other_machine() or _without(figures)
            reason = reason or _other_price(metric, before, after)
            difference = None if reason else _difference(*figures)
            reason = reason or "the same configuration and load"
            yield self._compared(
                variant, metric, trial_words(before.trial), figures, reason, difference
            )

    @property
    def _latency(self) -> str:
        return judged_latency(self.before.objective).name

    def _load_metrics(self) -> list[str]:
        """What the earlier objective bounds of a load; always a latency and the throughput."""
        clauses = self.before.objective.constraints if self.before.objective else ()
        asked = [one.metric for one in clauses if not metric_named(one.metric).is_quality]
        return list(dict.fromkeys([self._latency, "throughput", *asked]))

    def _load_figure(
        self, metric: str, result: TrialResult | None, *, later: bool
    ) -> Figure | None:
        if result is None:
            return None
        found = measure(metric_named(metric), result)
        if found is None:
            return None
        known, limit = found.interval, _limit(metric)
        low = known.low if known else None
        high = known.high if known and known.high < limit else None
        return self._figure(metric, Estimate(found.value, low, high), result, later=later)

    # Artefacts

    def artefacts(self) -> Iterator[ComparedMetric]:
        """Size and cold start of every variant that both runs have."""
        for variant in self.before.variants:
            sizes = (self.before.sizes_bytes.get(variant), self.after.sizes_bytes.get(variant))
            if sizes[0] is not None and sizes[1] is not None:
                yield self._size(variant, sizes[0] / 1e6, sizes[1] / 1e6)
            starts = (self.before.cold_starts.get(variant), self.after.cold_starts.get(variant))
            if starts[0] is not None and starts[1] is not None:
                yield self._start(variant, first_answer_s(starts[0]), first_answer_s(starts[1]))

    def _size(self, variant: str, before: float, after: float) -> ComparedMetric:
        exact = [Estimate(size, size, size) for size in (before, after)]
        figures = (
            self._figure("size", exact[0], None, later=False),
            self._figure("size", exact[1], None, later=True),
        )
        change, reason = after - before, "exact"
        if abs(change) <= SAME_SIZE * before:
            change, reason = 0.0, f"the same within {asked_percent(SAME_SIZE)}"
        difference = Estimate(change, change, change)
        return self._compared(variant, "size", "", figures, reason, difference)

    def _start(self, variant: str, before: float, after: float) -> ComparedMetric:
        figures = (
            self._figure("cold_start", Estimate(before), None, later=False),
            self._figure("cold_start", Estimate(after), None, later=True),
        )
        refused = self._other_machine()
        if refused:
            return self._compared(variant, "cold_start", "", figures, refused)
        # One measurement decides nothing, with a tolerance or without one.
        return ComparedMetric(
            self.before.name, variant, "cold_start", "", *figures,
            Estimate(after - before), Change.SAME, _MEASURED_ONCE,
        )  # fmt: skip


def first_answer_s(start: ColdStart) -> float:
    """Seconds from the order to load a model to its first answer."""
    return start.load_s + start.first_request_ms / 1e3


def _of_score(score: QualityScore) -> Estimate:
    return Estimate(score.value, score.low, score.high)


def _limit(metric: str) -> float:
    latency = METRICS[metric].kind is MetricKind.LATENCY
    return UNBOUNDED_MS if latency else float("inf")


def _without(figures: tuple[Figure | None, Figure | None]) -> str:
    """Why two figures have no difference; empty where they have one."""
    if figures[0] is None or figures[1] is None:
        return "a run's trial says nothing of it"
    both = [figures[0].estimate, figures[1].estimate]
    if any(one.value >= UNBOUNDED_MS for one in both):
        return "unbounded: the queue of a trial never drained"
    return ""


def _other_price(metric: str, before: TrialResult, after: TrialResult) -> str:
    """Why two costs are not compared: what the machine costs is no doing of a release's."""
    first, second = before.pricing, after.pricing
    is_cost = metric_named(metric).kind is MetricKind.COST
    if not is_cost or first is None or second is None or first == second:
        return ""
    return f"other price: {_price_words(first)} before, {_price_words(second)} after"


def _price_words(pricing: Pricing) -> str:
    estimated = ", estimated" if pricing.is_estimate else ""
    return f"{pricing.instance} at {asked(pricing.usd_per_hour)} USD/h{estimated}"


def _difference(before: Figure | None, after: Figure | None) -> Estimate | None:
    if before is None or after is None:
        return None
    return independent_difference(before.estimate, after.estimate)


def _point(result: TrialResult) -> tuple[str, str, str]:
    trial: Trial = result.trial
    return trial.variant, trial.serving.label, trial.workload.label


def _shared_point(
    before: list[TrialResult], after: list[TrialResult]
) -> tuple[TrialResult, TrialResult] | None:
    """The trials of one configuration and load, where both runs have a valid one.

    Of several points that at which the earlier run met its objective with the most throughput,
    else the one with the most requests; of repeats the one with the most requests.
    """
    earlier, later = _fullest(before), _fullest(after)
    shared = [(earlier[point], later[point]) for point in earlier if point in later]
    if not shared:
        return None

    def worth(pair: tuple[TrialResult, TrialResult]) -> tuple[bool, float]:
        passed = pair[0].decision is Decision.PASS
        rate = pair[0].throughput_inferences_per_s
        return passed, rate if passed else float(min(one.requests for one in pair))

    return max(shared, key=worth)


def _fullest(results: list[TrialResult]) -> dict[tuple[str, str, str], TrialResult]:
    found: dict[tuple[str, str, str], TrialResult] = {}
    for one in results:
        known = found.get(_point(one))
        usable = one.valid and one.latency is not None
        if usable and (known is None or one.requests >= known.requests):
            found[_point(one)] = one
    return found


def _notes(before: Release, after: Release, metrics: Collection[ComparedMetric]) -> Iterator[str]:
    """What is in one run alone, and what the intervals leave out."""
    later = {family.name: family for family in after.families}
    earlier = {family.name: family for family in before.families}
    for family in after.families:
        if family.name not in earlier:
            yield f"family {family.name} is new"
    for family in before.families:
        if family.name in later:
            yield from _variants_apart(family, later[family.name])
    judged = [
        one
        for one in metrics
        # A size is what it is: its interval is a point.
        if one.metric != "size" and one.difference and one.difference.low is not None
    ]
    chance = 0.025 * len(judged)
    if chance:
        yield (
            f"{len(judged)} differences have an interval at 95%: about {number(chance)} of them "
            "would read as worse by chance alone if nothing had changed"
        )
    if any(one.point and one.difference for one in metrics):
        yield (
            "intervals of loads hold the chance within each trial, not a machine's drift between "
            "the two runs: --tolerate says how much of that is allowed"
        )
    yield from _slower_starts(metrics)


def _variants_apart(before: ReleasedFamily, after: ReleasedFamily) -> Iterator[str]:
    for name in before.variants:
        if name not in after.variants:
            yield f"{name} is in the earlier run alone"
    for name in after.variants:
        if name not in before.variants:
            yield f"{name} is in the later run alone"


def _slower_starts(metrics: Collection[ComparedMetric]) -> Iterator[str]:
    for one in metrics:
        if one.metric == "cold_start" and one.before and one.after and one.difference:
            ratio = one.after.estimate.value / one.before.estimate.value
            if ratio >= NOTABLE_START:
                yield f"the cold start of {one.variant} took {factor(ratio)} as long, measured once"
