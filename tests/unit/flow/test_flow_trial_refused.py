"""A configuration that the server refuses is one trial's failure; a dead server ends the run."""

from types import SimpleNamespace

import pytest

from harness.errors import ServerError
from harness.flow.options import RunSettings
from harness.flow.serving import Site
from harness.flow.trial import TrialRunner
from harness.study.objective import parse_objective
from harness.types import Decision
from tests.samples import sample_trial_result, sample_variant

SLO = parse_objective("p95 < 50 ms")


class Refusing:
    """Model control that takes no model."""

    def load(self, variant, serving):
        raise ServerError("no such backend")

    def unload(self, variant):
        pass


def runner(check):
    trial = sample_trial_result().trial
    variant = sample_variant()
    known = SimpleNamespace(sha256=variant.sha256)
    folder = SimpleNamespace(journal=SimpleNamespace(cold_starts={variant.name: known}))
    server = SimpleNamespace(check=check)
    site = Site(server, client=None, control=Refusing())
    own = TrialRunner(
        site, None, folder, variants={trial.variant: variant}, payloads={}, settings=RunSettings()
    )
    return own, trial


def test_a_refused_configuration_is_an_invalid_trial_with_the_servers_words():
    own, trial = runner(check=lambda: None)
    result = own.measure(trial, SLO)
    assert (result.valid, result.decision) == (False, Decision.INVALID)
    assert "no such backend" in result.invalid_reason


def test_a_dead_server_ends_the_run():
    def dead():
        raise ServerError("Triton has ended")

    own, trial = runner(check=dead)
    with pytest.raises(ServerError, match="Triton has ended"):
        own.measure(trial, SLO)
