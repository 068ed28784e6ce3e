"""How a variant looks in every plot of its family: colour, shape, fill and dash.

Colour alone never tells two things apart: a model has a colour *and* a shape, a precision a fill
*and* a dash. Colours are Okabe and Ito's palette (2008, 'Color Universal Design'), kept as names
of CSS variables, so that one style sheet serves light, dark and print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle

from harness.report.selection import FamilyResults
from harness.types import ModelVariant, Precision, Role

TEACHER_COLOUR, CONTROL_COLOUR, BASELINE_COLOUR = "--c-blue", "--c-purple", "--ink-soft"
_STUDENT_COLOURS = ("--c-vermillion", "--c-green", "--c-orange", "--c-sky")
_STUDENT_SHAPES = ("circle", "triangle-up", "triangle-down", "pentagon")

SHAPE_PATHS: Mapping[str, str] = {
    "square": "M-4,-4H4V4H-4Z",
    "circle": "M4.5,0A4.5,4.5 0 1,1 -4.5,0A4.5,4.5 0 1,1 4.5,0Z",
    "triangle-up": "M-5,4L0,-5L5,4Z",
    "triangle-down": "M-5,-4L0,5L5,-4Z",
    "pentagon": "M0,-5L5,-1.4L3,4.3H-3L-5,-1.4Z",
    "diamond": "M0,-5.6L5.6,0L0,5.6L-5.6,0Z",
    "x": "M-4,-4L4,4M-4,4L4,-4",
}
"""SVG paths of the shapes, for the key beside the plots."""


@dataclass(frozen=True)
class VariantStyle:
    """The looks of one variant."""

    name: str
    role: Role
    colour: str
    """Name of a CSS variable."""
    shape: str
    open: bool
    dash: str
    """plotly's name: solid, dot, dash."""

    @property
    def path(self) -> str:
        """SVG path of the shape."""
        return SHAPE_PATHS[self.shape]

    @property
    def dash_array(self) -> str:
        """SVG dashes of the line."""
        return {"solid": "none", "dot": "2 3", "dash": "6 4"}[self.dash]


_DASHES = {Precision.FP32: "solid", Precision.FP16: "dot", Precision.INT8: "dash"}


def styles_of(family: FamilyResults) -> dict[str, VariantStyle]:
    """A look for each variant and baseline of a family, by name."""
    styles: dict[str, VariantStyle] = {}
    looks: dict[str, tuple[str, str]] = {}
    students = zip(cycle(_STUDENT_COLOURS), cycle(_STUDENT_SHAPES), strict=False)
    for variant in family.variants:
        if variant.source not in looks:
            looks[variant.source] = (
                next(students) if variant.role is Role.STUDENT else _look_of_role(variant.role)
            )
        styles[variant.name] = _variant_style(variant, *looks[variant.source])
    for name in family.names:
        if name not in styles:
            styles[name] = VariantStyle(
                name, Role.BASELINE, BASELINE_COLOUR, "x", open=True, dash="dot"
            )
    return styles


def _look_of_role(role: Role) -> tuple[str, str]:
    return (TEACHER_COLOUR, "square") if role is Role.TEACHER else (CONTROL_COLOUR, "diamond")


def _variant_style(variant: ModelVariant, colour: str, shape: str) -> VariantStyle:
    return VariantStyle(
        name=variant.name,
        role=variant.role,
        colour=colour,
        shape=shape,
        open=variant.precision is not Precision.FP32,
        dash=_DASHES[variant.precision],
    )
