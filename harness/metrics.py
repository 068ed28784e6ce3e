"""Every metric that an objective can name, defined once: the one place to add another.

A latency is a *span* of a request's time and a *statistic* of it: `p95` is the 95th percentile of
the span that counts (from the scheduled time to the answer), and the span named `ttft` makes
`ttft_p95` and the rest of `STATISTICS` by its entry in `harness.types.SPANS`, whose `judged` is
true. All other metrics are entries of their own.

A new quality metric is one entry in `_QUALITY`, beside its computation: the task's family returns
a `Statistic` of that name. Everything else follows from the entry: the objective's grammar and its
error messages, the study's JSON schema, the judgement, how it reads in sentences, tables and
plots, the metrics that Prometheus scrapes, and docs/metrics.md. A score whose metric has no entry
is refused (`metric_named`), never shown with a unit that was guessed.

    _error(
        name="mae", title="MAE", tasks=("regression",), example="0.5",
        of="mean absolute error of the predictions",
    )

A new rate, share or cost of a trial is one entry in `_LOAD`, beside its computation in
`harness.planning.clauses`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from types import MappingProxyType

from harness.errors import UnknownMetricError
from harness.types import (
    RESPONSE,
    SPANS,
    LatencySpan,
    LatencySummary,
    Percentile,
    TrialResult,
)
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import (
    CORRELATION,
    INFERENCES_PER_S,
    MEGABYTES,
    MILLISECONDS,
    PLAIN,
    REQUESTS_PER_S,
    SECONDS,
    SHARE,
    STATISTICS,
    TOKENS_PER_S,
    USD_PER_MILLION,
    Metric,
    MetricKind,
)

COST = "cost"
"""The metric that is priced on the machine that a study names."""
WRITING_COST = "output_token_cost"
"""The same by the tokens that are written."""
GOODPUT = "goodput"
"""The metric that is counted by the other clauses of its objective."""
SHOWN_PERCENTILES = ("p50", "p95", "p99")
"""Percentiles that are shown where there is little room."""
DEFAULT_LATENCY = "p95"
"""What a result is ranked and shown by where the objective bounds no latency."""


def latencies_of(span: LatencySpan) -> list[Metric]:
    """The metrics of a span: each statistic of it. The span that counts lends them no prefix."""
    prefix, title = ("", "") if span.name == RESPONSE else (f"{span.name}_", f"{span.title} ")
    return [
        Metric(
            name=f"{prefix}{one.name}",
            kind=MetricKind.LATENCY,
            title=f"{title}{one.name}",
            of=f"{one.words} of the {span.in_words}, from {span.start} to {span.end}",
            lower_is_better=True,
            unit=MILLISECONDS,
            example="50 ms",
            span=span.name,
            statistic=one.name,
            of_streams=span.of_streams,
            missed="too slow to answer",
        )
        for one in STATISTICS
    ]


_share_of_right = partial(
    Metric,
    kind=MetricKind.QUALITY,
    unit=SHARE,
    lower_is_better=False,
    example="80%",
    missed="below the quality floor",
)
"""A quality from 0 to 1, shown as a percentage; the more the better."""
_correlation = partial(
    Metric,
    kind=MetricKind.QUALITY,
    unit=CORRELATION,
    lower_is_better=False,
    example="0.8",
    missed="below the quality floor",
)
"""A quality from -1 to 1; the more the better."""
_error = partial(
    Metric,
    kind=MetricKind.QUALITY,
    unit=PLAIN,
    lower_is_better=True,
    missed="below the quality floor",
)
"""A quality that is a plain number; the less the better."""

_LOAD = (
    Metric(
        name="error_rate",
        kind=MetricKind.SHARE,
        title="error rate",
        of="share of the requests that failed or were dropped",
        lower_is_better=True,
        unit=SHARE,
        example="0.1%",
        missed="too many failed requests",
    ),
    Metric(
        name="throughput",
        kind=MetricKind.RATE,
        title="throughput",
        of="inferences (samples, not requests) per second",
        lower_is_better=False,
        unit=INFERENCES_PER_S,
        example="200/s",
        missed="too little throughput",
    ),
    Metric(
        name="output_tokens_per_s",
        kind=MetricKind.RATE,
        title="output tokens/s",
        of="tokens of successful answers per second, of all streams together",
        lower_is_better=False,
        unit=TOKENS_PER_S,
        example="500/s",
        missed="too few tokens",
        of_streams=True,
    ),
    Metric(
        name=GOODPUT,
        kind=MetricKind.RATE,
        title="goodput",
        of="requests per second that meet all of the objective's clauses on latencies together",
        lower_is_better=False,
        unit=REQUESTS_PER_S,
        example="5/s",
        missed="too little goodput",
    ),
    Metric(
        name=COST,
        kind=MetricKind.COST,
        title="cost",
        of="US dollars per million inferences, on the machine that the study's `cost` names",
        lower_is_better=True,
        unit=USD_PER_MILLION,
        example="0.20/1M",
        missed="too expensive",
    ),
    Metric(
        name=WRITING_COST,
        kind=MetricKind.COST,
        title="cost of output tokens",
        of="US dollars per million tokens that are written, the reading of their prompts "
        "included, on the machine that the study's `cost` names; also written "
        "`cost < 2/1M tokens`",
        lower_is_better=True,
        unit=USD_PER_MILLION,
        example="2/1M",
        missed="too expensive",
        of_streams=True,
    ),
)

_QUALITY = (
    _share_of_right(
        name="accuracy", title="accuracy", tasks=("sequence-classification",),
        of="share of the rows whose predicted class is the label", right_or_wrong=True,
    ),
    _share_of_right(
        name="macro_f1", title="macro-F1",
        tasks=("sequence-classification", "multi-label-classification"),
        of="F1 of each class that occurs in the labels, averaged",
    ),
    _error(
        name="label_perplexity", title="label perplexity", tasks=("sequence-classification",),
        example="1.5", lowest=1.0, of="exp of the mean negative log likelihood of the right class",
    ),
    _share_of_right(
        name="micro_f1", title="micro-F1", tasks=("multi-label-classification",),
        of="F1 over all labels of all rows",
    ),
    _share_of_right(
        name="subset_accuracy", title="subset accuracy", tasks=("multi-label-classification",),
        of="share of the rows that are given exactly the right labels", right_or_wrong=True,
    ),
    _share_of_right(
        name="mean_average_precision", title="mean average precision",
        tasks=("multi-label-classification",),
        of="average precision of each label's ranking of the rows, averaged; no threshold counts",
    ),
    _share_of_right(
        name="exact_match", title="exact match", tasks=("question-answering",),
        of="share of the questions answered word for word (SQuAD)", right_or_wrong=True,
    ),
    _share_of_right(
        name="f1", title="F1", tasks=("question-answering",),
        of="word overlap with the best reference answer (SQuAD), averaged",
    ),
    _correlation(
        name="pearson", title="Pearson correlation", tasks=("regression",),
        of="Pearson's correlation of the predicted numbers with the labels",
    ),
    _correlation(
        name="spearman", title="Spearman correlation", tasks=("regression",),
        of="Spearman's rank correlation of the predicted numbers with the labels",
    ),
    _error(
        name="mae", title="MAE", tasks=("regression",), example="0.5",
        of="mean absolute error of the predicted numbers, in the unit of the labels",
    ),
    _error(
        name="rmse", title="RMSE", tasks=("regression",), example="0.7",
        of="root of the mean squared error of the predicted numbers, in the unit of the labels",
    ),
    _error(
        name="perplexity", title="perplexity", tasks=("causal-lm", "generation"), example="20",
        lowest=1.0,
        of="exp of the mean negative log likelihood per token; of a generation task, of its "
        "references behind their prompts",
    ),
    _error(
        name="bits_per_byte", title="bits per byte", tasks=("causal-lm", "generation"),
        example="1.2",
        of="mean negative log2 likelihood per UTF-8 byte",
    ),
    _error(
        name="word_perplexity", title="word perplexity", tasks=("causal-lm",), example="50",
        lowest=1.0,
        of="exp of the mean negative log likelihood per word between white space",
    ),
    _error(
        name="byte_perplexity", title="byte perplexity", tasks=("causal-lm",), example="2.5",
        lowest=1.0,
        of="exp of the mean negative log likelihood per UTF-8 byte",
    ),
    _share_of_right(
        name="chrf", title="chrF", tasks=("generation",), example="40%",
        of="character n-grams (up to 6) that texts share with their references (sacrebleu's chrF2)",
    ),
    _share_of_right(
        name="rouge_1", title="ROUGE-1", tasks=("generation",), example="30%",
        of="F1 of the words that a text shares with its reference, averaged",
    ),
    _share_of_right(
        name="rouge_2", title="ROUGE-2", tasks=("generation",), example="10%",
        of="F1 of the pairs of neighbouring words that a text shares with its reference, averaged",
    ),
    _share_of_right(
        name="rouge_l", title="ROUGE-L", tasks=("generation",), example="25%",
        of="F1 of the longest sequence of words that a text shares with its reference, averaged",
    ),
    _share_of_right(
        name="agreement", title="agreement with the teacher", tasks=("generation",),
        example="60%",
        of="share of the prompts whose greedy text is the teacher's, token for token",
    ),
    _share_of_right(
        name="prefix_agreement", title="common beginning with the teacher", tasks=("generation",),
        example="70%",
        of="how much of the teacher's greedy text the text begins with, in tokens, averaged",
    ),
    _share_of_right(
        name="entity_f1", title="entity F1", tasks=("token-classification",),
        of="F1 of entities, right by type, first and last word (micro average, as seqeval)",
    ),
    _share_of_right(
        name="entity_precision", title="entity precision", tasks=("token-classification",),
        of="share of the entities found that are right",
    ),
    _share_of_right(
        name="entity_recall", title="entity recall", tasks=("token-classification",),
        of="share of the entities that are found",
    ),
    _share_of_right(
        name="token_accuracy", title="token accuracy", tasks=("token-classification",),
        of="share of the words with the right tag", example="95%",
    ),
    _share_of_right(
        name="ndcg_at_10", title="nDCG@10", tasks=("sentence-embedding",),
        of="gain of the ten best-ranked documents over the best there could be, averaged",
    ),
    _share_of_right(
        name="recall_at_10", title="recall@10", tasks=("sentence-embedding",),
        of="share of a query's relevant documents among its ten best-ranked, averaged",
    ),
    _share_of_right(
        name="recall_at_100", title="recall@100", tasks=("sentence-embedding",),
        of="share of a query's relevant documents among its hundred best-ranked, averaged",
    ),
    Metric(
        name="sts_spearman", kind=MetricKind.QUALITY, title="STS Spearman", unit=CORRELATION,
        tasks=("sentence-embedding",), lower_is_better=False, example="0.8",
        missed="below the quality floor",
        of="rank correlation of the cosines of pairs with the scores that people gave them",
    ),
)  # fmt: skip


class MetricRegistry(Mapping[str, Metric]):
    """All metrics by name: those of the spans that are judged, then the entries of this module.

    Spans are looked up again each time, so that a span is a metric from the moment it is entered.
    """

    def __init__(self, entries: Iterable[Metric]) -> None:
        self.entries: dict[str, Metric] = {}
        for one in entries:
            if one.name in self.entries:
                raise ValueError(f"{one.name} is entered twice")
            self.entries[one.name] = one

    def _all(self) -> dict[str, Metric]:
        judged = tuple(span for span in SPANS.values() if span.judged)
        return _latencies_of_all(judged) | self.entries

    def __getitem__(self, name: str) -> Metric:
        found = self.entries.get(name)
        return self._all()[name] if found is None else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


@cache
def _latencies_of_all(spans: tuple[LatencySpan, ...]) -> dict[str, Metric]:
    return {metric.name: metric for span in spans for metric in latencies_of(span)}


METRICS = MetricRegistry((*_LOAD, *_QUALITY))
"""What an objective may ask."""
OF_ARTEFACTS = MetricRegistry(
    (
        Metric(
            name="size", kind=MetricKind.ARTEFACT, title="size", unit=MEGABYTES,
            of="size of the served file, in MB (10^6 bytes)", lower_is_better=True, example="25 MB",
        ),
        Metric(
            name="cold_start", kind=MetricKind.ARTEFACT, title="cold start", unit=SECONDS,
            of="time from the order to load the model to its first answer", lower_is_better=True,
            example="5 s",
        ),
    )
)  # fmt: skip
"""Metrics of artefacts: compared and weighed beside what an objective may ask."""


def metric_named(name: str) -> Metric:
    """The metric of a name, of an objective or of an artefact.

    Raises:
        UnknownMetricError: none is called so.
    """
    found = METRICS.get(name) or OF_ARTEFACTS.get(name)
    if found is None:
        raise UnknownMetricError(name, [*METRICS, *OF_ARTEFACTS.entries])
    return found


TASK_SEPARATOR = "/"
"""Between an lm-eval task and its metric: `mnli/acc,none`."""


def described(name: str) -> Metric | None:
    """The metric of a score's name; of an lm-eval task the metric that its last part names.

    Returns:
        None for a metric that lm-eval alone knows: its unit and direction are not known here.

    Raises:
        UnknownMetricError: a name without a task that has no entry.
    """
    _, task, last = name.rpartition(TASK_SEPARATOR)
    if not task:
        return metric_named(name)
    kind = last.partition(",")[0]
    found = METRICS.get(_LM_EVAL_SHARES.get(kind, kind))
    return found if found is not None and found.is_quality else None


_LM_EVAL_SHARES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("acc", "acc_norm", "acc_bytes", "acc_mutual_info"), "accuracy")
)
"""What lm-eval calls shares of right answers, and the metric that reads like them."""


def quality_metrics(task: str | None = None) -> tuple[Metric, ...]:
    """All metrics of quality, or those of one task."""
    every = (one for one in METRICS.values() if one.is_quality)
    return tuple(one for one in every if task is None or task in one.tasks)


def summary_of(metric: Metric, result: TrialResult) -> LatencySummary | None:
    """The summary of a latency's span; None where no request of the trial has that span."""
    return result.latencies.get(metric.span)


def latency_of(metric: Metric, result: TrialResult) -> Percentile | None:
    """A latency of a trial with its bounds, which are 0 and `UNBOUNDED_MS` where there are none.

    Returns:
        None where no request of the trial has the metric's span.
    """
    summary = summary_of(metric, result)
    if summary is None:
        return None
    if metric.quantile is not None:
        return summary.percentiles.get(metric.statistic)
    low, high = summary.mean_low_ms, summary.mean_high_ms
    if low is None or high is None:
        return Percentile(summary.mean_ms, 0.0, UNBOUNDED_MS)
    return Percentile(summary.mean_ms, low, high)
