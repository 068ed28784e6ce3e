"""Where quality was lost, as the report, its Markdown and the terminal show it."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from sample_run import sample_run

from harness.report.build import build_report
from harness.report.cautions import warnings_of
from harness.report.family_results import FamilyResults
from harness.report.page import page_of
from harness.report.tables.losses import augmentation_hint, examples_table
from harness.report.terminal.run import losses_table, pairs_table
from harness.runs.tables import losses_table as losses_frame
from harness.runs.tables import slices_table
from harness.types.losses import (
    ChainLink,
    ConfusionShift,
    Estimate,
    LossChain,
    LossEntry,
    PairedMeasure,
    SliceLoss,
    WorstExample,
)
from harness.words.numbers import MINUS

STUDENT = "topics-student-int8"
LINKS = (
    ChainLink("teacher", 0.8213, Estimate(0.0), 0),
    ChainLink("distillation", 0.7987, Estimate(0.0226, 0.01, 0.03), 90),
    ChainLink("export", 0.7987, Estimate(0.0, -0.0018, 0.0018), 0),
    ChainLink("quantisation", 0.7973, Estimate(0.0014, -0.001, 0.004), 4),
    ChainLink("serving", 0.7973, Estimate(0.0, -0.0018, 0.0018), 0),
    ChainLink("batching", 0.7973, Estimate(0.0, -0.002, 0.002), 2),
)
CHAIN = LossChain("accuracy", 1500, 0, LINKS, Estimate(0.024, 0.011, 0.033))
SLICES = (
    SliceLoss("class", "jit", 150, 0.8, 0.6, Estimate(0.2, 0.1, 0.3), 0.19, 0.004, 12),
    SliceLoss("source", "<script>", 12, 0.5, 0.5, Estimate(0.0), None, None, None),
)
ENTRY = LossEntry(
    STUDENT,
    "digest",
    "topics",
    CHAIN,
    slices=SLICES,
    shifts=(ConfusionShift("jit", "nn", 2, 9),),
    classes=("jit", "nn"),
    confusion_change=((-7, 7, 0), (0, 0, 0)),
    examples=(
        WorstExample(7, "<img src=x onerror=alert(1)>", "jit", "jit (90%)", "nn (80%)", 2.1),
    ),
)
BROKEN = LossEntry("topics-tiny-fp32", "digest", "topics", None, problem="weights are missing")


def run_with_losses():
    pairs = (
        PairedMeasure(STUDENT, "topics", "right_to_wrong", 0.067, 0.055, 0.081, 1500),
        PairedMeasure(STUDENT, "topics", "ece", 0.07, None, None, 1500),
        PairedMeasure(STUDENT, "topics", "ece_by_chance", 0.036, None, None, 1500),
    )
    return replace(sample_run(), pairs=pairs, losses=(ENTRY, BROKEN))


def test_the_report_shows_every_share_and_escapes_texts(tmp_path: Path):
    html, markdown = build_report(run_with_losses(), tmp_path)
    for path in (html, markdown):
        text = path.read_text(encoding="utf-8")
        assert f"{MINUS}2.26" in text
        assert "weights are missing" in text
        assert "<img src=x" not in text
        assert "too few for an interval" in text
        assert "▼" in text
    lost = page_of(run_with_losses()).families[0].lost
    assert [plot.key for plot in lost.plots] == [
        f"topics-lost-{STUDENT}",
        f"topics-slices-{STUDENT}",
        f"topics-confusions-{STUDENT}",
    ]
    heights = lost.waterfalls[0].traces[0]["y"]
    assert abs(sum(heights[:-1]) - heights[-1]) < 1e-9
    assert page_of(sample_run()).families[0].lost is None


def test_a_slice_that_falls_further_is_named_with_its_training_samples():
    assert "class jit (12 training samples)" in augmentation_hint(ENTRY)
    alike = replace(SLICES[0], p_value=0.4)
    assert "No slice" in augmentation_hint(replace(ENTRY, slices=(alike, SLICES[1])))


def test_slices_that_nobody_tested_call_for_nothing():
    """Those of entities and of vectors have no test, however much they lose."""
    untested = replace(SLICES[0], excess=None, p_value=None)
    assert augmentation_hint(replace(ENTRY, slices=(untested, SLICES[1]))) == ""


def test_the_terminal_fits_and_the_tables_are_tidy():
    console = Console(width=100, record=True)
    console.print(pairs_table(run_with_losses()))
    console.print(losses_table(run_with_losses()))
    text = console.export_text()
    assert "6.7%" in text
    assert f"{MINUS}2.40 points" in text
    assert "…" not in text
    frame = losses_frame(run_with_losses().losses)
    assert frame["step"].tolist() == [*(link.step for link in LINKS), "total"]
    assert slices_table([ENTRY])["training_samples"].isna().tolist() == [False, True]


def test_without_an_interval_what_follows_it_stands_alone(tmp_path: Path) -> None:
    # From one document there is no interval.
    links = tuple(replace(one, loss=Estimate(one.loss.value)) for one in LINKS)
    entry = replace(ENTRY, chain=replace(CHAIN, links=links, total=Estimate(0.024)))
    _, markdown = build_report(replace(sample_run(), losses=(entry,)), tmp_path)
    text = markdown.read_text(encoding="utf-8")
    assert f"{MINUS}2.26 (90 changed)" in text
    assert "(, " not in text
    console = Console(width=100, record=True)
    console.print(losses_table(replace(sample_run(), losses=(entry,))))
    assert console.export_text().rstrip().endswith("points")


def test_why_a_cosine_or_a_chain_is_absent_is_said_once() -> None:
    reason, other = "the retrieval set has 9,000 texts", "small has no cosine with the teacher"
    failed = [LossEntry(f"{n}-fp32", "d", "search", None, problem=reason) for n in "ab"]
    failed[1] = replace(failed[1], not_compared=other)
    family = FamilyResults("search", (), (), (), None, None, losses=tuple(failed))
    assert warnings_of(family) == (other, f"where search lost quality is not known: {reason}")
    told = LossEntry("c-fp32", "d", "search", CHAIN)
    # The table of chains then has the reason beside each variant.
    assert warnings_of(replace(family, losses=(told, failed[0]))) == ()


def test_the_cosine_of_each_step_stands_in_the_table(tmp_path: Path) -> None:
    link = replace(LINKS[2], cosine=0.99876)
    chain = replace(CHAIN, links=(*LINKS[:2], link, *LINKS[3:]))
    run = replace(sample_run(), losses=(replace(ENTRY, chain=chain),))
    html, markdown = build_report(run, tmp_path)
    for path in (html, markdown):
        assert "cosine 0.9988" in path.read_text(encoding="utf-8")


def test_what_the_row_of_an_example_counts_is_said() -> None:
    table = examples_table(ENTRY)
    assert table is not None
    assert "counted from 0 among those scored" in table.note
