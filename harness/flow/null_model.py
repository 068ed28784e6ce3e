"""The server's own cost per request: a null model, measured once for each protocol of a run.

Only on the embedded server, whose repository is ours to write to. It is not a bound that a trial is
compared with: it stands beside each trial, so that a reader sees how much of a small student's
latency is the server's.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from harness.errors import HarnessError, ServerError
from harness.flow.options import RunSettings
from harness.flow.preparation import PreparedFamily
from harness.flow.serving import Served, check_after_failure
from harness.load.engine.closed_loop import drive_alone
from harness.load.requests.payloads import write_payloads
from harness.load.requests.traffic import make_traffic
from harness.load.transports.contract import RequestFailure
from harness.load.transports.opening import transport_opener
from harness.runs.folder import RunFolder
from harness.serving.null_model import write_null_model
from harness.study import Study
from harness.telemetry import triton
from harness.types import (
    ModelVariant,
    Progress,
    ServerOverhead,
    ServingConfig,
    WireProtocol,
    Workload,
)

STAGE = "null model"
MOST_REQUESTS, LONGEST_S = 400, 1.0
WARM_UP_REQUESTS = 100
"""Left out: connecting, the backend's first executions."""
TIMEOUT_S = 10.0
_ROWS = 8
_SERVING = ServingConfig(max_batch_size=_ROWS, queue_delay_us=0, instance_count=1)


def measure_overhead(
    study: Study, served: Served, folder: RunFolder, settings: RunSettings
) -> None:
    """Measure what the journal lacks; a server that will not serve the null model is warned of."""
    families = [one for one in served.families if not one.writes]
    wanted = {
        protocol for family in families for protocol in study.traffic_of(family.family).protocols
    }
    missing = sorted(wanted - set(folder.journal.overheads))
    if not missing or served.site.control is None:
        return
    settings.progress(Progress(STAGE, 0, len(missing), "the server's own cost per request"))
    try:
        _measure(missing, families[0], served, folder, settings)
    except (HarnessError, RequestFailure) as error:
        check_after_failure(served.site.server)
        settings.warn(f"the server's own cost is not known, its null model was not served: {error}")


def _measure(
    protocols: list[WireProtocol],
    family: PreparedFamily,
    served: Served,
    folder: RunFolder,
    settings: RunSettings,
) -> None:
    control = served.site.control
    assert control is not None  # noqa: S101  (asked before; tells the type checker)
    variant = write_null_model(settings.repository, family.variants[0].inputs)
    payloads = folder.path / "payloads" / f"{variant.name}.npz"
    _write_rows(payloads, family)
    try:
        control.load(variant, _SERVING)
        for done, protocol in enumerate(protocols):
            settings.progress(Progress(STAGE, done, len(protocols), str(protocol)))
            folder.journal.add(_cost(protocol, variant, served, payloads))
        control.unload(variant)
    finally:
        shutil.rmtree(variant.path, ignore_errors=True)


def _write_rows(path: Path, family: PreparedFamily) -> None:
    group = next(iter(family.datasets[family.variants[0].name].groups))
    write_payloads(path, [{name: rows[:_ROWS] for name, rows in group.inputs.items()}])


def _cost(
    protocol: WireProtocol, variant: ModelVariant, served: Served, payloads: Path
) -> ServerOverhead:
    opener = transport_opener(protocol, served.site.targets[protocol], timeout_s=TIMEOUT_S)
    workload = Workload(protocol, 1, 1, LONGEST_S, 0.0, seed=0)
    traffic = make_traffic(variant.name, opener, workload, payloads, outputs=variant.outputs)
    transport = opener()
    try:
        drive_alone(
            transport,
            traffic.requests,
            traffic.check,
            most=WARM_UP_REQUESTS,
            longest_s=LONGEST_S,
        )
        before = triton.read_counters(served.site.client.statistics(variant.name), None)
        records = drive_alone(
            transport, traffic.requests, traffic.check, most=MOST_REQUESTS, longest_s=LONGEST_S
        )
        after = triton.read_counters(served.site.client.statistics(variant.name), None)
    finally:
        transport.close()
    if not records:
        raise ServerError("it answered no request")
    own = triton.difference(before, after)
    return ServerOverhead(
        protocol,
        len(records),
        statistics.median(one.completed_ns - one.sent_ns for one in records) / 1e6,
        own.accounted_ms,
    )
