"""Weights & Biases: one run a study, a step a trial, two tables, one artefact with the report."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from harness.errors import UsageError
from harness.tracking.record import RunRecord

PROJECT = "harness"
INIT_TIMEOUT_S = 30.0
_NO_SERVER = ("offline", "disabled", "dryrun")


def check() -> None:
    """Somebody is logged in, or nobody need be.

    Raises:
        UsageError: neither; wandb would stop and ask in the middle.
    """
    if os.environ.get("WANDB_MODE") in _NO_SERVER or os.environ.get("WANDB_API_KEY"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        known = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        known = None
    if known is None:
        raise UsageError(
            "--track wandb: not logged in to Weights & Biases",
            next_step="wandb login, or set WANDB_API_KEY; without a network: WANDB_MODE=offline",
        )


def tell(record: RunRecord, folder: Path) -> str:
    """Tell wandb of a run; returns its address, or its folder where that is off line.

    A run of the same number that was told before is overwritten.
    """
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        group=record.study,
        name=record.name,
        id=record.identity,
        dir=os.environ.get("WANDB_DIR", str(folder)),
        job_type="study",
        config=dict(record.parameters),
        settings=wandb.Settings(
            silent=True, console="off", init_timeout=INIT_TIMEOUT_S, x_disable_stats=True
        ),
    )
    try:
        for metrics in record.trial_metrics():
            run.log(metrics)
        tables = {"trials": _table(record.trials), "quality": _table(record.quality)}
        run.log({name: table for name, table in tables.items() if table is not None})
        run.summary.update({**record.metrics, **record.tags})
        artefact = wandb.Artifact(f"run-{record.identity}", type="harness-run")
        for file in record.artefacts:
            artefact.add_file(str(file))
        run.log_artifact(artefact)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()
    return str(run.url or run.dir)


def _table(rows: pd.DataFrame) -> object | None:
    """Text and numbers alone, of one kind a column: wandb refuses a mixture."""
    import wandb

    if rows.empty:
        return None
    plain = rows.astype(object).where(rows.notna(), None)
    for name in plain.columns:
        if not pd.api.types.is_numeric_dtype(rows[name]):
            plain[name] = [None if value is None else str(value) for value in plain[name]]
    return wandb.Table(dataframe=plain, allow_mixed_types=True)
