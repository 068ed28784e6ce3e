"""A closed loop: 16 users, each of whom keeps one request in flight, for 30 s.

    locust -f closed_loop.py --headless --host http://127.0.0.1:8000

Copy it and name a model of yours. Command line and page go before what stands here (`--users 64`).
"""

from locust import events
from locust.argument_parser import LocustArgumentParser

import harness_locust.page  # noqa: F401  (tells Locust of its arguments, workers and page)
from harness_locust.triton_users import TritonGrpcUser, TritonHttpUser

__all__ = ["TritonGrpcUser", "TritonHttpUser"]  # the host's scheme chooses: http:// or grpc://


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's
def set_defaults(parser: LocustArgumentParser) -> None:
    """What is sent, by how many, for how long, and what is asked of it."""
    parser.set_defaults(
        variant="topics-student-int8",  # in ./model_repository; or model= and payloads=
        num_users=16,
        spawn_rate=16,
        run_time="30s",
        objective="p95 < 50 ms",  # exit code 0 where it holds, 3 where not, 4 undecided
    )
