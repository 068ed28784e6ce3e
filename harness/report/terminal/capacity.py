"""A capacity plan on the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from harness.report.capacity.tables import (
    demand_words,
    measured_words,
    objectives,
    planned_statistic,
)
from harness.report.terminal.run import plain_table
from harness.types.capacity import CapacityPlan, DeploymentPlan
from harness.words.labels import SIGNS
from harness.words.numbers import MISSING, confidence, count, milliseconds, number, percent, span


def plan_table(plan: CapacityPlan) -> Table:
    """A row per variant and serving configuration."""
    table = plain_table(f"Replicas for {demand_words(plan)}")
    table.add_column("Variant", no_wrap=True)
    table.add_column("Serving", no_wrap=True)
    titles = (
        "One/s",
        "Peak",
        "-1",
        "-zone",
        "update",
        "mean",
        f"{planned_statistic(plan)} ms",
        "off",
    )
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in plan.deployments:
        table.add_row(*_row(one))
    return table


def _row(one: DeploymentPlan) -> tuple[Text, ...]:
    head, latency, sign = one.replicas, one.latency_at_peak_ms, SIGNS[one.decision]
    counts = (
        (head.peak, head.lost_replica, head.lost_zone, head.rolling_update, head.cold_start)
        if head
        else (None,) * 5
    )
    predicted = MISSING
    if latency is not None:
        bounds = span(milliseconds(latency.low), milliseconds(latency.high))
        predicted = f"{milliseconds(latency.value)} ({bounds})"
    return (
        Text(one.variant),
        Text(one.serving.label),
        Text(number(one.highest_rate_per_s.low) if head else MISSING),  # 0: none is sure to
        *(Text(count(value)) for value in counts),
        Text(predicted),
        Text(percent(one.error.get(one.statistic))),
        Text(f"{sign.symbol} {sign.word}"),
    )


def plan_notes(plan: CapacityPlan) -> Group:
    """What the columns are, and what to know of each row."""
    lines = [
        Text(
            f"Predicted from the run's trials for {objectives(plan)}, with "
            f"{confidence(plan.confidence)} intervals. One/s: requests/s of one replica that are "
            "sure to meet it. Then replicas: for the peak, with one of them lost, with one of "
            f"{plan.zones} zones lost, during an update, and at the mean so that a rise is carried "
            "while others start. off: the model's median error on the measured trials."
            f"{measured_words(plan)}",
            style="dim",
        )
    ]
    by_note: dict[str, list[str]] = {}
    for one in plan.deployments:
        if one.note:
            by_note.setdefault(one.note, []).append(f"{one.variant} {one.serving.label}")
    lines += [Text(f"{', '.join(rows)}: {note}", style="dim") for note, rows in by_note.items()]
    lines += [Text(f"without a plan: {line}", style="yellow") for line in plan.left_out]
    return Group(*lines)
