"""MLflow: one run a study, in an experiment of the study's name; a step a trial."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.tracking.record import RunRecord, key

IDENTITY_TAG = "harness.identity"
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A server that is not there is known in seconds; by default MLflow tries for minutes."""
_MOST_CHARACTERS = 500
"""Most characters of a parameter, in every store."""
_MOST_PARAMETERS = 100
"""Most parameters of one call."""


def check() -> None:
    """Do nothing: there is no login; the address is MLflow's own `MLFLOW_TRACKING_URI`."""


def tell(record: RunRecord, folder: Path) -> str:  # noqa: ARG001  (every sink is called alike)
    """Tell MLflow of a run; returns the store and the run's number there."""
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    with _patience():
        client = mlflow.MlflowClient()
        run_id, started_ms = _new_run(client, record)
        try:
            for step, metrics in enumerate((record.metrics, *record.trial_metrics())):
                points = [Metric(key(k), v, started_ms, step) for k, v in metrics.items()]
                client.log_batch(run_id, metrics=points)
            tags = [RunTag(key(name), text) for name, text in record.tags.items()]
            client.log_batch(run_id, tags=tags)
            parameters = [
                Param(name, str(value)[:_MOST_CHARACTERS])
                for name, value in record.parameters.items()
            ]
            for start in range(0, len(parameters), _MOST_PARAMETERS):
                client.log_batch(run_id, params=parameters[start : start + _MOST_PARAMETERS])
            for file in record.artefacts:
                client.log_artifact(run_id, str(file))
            for name, rows in (("trials", record.trials), ("quality", record.quality)):
                if not rows.empty:
                    client.log_table(run_id, rows.astype(object), f"tables/{name}.json")
        except BaseException:
            client.set_terminated(run_id, status="FAILED")
            raise
        client.set_terminated(run_id)
        return f"{mlflow.get_tracking_uri()}, run {run_id}"


def _new_run(client: Any, record: RunRecord) -> tuple[str, int]:
    """Write a run of this record, replacing the one that was sent before."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", record.study)
    experiment = client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else client.create_experiment(name)
    for told in client.search_runs([number], f"tags.`{IDENTITY_TAG}` = '{record.identity}'"):
        client.delete_run(told.info.run_id)
    tags = {IDENTITY_TAG: record.identity}
    run = client.create_run(number, run_name=record.name, tags=tags)
    return run.info.run_id, run.info.start_time


@contextmanager
def _patience() -> Iterator[None]:
    """Shorter than MLflow's own, unless the user chose."""
    added = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
