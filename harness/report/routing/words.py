"""How a router reads."""

from __future__ import annotations

from harness.types import Decision
from harness.types.estimates import Interval
from harness.types.routing import DeployedRouter, Route
from harness.words.numbers import MISSING, asked_percent, count, percent, span

_KEPT = {
    Decision.PASS: "within what was promised",
    Decision.FAIL: "less than was promised",
    Decision.UNDECIDED: "too few rows to tell whether it is what was promised",
}


def share_words(interval: Interval | None) -> str:
    """A share with its interval, as `97.2% (95.4-99.0%)`."""
    if interval is None:
        return MISSING
    return f"{percent(interval.value)} ({span(percent(interval.low), percent(interval.high))})"


def deployed_words(route: Route, deployed: DeployedRouter) -> str:
    """What a router that was deployed kept, how much it asked the teacher, and its verdict."""
    load = ""
    if deployed.routed_under_load is not None:
        load = f" and {percent(deployed.routed_under_load)} of those under load"
    other = ""
    if deployed.otherwise:
        other = (
            f" {count(deployed.otherwise)} of {count(deployed.rows)} rows were answered otherwise "
            "than the stored answers say."
        )
    return (
        f"Deployed as {deployed.variant}: it keeps {share_words(deployed.kept)} of the teacher's "
        f"accuracy on {count(route.held_out_rows)} rows held out (promised "
        f"{asked_percent(route.chosen.keep)}: {_KEPT[deployed.keeps]}); the teacher was asked "
        f"{percent(deployed.routed)} of the scored rows{load}.{other} {deployed.summary}"
    )
