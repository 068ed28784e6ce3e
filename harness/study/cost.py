"""What serving is priced on, for an objective with a clause on cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic.json_schema import SkipJsonSchema

from harness.system.strict import Strict, resolve
from harness.types.estimates import Pricing


class CostBasis(Strict):
    """The machine that a clause on cost is priced on: `cost < 0.20/1M`."""

    instance: Annotated[str, Field(min_length=1)] = Field(
        description="Instance type, such as g5.xlarge."
    )
    measured_on: str | None = Field(
        None,
        description="Instance type that the study runs on. Default: as detected (on AWS); where it "
        "is not known, the throughput on `instance` is an estimate with wide bounds.",
    )
    spot: bool = Field(False, description="Take the spot price instead of the on-demand price.")
    usd_per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Price of one machine per hour. Default: the catalogue's."
    )
    prices: Path | None = Field(
        None, description="CSV file of your own prices, as for harness cost --prices."
    )
    pricing: SkipJsonSchema[dict[str, Pricing]] = Field(
        default_factory=dict,
        description="By instance kind (cpu, gpu); filled in when the study is run.",
    )

    @field_validator("prices")
    @classmethod
    def _beside_the_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        found = resolve(path, info)
        if not found.is_file():
            raise ValueError(f"no such file: {found}")
        return found
