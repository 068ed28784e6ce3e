"""A stored run in little: a teacher and its student on two cores, with known throughputs."""

import dataclasses
from types import SimpleNamespace

from planning_samples import make_result, make_trial

from harness.study.objective import parse_objective
from harness.types import Role, ServingConfig
from tests.samples import sample_variant

TEACHER, STUDENT = "teacher", "student"


def variant(name, role, **changes):
    return dataclasses.replace(sample_variant(), name=name, family="topics", role=role, **changes)


def result(name, rate, *, batch=1, stage="confirm", spread=0.1, concurrency=4, kind="cpu", **more):
    serving = ServingConfig(instance_kind=kind)
    trial = make_trial(name, batch=batch, stage=stage, concurrency=concurrency, serving=serving)
    return dataclasses.replace(
        make_result(trial, rate=rate, **more),
        throughput_low_inferences_per_s=(1 - spread) * rate,
        throughput_high_inferences_per_s=(1 + spread) * rate,
    )


def run_of(*trials, slo="p95 < 50 ms", variants=None, verdicts=(), **manifest):
    return SimpleNamespace(
        manifest={
            "environment": {"usable_cores": 2, "gpus": [], "instance": "c7i.large"},
            "study": {"name": "topics"},
            **manifest,
        },
        variants=variants or (variant(TEACHER, Role.TEACHER), variant(STUDENT, Role.STUDENT)),
        trials=trials,
        verdicts=verdicts,
        objectives={"topics": parse_objective(slo)},
    )
