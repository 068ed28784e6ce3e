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

import harness_locust.page  # noqa: F401  (tells Locust of its arguments, workers and page)
from harness_locust.triton_users import TritonGrpcUser, TritonHttpUser, TritonOpenLoopUser

__all__ = ["TritonGrpcUser", "TritonHttpUser", "TritonOpenLoopUser"]
