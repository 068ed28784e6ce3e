"""What Locust's own command does with the harness: arguments, its part of a test, the page.

Importing this module tells Locust; `locustfiles/locustfile.py` does.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.web import WebUI

from harness.load.generators.master_endpoint import TOKEN_VARIABLE
from harness_locust.arguments import add_arguments
from harness_locust.conductor import Conductor, Fleet, exiting_on_mistakes
from harness_locust.fleets import LocalFleet, WorkerFleet
from harness_locust.guarded_sockets import guard_sockets
from harness_locust.hub_worker import HubWorker, WorkerSettings, spare_the_users
from harness_locust.metrics_page import show_metrics

guard_sockets(os.environ.get(TOKEN_VARIABLE, "").encode())


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's hooks are untyped
def on_init_command_line_parser(parser: LocustArgumentParser) -> None:
    """Add the harness's arguments to Locust's own."""
    add_arguments(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]  # Locust's hooks are untyped
def on_init(environment: Environment, runner: Runner, web_ui: WebUI | None, **_: Any) -> None:
    """Take the part that this process has: worker, master, or all of it."""
    _hear_of_ctrl_c()
    if isinstance(runner, WorkerRunner):
        spare_the_users()
        HubWorker(runner, WorkerSettings())
        return
    fleet: Fleet = (
        WorkerFleet(runner) if isinstance(runner, MasterRunner) else LocalFleet(environment)
    )
    conductor = Conductor(environment, fleet)
    show_metrics(conductor, web_ui)
    options = conductor.options
    if web_ui is not None or options.out or options.objective:
        _watch(conductor, web_ui)
    if options.headless or options.autostart:
        # Before Locust starts: its dispatcher keeps the user classes that it finds by then.
        conductor.prepare_or_exit()
    if options.headless:
        # Locust itself hears of it only once a test with a shape is over.
        _end_on(signal.SIGTERM)


def _hear_of_ctrl_c() -> None:
    """Have it end Locust wherever it comes, without a traceback.

    Python raises it in the code that runs just then. That may be a thread of gevent's kind, which
    would end in its stead while Locust went on; so it is raised in the main one, which runs this.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _end_on(signal.SIGINT)


def _end_on(number: signal.Signals) -> None:
    """Have a signal end Locust in order, as Ctrl-C does."""
    gevent.signal_handler(number, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)


def _watch(conductor: Conductor, web_ui: WebUI | None) -> None:
    """Have the tests judged, kept and shown.

    Workers are spared what that imports (scipy, pandas).
    """
    from harness_locust.serving_watch import ServingWatch
    from harness_locust.session_log import SessionLog, open_run_folder
    from harness_locust.verdict import VerdictAtEnd
    from harness_locust.web_page import extend_page

    watch = ServingWatch(conductor)
    with exiting_on_mistakes(conductor):
        log = SessionLog(conductor, watch, open_run_folder(conductor.options.out))
    if conductor.options.headless or conductor.options.autoquit >= 0:
        VerdictAtEnd(conductor, watch)
    if web_ui is not None:
        extend_page(web_ui, conductor, watch, log)
