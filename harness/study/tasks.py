"""The section of a study that says which task its family is judged on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from harness.tasks.registry import FAMILIES
from harness.tasks.section import TaskSection

if TYPE_CHECKING:
    Task = TaskSection
else:
    Task = Annotated[
        Union[tuple(one.section for one in FAMILIES)],  # noqa: UP007  (made at run time)
        Field(discriminator="kind"),
    ]
