"""An open loop: 200 requests/s fall due at random, whatever the server does, for 30 s.

    locust -f open_loop.py --headless --host http://127.0.0.1:8000

Latency counts from when a request was due. Copy it and name a model of yours; command line and page
go before what stands here (`--rate 500`).
"""

from locust import events
from locust.argument_parser import LocustArgumentParser

import harness_locust.page  # noqa: F401  (tells Locust of its arguments, workers and page)
from harness_locust.triton_users import TritonOpenLoopUser

__all__ = ["TritonOpenLoopUser"]


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's
def set_defaults(parser: LocustArgumentParser) -> None:
    """What is sent, when, and what is asked of it."""
    parser.set_defaults(
        variant="topics-student-int8",  # in ./model_repository; or model= and payloads=
        rate="200",  # of all workers together
        arrivals="poisson",  # or constant, gamma:2, trace:FILE
        shape="ramp:0.2..1/10s",  # the rate's course; flat by default
        max_in_flight="512",  # beyond so many a request is dropped, and counts as failed
        run_time="30s",
        objective="p95 < 50 ms",
    )
