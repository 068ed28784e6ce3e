r"""The locustfile: load on a model on Triton by Locust's own command, every answer checked.

On payloads that a run of the harness left behind, with Locust's web page or without (`--headless`):

    locust -f locustfiles/locustfile.py --host http://127.0.0.1:8000 \
        --model topics-student-fp32 --payloads runs/<run>/payloads/<digest>.npz
    locust -f locustfiles/locustfile.py --host grpc://127.0.0.1:8001 --model ... --payloads ... \
        --rate 500 --arrivals poisson
    locust -f locustfiles/locustfile.py ... --headless --sweep 1,2,4,8,16 --step-time 10

The host's scheme chooses between `TritonHttpUser` and `TritonGrpcUser`, of which each keeps one
request in flight; `--rate` takes `TritonOpenLoopUser`. On several machines: the same command with
`--master` on one and `--worker --master-host H` on the others. `docs/locust.md` has the rest.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.web import WebUI

from arguments import add_arguments
from conductor import Conductor, Fleet, exiting_on_mistakes
from fleets import LocalFleet, WorkerFleet
from metrics_page import show_metrics
from triton_users import TritonGrpcUser, TritonHttpUser, TritonOpenLoopUser
from worker import LocustWorker

__all__ = ["TritonGrpcUser", "TritonHttpUser", "TritonOpenLoopUser"]


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's hooks are untyped
def on_init_command_line_parser(parser: LocustArgumentParser) -> None:
    """Add the harness's arguments to Locust's own."""
    add_arguments(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]  # Locust's hooks are untyped
def on_init(environment: Environment, runner: Runner, web_ui: WebUI | None, **_: Any) -> None:
    """Take the part that this process has: worker, master, or all of it."""
    _hear_of_ctrl_c()
    if isinstance(runner, WorkerRunner):
        LocustWorker(environment, runner)
        return
    fleet: Fleet = (
        WorkerFleet(environment, runner)
        if isinstance(runner, MasterRunner)
        else LocalFleet(environment)
    )
    conductor = Conductor(environment, fleet)
    show_metrics(environment, conductor, web_ui)
    options = environment.parsed_options
    out = (options and options.out) or ""
    if web_ui is not None or out or (options is not None and options.objective):
        _watch(conductor, web_ui, out)
    if options is not None and (options.headless or options.autostart):
        # Before Locust starts: its dispatcher keeps the user classes that it finds by then.
        conductor.prepare_or_exit()


def _hear_of_ctrl_c() -> None:
    """Have it end Locust wherever it comes, without a traceback.

    Python raises it in the code that runs just then. That may be a thread of gevent's kind, which
    would end in its stead while Locust went on; so it is raised in the main one, which runs this.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)


def _watch(conductor: Conductor, web_ui: WebUI | None, out: str) -> None:
    """Have the tests judged, kept and shown; workers are spared what that imports (scipy, pandas).

    Locust takes this folder off the path once it has read the locustfile.
    """
    sys.path.insert(0, str(Path(__file__).parent))
    from serving_watch import ServingWatch
    from session_log import SessionLog, open_run_folder
    from verdict import VerdictAtEnd
    from web_page import extend_page

    watch = ServingWatch(conductor)
    with exiting_on_mistakes(conductor):
        log = SessionLog(conductor, watch, open_run_folder(out))
    options = conductor.environment.parsed_options
    if options is not None and (options.headless or options.autoquit >= 0):
        VerdictAtEnd(conductor, watch)
    if web_ui is not None:
        extend_page(web_ui, conductor, watch, log)
