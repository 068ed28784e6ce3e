"""Locust with `tritonclient` as everybody writes it: the yardstick of what plain Locust costs.

Nothing here is meant to be clever. The tensors are made for every request, every request is told
to Locust by itself, and the time is taken around the call. One thing is not as everybody writes
it: the process leaves at once when Locust is done, because with gRPC under gevent it often hangs
there until it is killed.

    locust -f benchmarks/naive_locustfile.py --host grpc://127.0.0.1:8001 --model cached
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from locust import User, constant, constant_throughput, events, task

_TOKENS = 32


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # Locust's hooks
def add_arguments(parser: Any) -> None:
    """What to ask, and how often."""
    parser.add_argument("--model", required=True)
    parser.add_argument("--per-user", type=float, default=0, help="requests/s a user; 0: no pause")


@events.init.add_listener  # type: ignore[untyped-decorator]
def load_tritonclient(environment: Any, **_: Any) -> None:
    """Import the client of the host's protocol before Locust's run time begins."""
    if (environment.host or "").startswith("grpc://"):
        import grpc.experimental.gevent
        import tritonclient.grpc

        grpc.experimental.gevent.init_gevent()
    else:
        import tritonclient.http  # noqa: F401


@events.quit.add_listener  # type: ignore[untyped-decorator]
def leave(exit_code: int, **_: Any) -> None:
    """End without waiting for gRPC's threads; the report is written by now."""
    os._exit(exit_code)


class TritonUser(User):
    """One user of the model, over the protocol that the host's scheme names."""

    def wait_time(self) -> float:
        """Between two tasks."""
        rate = self.environment.parsed_options.per_user
        return float((constant_throughput(rate) if rate else constant(0))(self))

    def on_start(self) -> None:
        """Open a client."""
        scheme, _, address = (self.host or "").partition("://")
        if scheme == "grpc":
            import tritonclient.grpc as triton
        else:
            import tritonclient.http as triton
        self.triton = triton
        self.client = triton.InferenceServerClient(address)
        self.model = self.environment.parsed_options.model

    @task
    def infer(self) -> None:
        """Ask once."""
        tokens = np.full((1, _TOKENS), 7, np.int64)
        inputs = []
        for name in ("input_ids", "attention_mask"):
            tensor = self.triton.InferInput(name, tokens.shape, "INT64")
            tensor.set_data_from_numpy(tokens)
            inputs.append(tensor)
        exception = None
        start = time.perf_counter()
        try:
            self.client.infer(self.model, inputs).as_numpy("logits")
        except Exception as error:  # noqa: BLE001  (as everybody writes it)
            exception = error
        self.environment.events.request.fire(
            request_type="triton",
            name=self.model,
            response_time=(time.perf_counter() - start) * 1000,
            response_length=0,
            exception=exception,
            context={},
        )
