"""The terms of the project: what the parts hand to each other.

Frozen, standard library only, no behaviour beyond derived names. Field names carry units.
Every other module may import these; of the harness they import its errors alone.
"""

from harness.types.latency import (
    RESPONSE,
    SCHEDULE_DELAY,
    SERVICE,
    SPANS,
    Latencies,
    LatencySpan,
    LatencySummary,
    Moment,
    Percentile,
    SparseHistogram,
)
from harness.types.load import GeneratorHealth, LoadResult, TimeSlice
from harness.types.quality import BatchConsistency, QualityScore, TaskEntry
from harness.types.serving import Accelerator, ServingConfig, answering_version
from harness.types.telemetry import HostMetrics, PartMetrics, ServerMetrics
from harness.types.trials import STEADIER_REPEAT, ColdStart, ServerOverhead, Trial, TrialResult
from harness.types.variants import (
    FREE_SIZE,
    FailedVariant,
    ModelFormat,
    ModelVariant,
    Precision,
    Progress,
    Role,
    TensorSpec,
)
from harness.types.verdicts import Constraint, Decision, Rejection, ServiceLevelObjective, Verdict
from harness.types.workloads import (
    ArrivalKind,
    ArrivalProcess,
    LoadMode,
    LoadShape,
    RequestRecord,
    ShapeKind,
    TraceUnit,
    WireProtocol,
    Workload,
)

__all__ = [
    "FREE_SIZE",
    "RESPONSE",
    "SCHEDULE_DELAY",
    "SERVICE",
    "SPANS",
    "STEADIER_REPEAT",
    "Accelerator",
    "ArrivalKind",
    "ArrivalProcess",
    "BatchConsistency",
    "ColdStart",
    "Constraint",
    "Decision",
    "FailedVariant",
    "GeneratorHealth",
    "HostMetrics",
    "Latencies",
    "LatencySpan",
    "LatencySummary",
    "LoadMode",
    "LoadResult",
    "LoadShape",
    "ModelFormat",
    "ModelVariant",
    "Moment",
    "PartMetrics",
    "Percentile",
    "Precision",
    "Progress",
    "QualityScore",
    "Rejection",
    "RequestRecord",
    "Role",
    "ServerMetrics",
    "ServerOverhead",
    "ServiceLevelObjective",
    "ServingConfig",
    "ShapeKind",
    "SparseHistogram",
    "TaskEntry",
    "TensorSpec",
    "TimeSlice",
    "TraceUnit",
    "Trial",
    "TrialResult",
    "Verdict",
    "WireProtocol",
    "Workload",
    "answering_version",
]
