"""Options in groups: what typer is shown, and what the command gets of it."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from harness.cli.options import with_option_groups
from harness.cli.typed import as_typed, refuse_without, typed_options
from harness.errors import UsageError


@dataclass(frozen=True)
class Traffic:
    rate: float | None = None
    duration_s: Annotated[float, typer.Option("--duration", help="Measured seconds.")] = 10.0
    labels: Annotated[list[str], typer.Option("--label")] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    study: Annotated[str, typer.Argument()]
    traffic: Traffic = field(default_factory=Traffic)
    quick: bool = False


def call(*arguments):
    """What a command with a group in a group got, and how it ended."""
    app, got = typer.Typer(), []

    @app.command()
    @with_option_groups
    def measure(*, seed: int = 1, plan: Plan) -> int:
        """Measure."""
        got.append((seed, plan))
        return 0

    return CliRunner().invoke(app, list(arguments)), got


def test_what_is_not_typed_is_the_groups_default():
    _, got = call("a.yaml")
    assert got == [(1, Plan("a.yaml", Traffic(None, 10.0, []), quick=False))]


def test_every_field_is_an_option_however_deep():
    traffic = ["--rate", "5", "--duration", "2.5", "--label", "x", "--label", "y"]
    _, got = call(*traffic, "--quick", "--seed", "3", "b.yaml")
    assert got == [(3, Plan("b.yaml", Traffic(5.0, 2.5, ["x", "y"]), quick=True))]


def test_a_field_without_a_default_is_required():
    outcome, got = call("--rate", "5")
    assert (outcome.exit_code, got) == (2, [])


def test_the_help_has_the_fields_and_not_the_groups():
    outcome, _ = call("--help")
    assert "--duration" in outcome.output
    assert "Measured seconds." in outcome.output
    assert "--plan" not in outcome.output
    assert "--traffic" not in outcome.output


def test_one_name_in_two_groups_is_refused():
    with pytest.raises(ValueError, match="rate"):

        @with_option_groups
        def twice(one: Traffic, other: Traffic) -> None:
            """Cannot be."""


def test_what_was_typed_is_told_from_defaults_and_can_be_typed_again():
    app, got = typer.Typer(), []

    @app.command()
    @with_option_groups
    def measure(context: typer.Context, *, plan: Plan) -> int:
        """Measure."""
        got.append(typed_options(context))
        return 0

    words = ["--rate", "4.5", "--duration", "10", "--label", "a b", "--label", "y", "--quick"]
    CliRunner().invoke(app, ["a.yaml", *words])
    CliRunner().invoke(app, ["a.yaml"])
    typed, nothing = got
    assert as_typed(typed) == words
    assert as_typed(typed, without=("--label", "--rate")) == ["--duration", "10", "--quick"]
    assert nothing == {}
    refuse_without(typed, "--rate", ("--duration", "--quick"), "--rate 5")
    refuse_without(nothing, "--rate", ("--duration", "--quick"), "--rate 5")
    with pytest.raises(UsageError, match="--duration and --quick say something of --shape") as told:
        refuse_without(typed, "--shape", ("--duration", "--quick"), "--shape ramp")
    assert told.value.next_step == "add --shape ramp, or leave them out"
