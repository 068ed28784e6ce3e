"""What `locust -f locustfiles/locustfile.py` takes beside Locust's own arguments.

All values are text here, because the web page's form gives text; `plan.py` reads it and says what
is wrong with it. No groups: Locust shows on its form only what is added to the parser itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from locust.argument_parser import LocustArgumentParser

from harness.flow.preflight import variants_in
from harness.types import GrpcImplementation, StreamApi, TraceUnit
from harness_locust.plan import AUTO, NO_STREAMS, NO_VARIANT

DEFAULT_REPOSITORY = Path("model_repository")


def add_arguments(parser: LocustArgumentParser) -> None:
    """The harness's arguments, on the command line and on the web page's start form."""
    _add_choice(parser)
    _add_traffic(parser)
    _add_open_loop(parser)
    _add_user_counts(parser)
    _add_connection(parser)
    _add_outputs(parser)
    _add_metrics(parser)


def _add_choice(parser: LocustArgumentParser) -> None:
    """What the page's form begins with: which variant, how it is asked, what is asked of it."""
    repository = _repository()
    parser.add_argument(
        "--repository",
        default=str(repository),
        include_in_web_ui=False,  # the choices below are made of it once, at the start
        help="model repository to choose variants from; model_repository by default",
    )
    variants = list(variants_in(repository))
    parser.add_argument(
        "--variant",
        # Not an empty one, whose label the form's box would strike through.
        default=NO_VARIANT if variants else "",
        choices=[NO_VARIANT, *variants] if variants else None,
        include_in_web_ui=bool(variants),
        help="variant in the repository; it is loaded if the server has not loaded it",
    )
    parser.add_argument(
        "--objective", default="", help="judged while the test runs, such as p95 < 50 ms"
    )
    parser.add_argument(
        "--protocol",
        default=AUTO,
        choices=[AUTO, "http", "grpc"],
        help="auto: by the scheme of the host",
    )
    parser.add_argument(
        "--generate",
        default=NO_STREAMS,
        choices=[NO_STREAMS, *map(str, StreamApi)],
        help="the model writes: its answers are streamed token by token over this interface, and "
        "--payloads are prompts",
    )
    parser.add_argument(
        "--load-mode",
        default=AUTO,
        choices=[AUTO, "closed", "open"],
        help="closed: each user has one request in flight; open: a rate; auto: by the rate",
    )
    parser.add_argument(
        "--rate",
        default="",
        help="requests/s of the whole test, split over the workers; the user count does not matter",
    )
    parser.add_argument("--client-batch-size", default="", help="rows per request; 1 by default")
    parser.add_argument("--length-mix", default="", help="padded lengths, such as 16:1,32:2")


def _repository() -> Path:
    """Looked for ahead of Locust's own reading: the form's choices must be known by then."""
    ahead = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ahead.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY)
    try:
        found: Path = ahead.parse_known_args()[0].repository
    except SystemExit:  # an option without its value, which Locust will say too
        return DEFAULT_REPOSITORY
    return found


def _add_traffic(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--model", default="", help="name of a model on the server, where no variant is chosen"
    )
    parser.add_argument(
        "--payloads",
        default="",
        help="payload file (.npz) of a harness run, for --model; with --generate prompts as JSON "
        'lines: {"prompt": "...", "max_tokens": 64}',
    )
    parser.add_argument(
        "--batch-mix", default="", help="draw rows per request instead, such as 1:0.7,8:0.3"
    )
    parser.add_argument(
        "--seed", "--payload-seed", default="0", help="seed for drawing payloads and arrivals"
    )
    parser.add_argument(
        "--response-cache",
        action="store_true",
        help="count answers from the server's response cache",
    )
    parser.add_argument(
        "--known-answers", default="", help="file (.npz) of answers to compare the model's with"
    )


def _add_open_loop(parser: LocustArgumentParser) -> None:
    """Requests fall due at times fixed in advance; else every user has one in flight."""
    parser.add_argument(
        "--arrivals", default="", help="poisson (default), constant, gamma:CV or trace:FILE"
    )
    parser.add_argument(
        "--trace-unit",
        default=AUTO,
        choices=[AUTO, *map(str, TraceUnit)],
        help="unit of a trace's numbers; auto: by the name of its column",
    )
    parser.add_argument(
        "--shape", default="", help="rate over time, such as ramp:0.2..1/60s, sine:0..1/1h"
    )
    parser.add_argument(
        "--max-in-flight",
        default="1000",
        help="requests beyond this many in flight are dropped, and counted",
    )


def _add_user_counts(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--users-shape", default="", help="factor of the user count, such as spike:1..5/10min"
    )
    parser.add_argument("--sweep", default="", help="requests in flight, in steps: 1,2,4,8,16")
    parser.add_argument("--step-time", default="10", help="seconds per step of the sweep")


def _add_connection(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--transport",
        default=str(GrpcImplementation.NATIVE),
        choices=[str(one) for one in GrpcImplementation],
        help="gRPC client",
    )
    parser.add_argument(
        "--request-timeout",
        default="30",
        help="seconds after which a request without an answer has failed",
    )
    parser.add_argument(
        "--metrics-url",
        default="",
        help="Prometheus page of the server; port 8002 of the host by default",
    )
    parser.add_argument("--ca-file", default="", help="certificates to trust, in PEM")
    parser.add_argument("--insecure", action="store_true", help="do not verify certificates")
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        include_in_web_ui=False,  # it may be a secret, and the form knows no lists
        help="sent with every request, for example 'Authorization: Bearer ...'; repeatable",
    )


def _add_outputs(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--histograms", default="", help="JSON file for HDR histograms and totals of each phase"
    )
    parser.add_argument(
        "--out",
        default="",
        include_in_web_ui=False,
        help="new run folder for every test of this session; harness report reads it",
    )
    parser.add_argument(
        "--records", default="", help="folder for a Parquet file of every request, one per worker"
    )


def _add_metrics(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--metrics-port",
        default="",
        include_in_web_ui=False,  # the page has its own, at /metrics
        help="also show the metrics at http://HOST:N/metrics, for a test without the page",
    )
