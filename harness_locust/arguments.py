"""What `locust -f locustfiles/locustfile.py` takes beside Locust's own arguments.

All values are text here, because the web page's form gives text; `plan.py` reads it and says what
is wrong with it. No groups: Locust shows on its form only what is added to the parser itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from locust.argument_parser import LocustArgumentParser

from harness.flow.preflight import variants_in
from harness.types import GrpcImplementation, StreamApi, TraceUnit
from harness_locust.plan import AUTO, NO_STREAMS, NO_VARIANT

DEFAULT_REPOSITORY = Path("model_repository")

Add = Callable[..., Any]
"""The parser's `add_argument`, with a text as its default: an empty one."""


def add_arguments(parser: LocustArgumentParser) -> None:
    """The harness's arguments, on the command line and on the web page's start form."""
    add: Add = partial(parser.add_argument, default="")
    for part in (
        _add_choice,
        _add_traffic,
        _add_open_loop,
        _add_user_counts,
        _add_connection,
        _add_outputs,
    ):
        part(add)


def _add_choice(add: Add) -> None:
    """What the page's form begins with: which variant, how it is asked, what is asked of it."""
    repository = _repository()
    add(
        "--repository",
        default=str(repository),
        include_in_web_ui=False,  # the choices below are made of it once, at the start
        help="model repository to choose variants from; model_repository by default",
    )
    variants = list(variants_in(repository))
    add(
        "--variant",
        # Not an empty one, whose label the form's box would strike through.
        default=NO_VARIANT if variants else "",
        choices=[NO_VARIANT, *variants] if variants else None,
        include_in_web_ui=bool(variants),
        help="variant in the repository; it is loaded if the server has not loaded it",
    )
    add("--objective", help="judged while the test runs, such as p95 < 50 ms")
    add(
        "--protocol",
        default=AUTO,
        choices=[AUTO, "http", "grpc"],
        help="auto: by the scheme of the host",
    )
    add(
        "--generate",
        default=NO_STREAMS,
        choices=[NO_STREAMS, *map(str, StreamApi)],
        help="the model writes: its answers are streamed token by token over this interface, and "
        "--payloads are prompts",
    )
    add(
        "--load-mode",
        default=AUTO,
        choices=[AUTO, "closed", "open"],
        help="closed: each user has one request in flight; open: a rate; auto: by the rate",
    )
    add(
        "--rate",
        help="requests/s of the whole test, split over the workers; the user count does not matter",
    )
    add("--client-batch-size", help="rows per request; 1 by default")
    add("--length-mix", help="padded lengths, such as 16:1,32:2")


def _repository() -> Path:
    """Looked for ahead of Locust's own reading: the form's choices must be known by then."""
    ahead = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ahead.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY)
    try:
        found: Path = ahead.parse_known_args()[0].repository
    except SystemExit:  # an option without its value, which Locust will say too
        return DEFAULT_REPOSITORY
    return found


def _add_traffic(add: Add) -> None:
    add("--model", help="name of a model on the server, where no variant is chosen")
    add(
        "--payloads",
        help="payload file (.npz) of a harness run, for --model; with --generate prompts as JSON "
        'lines: {"prompt": "...", "max_tokens": 64}',
    )
    add("--batch-mix", help="draw rows per request instead, such as 1:0.7,8:0.3")
    add("--seed", "--payload-seed", default="0", help="seed for drawing payloads and arrivals")
    add(
        "--response-cache",
        action="store_true",
        default=False,
        help="count answers from the server's response cache",
    )
    add("--known-answers", help="file (.npz) of answers to compare the model's with")


def _add_open_loop(add: Add) -> None:
    """Requests fall due at times fixed in advance; else every user has one in flight."""
    add("--arrivals", help="poisson (default), constant, gamma:CV or trace:FILE")
    add(
        "--trace-unit",
        default=AUTO,
        choices=[AUTO, *map(str, TraceUnit)],
        help="unit of a trace's numbers; auto: by the name of its column",
    )
    add("--shape", help="rate over time, such as ramp:0.2..1/60s, sine:0..1/1h")
    add(
        "--max-in-flight",
        default="1000",
        help="requests beyond this many in flight are dropped, and counted",
    )


def _add_user_counts(add: Add) -> None:
    add("--users-shape", help="factor of the user count, such as spike:1..5/10min")
    add("--sweep", help="requests in flight, in steps: 1,2,4,8,16")
    add("--step-time", default="10", help="seconds per step of the sweep")


def _add_connection(add: Add) -> None:
    add(
        "--transport",
        default=str(GrpcImplementation.NATIVE),
        choices=[str(one) for one in GrpcImplementation],
        help="gRPC client",
    )
    add(
        "--request-timeout",
        default="30",
        help="seconds after which a request without an answer has failed",
    )
    add("--metrics-url", help="Prometheus page of the server; port 8002 of the host by default")
    add("--ca-file", help="certificates to trust, in PEM")
    add("--insecure", action="store_true", default=False, help="do not verify certificates")
    add(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        include_in_web_ui=False,  # it may be a secret, and the form knows no lists
        help="sent with every request, for example 'Authorization: Bearer ...'; repeatable",
    )


def _add_outputs(add: Add) -> None:
    add("--histograms", help="JSON file for HDR histograms and totals of each phase")
    add(
        "--out",
        include_in_web_ui=False,
        help="new run folder for every test of this session; harness report reads it",
    )
    add("--records", help="folder for a Parquet file of every request, one per worker")
    add(
        "--metrics-port",
        include_in_web_ui=False,  # the page has its own, at /metrics
        help="also show the metrics at http://HOST:N/metrics, for a test without the page",
    )
