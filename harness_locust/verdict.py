"""The verdict of a test that nobody watches: in words at its end, and as the exit code.

Locust's own exit code says whether a request failed. Where an objective was asked for, the verdict
on it is the exit code instead, as in `harness load`: how many may fail is a part of it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

from harness.errors import EXIT_ENVIRONMENT, EXIT_OBJECTIVE_NOT_MET, EXIT_OK, EXIT_UNDECIDED
from harness.planning.assessment import Assessment
from harness.study.clauses import load_clauses, quality_clauses
from harness.types import Decision
from harness.words.numbers import number
from harness_locust.conductor import Conductor, Watcher
from harness_locust.judgement import in_locust_words
from harness_locust.results import TRANSIENT
from harness_locust.serving_watch import ServingWatch, Watched

_NOTHING = "no request was measured"

logger = logging.getLogger("harness")


def exit_code_of(watched: Watched) -> int:
    """0 pass, 3 fail, 4 undecided, 5 invalid; a sweep asks whether any of its steps passes.

    Of a sweep of which none does, a step that may yet pass, and one that was not measured well,
    leave the question open.
    """
    decisions = {one.decision for one in watched.verdicts.values()}
    if set(_judged_phases(watched)) - set(watched.verdicts) or not decisions:
        decisions.add(Decision.INVALID)
    for decision, code in (
        (Decision.PASS, EXIT_OK),
        (Decision.UNDECIDED, EXIT_UNDECIDED),
        (Decision.INVALID, EXIT_ENVIRONMENT),
    ):
        if decision in decisions:
            return code
    return EXIT_OBJECTIVE_NOT_MET


def verdict_lines(watched: Watched) -> Iterator[str]:
    """The verdict on each phase that was judged, and what is not judged here."""
    objective = ", ".join(one.text for one in load_clauses(watched.plan.slo))
    verdicts = watched.verdicts
    for name in _judged_phases(watched) or [""]:
        of = f" of {name}" if watched.plan.sweep and name else ""
        said = _said(verdicts[name]) if name in verdicts else f"invalid: {_NOTHING}"
        yield f"Verdict{of} on {objective}: {said}"
    if needed_s := watched.needed_s():
        yield f"A test of about {number(needed_s)} s would tell."
    if left_out := ", ".join(one.text for one in quality_clauses(watched.plan.slo)):
        yield f"Not judged here: {left_out} (a load test does not measure quality)"


def _judged_phases(watched: Watched) -> list[str]:
    now_s = watched.ended_s or 0.0
    return [one.name for one in watched.results.phases(now_s) if one.name not in TRANSIENT]


def _said(assessment: Assessment) -> str:
    word = str(assessment.decision)
    if assessment.decision is Decision.INVALID:
        return f"{word}: {in_locust_words(assessment.reason)}"
    reasons = assessment.reason or "; ".join(
        one.reason for one in assessment.findings if one.reason
    )
    return f"{word}: {reasons}" if reasons else word


class VerdictAtEnd(Watcher):
    """Says it when Locust ends, and has Locust exit by it.

    Args:
        conductor: whose tests these are.
        watch: judges them, before this hears of their end: it was made first.
    """

    def __init__(self, conductor: Conductor, watch: ServingWatch) -> None:
        self._conductor, self._watch = conductor, watch
        conductor.watchers.append(self)
        conductor.environment.events.quit.add_listener(self._on_quit)  # type: ignore[no-untyped-call]  # Locust's

    def test_ended(self) -> None:
        """Locust exits by the verdict; by what went wrong before, where something has."""
        environment, watched = self._conductor.environment, self._judged()
        if watched is not None and not environment.process_exit_code:
            environment.process_exit_code = exit_code_of(watched)

    def _judged(self) -> Watched | None:
        """The test that is over, where it had an objective."""
        watched = self._watch.current
        if watched is None or watched.ended_s is None or not watched.plan.slo.constraints:
            return None
        return watched

    def session_ended(self) -> None:
        """Where an objective was asked for and no test has come to its end, that is an error."""
        environment = self._conductor.environment
        undecided = self._conductor.options.objective and self._judged() is None
        if undecided and not environment.process_exit_code:
            logger.error("nothing was measured: there is no verdict on the objective")
            environment.process_exit_code = EXIT_ENVIRONMENT

    def _on_quit(self, **_: object) -> None:
        """Standard output is the JSON's where that was asked for."""
        if (watched := self._judged()) is not None:
            out = sys.stderr if self._conductor.options.json else sys.stdout
            print(*verdict_lines(watched), sep="\n", file=out, flush=True)
