"""A sweep: 1, 2, 4, 8 and 16 requests in flight for 10 s each, every step with its own result.

    locust -f sweep.py --headless --host grpc://127.0.0.1:8001

Exit code 0 says that a step meets the objective. `harness sweep` searches for the best one instead.
"""

from locust import events
from locust.argument_parser import LocustArgumentParser

import harness_locust.page  # noqa: F401  (tells Locust of its arguments, workers and page)
from harness_locust.triton_users import TritonGrpcUser, TritonHttpUser

__all__ = ["TritonGrpcUser", "TritonHttpUser"]  # the host's scheme chooses: http:// or grpc://


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's
def set_defaults(parser: LocustArgumentParser) -> None:
    """What is sent, in which steps, and what is asked of each."""
    parser.set_defaults(
        variant="topics-student-int8",  # in ./model_repository; or model= and payloads=
        sweep="1,2,4,8,16",
        step_time="10",  # seconds, of which the first fifth is left to settle
        objective="p95 < 50 ms",
        histograms="sweep.json",  # every step's percentiles, and its whole HDR histograms
    )
