"""A configuration that the server refuses is one trial's failure; a dead server ends the run."""

import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from harness.errors import ServerError
from harness.flow.options import RunSettings
from harness.flow.serving import Site, check_after_failure
from harness.flow.trial import TrialRunner
from harness.serving.endpoint import Endpoint
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
    server = SimpleNamespace(check=check, pid=None)
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


class Dying:
    """Refuses connections; its process is seen to have ended at the given look only."""

    pid = 4711
    endpoint = Endpoint("127.0.0.1:9", "", "")  # nothing listens on the discard port

    def __init__(self, seen_at=math.inf):
        self.looks = 0
        self.seen_at = seen_at

    def check(self):
        self.looks += 1
        if self.looks >= self.seen_at:
            raise ServerError("Triton ended by signal SIGKILL")


def test_a_dying_server_is_waited_for_until_its_end_is_seen():
    server = Dying(seen_at=4)
    with pytest.raises(ServerError, match="SIGKILL"):
        check_after_failure(server)
    assert server.looks == 4


def test_a_server_that_answers_nothing_is_no_server():
    with pytest.raises(ServerError, match=r"4711.*answered nothing"):
        check_after_failure(Dying(), timeout_s=0.2)


def test_a_server_that_lives_is_not_waited_for():
    class Live(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/v2/health/live" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Live) as listening:
        threading.Thread(target=listening.handle_request, daemon=True).start()
        server = Dying()
        server.endpoint = Endpoint(f"127.0.0.1:{listening.server_port}", "", "")
        check_after_failure(server)
    assert server.looks == 1
