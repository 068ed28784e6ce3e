"""What a report shows of streams, over a made-up server whose figures can be worked out by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from sample_run import sample_run
from sample_streams import SMALL, STUDENT, TEACHER, streaming_run
from streaming_queue import STREAMS

from harness.report.family_results import families_of
from harness.report.markdown import render_markdown
from harness.report.page import page_of
from harness.report.streams.timeline import parts_of, timeline_plot
from harness.runs.folder import StoredRun
from harness.types import Decision, TrialResult

SAMPLED = 24


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return streaming_run(tmp_path_factory.mktemp("streams"))


def recommended(run: StoredRun) -> TrialResult:
    wanted = run.verdicts[0].recommended
    return next(one for one in run.trials if one.trial.trial_id == wanted)


def test_the_search_finds_the_highest_load_that_meets_the_objective(run: StoredRun) -> None:
    """Eight rows of 18 tokens take 17 steps of 5.7 ms and eight prompts of 3.3 ms: 64.6/s.

    Sixteen in flight wait for one answer, about 124 ms, and 32 for three: beyond 200 ms.
    """
    found = recommended(run)
    assert (found.trial.variant, found.trial.workload.concurrency) == (SMALL, 16)
    assert found.throughput_requests_per_s == pytest.approx(64.6, rel=0.03)
    assert found.streams is not None
    assert found.streams.output_tokens_per_s == pytest.approx(18 * 64.6, rel=0.04)
    heavier = [r for r in run.trials if r.trial.workload.concurrency == 32]
    assert [r.decision for r in heavier] == [Decision.FAIL] * len(heavier) != []


def test_the_verdict_counts_requests_and_tokens_and_names_every_latency(run: StoredRun) -> None:
    (verdict,) = run.verdicts
    assert verdict.decision is Decision.PASS
    said = (
        r"[\d.]+ requests/s, [\d,]+ output tokens/s at TTFT p95 \d+ ms \(at most .*\) and ITL p99"
    )
    assert re.search(said, verdict.summary)
    assert "inferences/s" not in verdict.summary
    assert not any("inferences/s" in one.reason for one in verdict.rejected)


def test_the_page_shows_streams_over_load(run: StoredRun) -> None:
    page = page_of(run)
    (family,) = page.families
    streams = family.streams
    assert streams is not None
    keys = [plot.key.removeprefix("stories-") for plot in streams.plots]
    assert keys == ["ttft-over-load", "itl-over-load", "goodput", "tokens", "timeline"]
    assert len(streams.table.rows) == len(run.every_trial)
    titles = [column.title for column in streams.table.columns]
    assert {"Goodput", "Output tokens", "TTFT p95", "ITL p99"} <= set(titles)
    goodput = next(plot for plot in streams.plots if plot.key.endswith("goodput"))
    drawn = [y for trace in goodput.traces[1:] for y in trace["y"]]
    known = [r.goodput.requests_per_s for r in run.every_trial if r.goodput]
    assert sorted(set(drawn)) == sorted(set(known))
    tiles = [tile.label for tile in family.finding.tiles]
    assert tiles[:3] == ["Throughput", "TTFT p95", "ITL p99"]
    assert family.finding.tiles[0].unit == "requests/s"


def test_markdown_has_the_same_tables(run: StoredRun) -> None:
    written = render_markdown(page_of(run))
    assert "### Streams over load" in written
    assert "### Sampled requests" in written
    assert "ttft_p95" not in written.replace("\\", "").split("## The study")[0]


def test_the_timeline_has_every_token_of_every_sampled_request(run: StoredRun) -> None:
    found = recommended(run)
    sample = run.records[found.trial.trial_id]
    assert len(sample) == SAMPLED
    assert sample[0].due_ms == 0
    assert [one.due_ms for one in sample] == sorted(one.due_ms for one in sample)
    for one in sample:
        assert len(one.token_ms) == one.output_tokens
        assert one.due_ms <= one.sent_ms < one.token_ms[0]
        assert list(one.token_ms) == sorted(one.token_ms)
    *_, tokens = timeline_plot("stories", "a trial", sample).traces
    assert len(tokens["x"]) == sum(one.output_tokens or 0 for one in sample)
    assert tokens["hovertext"][0].startswith(f"token 1 of {sample[0].output_tokens}: ")


def test_the_timeline_tells_the_wait_in_the_server_from_the_reading_where_that_is_known(
    run: StoredRun,
) -> None:
    known = run.records[recommended(run).trial.trial_id]
    assert "waiting in the server" not in dict(parts_of(known))
    told = [replace(one, queue_ms=1.5) for one in known[:-1]] + [known[-1]]
    assert "waiting in the server" in dict(parts_of(told))
    traces = {one["name"]: one for one in timeline_plot("stories", "a trial", told).traces}
    waits, reads = traces["waiting in the server"]["x"], traces["to the first token"]["x"]
    assert waits[:2] == [told[0].sent_ms, told[0].sent_ms + 1.5]
    assert reads[0] == waits[1]
    assert len(waits) == 3 * (len(told) - 1)
    assert reads[-3:-1] == [told[-1].sent_ms, told[-1].first_ms]


def test_tokens_per_second_stand_beside_quality(run: StoredRun) -> None:
    (family,) = page_of(run).families
    assert family.streams is not None
    assert family.streams.tokens is not None
    front, *points = [t for t in family.streams.tokens.traces if t["name"] != "recommended"]
    at = {trace["meta"]: (trace["x"][0], trace["y"][0]) for trace in points}
    assert set(at) == {TEACHER, STUDENT, SMALL}
    assert at[SMALL][0] > at[STUDENT][0] > at[TEACHER][0]
    assert list(zip(front["x"], front["y"], strict=True)) == [at[SMALL], at[STUDENT], at[TEACHER]]
    # From the fastest to the slowest: across at a point's own quality, and only then up.
    assert front["line"]["shape"] == "hv"


@cache
def unary() -> StoredRun:
    return sample_run()


def test_answers_in_one_show_nothing_of_streams() -> None:
    page = page_of(unary())
    assert [family.streams for family in page.families] == [None, None]
    assert "Streams over load" not in render_markdown(page)
    assert [family.throughput_unit for family in families_of(unary())] == ["inferences/s"] * 2


def test_a_run_without_records_has_no_timeline(tmp_path: Path, run: StoredRun) -> None:
    from dataclasses import replace

    from harness.runs.records import StoredRecords

    bare = replace(run, records=StoredRecords(tmp_path / "records"))
    (family,) = page_of(bare).families
    assert family.streams is not None
    assert (family.streams.timeline, family.streams.requests) == (None, None)
    assert STREAMS.traffic in render_markdown(page_of(bare))
