"""What all roles of a task family share: its kind, and the types that it is written in."""

from __future__ import annotations

from abc import ABC
from typing import TypeVar

from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import Answer, Outcomes
from harness.tasks.section import TaskSection

S = TypeVar("S", bound=TaskSection)
"""The family's section of a study."""
D = TypeVar("D", bound=EncodedDataset)
"""The family's data set: what `encode` makes of rows that can be scored."""
A = TypeVar("A", bound=Answer)
"""What a model said of the rows of one request."""
R = TypeVar("R", bound=Outcomes)
"""What a model answered to every row of the test split."""


class FamilyRole(ABC):
    """One of the roles of a task family."""

    kind: str
    """The kind's name in a study, after Hugging Face's pipelines."""
