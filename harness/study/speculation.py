"""A student as its teacher's draft, in a study."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.system.strict import Name, Strict

MOST_DRAFT_TOKENS = 16


class Speculation(Strict):
    """Which variant proposes tokens to the teacher, and how many at a time."""

    draft: Name = Field(
        description="The variant that proposes tokens: a model's name with its precision, such as "
        "small-int8. It needs the teacher's tokenizer."
    )
    tokens: Annotated[int, Field(ge=1, le=MOST_DRAFT_TOKENS)] = Field(
        4, description="Proposed in each step; the teacher checks them in one run."
    )
