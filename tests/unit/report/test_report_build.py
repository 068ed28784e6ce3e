import base64
import gzip
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from sample_run import sample_run
from unusual_runs import HOSTILE, UNUSUAL

from harness.errors import StorageError
from harness.report.build import build_report
from harness.report.family_results import families_of
from harness.report.gains import size_words
from harness.report.page import page_of, render_html
from harness.report.tables.provenance import load_command, run_command
from harness.types import (
    Accelerator,
    ArrivalKind,
    ArrivalProcess,
    Generation,
    LoadMode,
    LoadShape,
    ServingConfig,
    ShapeKind,
    StreamApi,
    Trial,
    WireProtocol,
    Workload,
)
from harness.types.workloads import parse_arrivals, parse_mix, parse_shape

RUNS = {"sample_run": sample_run, **UNUSUAL}
VOID = {"meta", "link", "img", "br", "hr", "input", "line", "path"}


class Page(HTMLParser):
    """Text by section, tags, and whether every tag is closed."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.text, self.ids = [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """HTML and Markdown of every run, by name."""
    reports = {}
    for name, make in RUNS.items():
        html, markdown = build_report(make(), tmp_path_factory.mktemp(name))
        reports[name] = (html.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8"))
    return reports


@pytest.mark.parametrize("name", RUNS)
def test_every_run_renders_to_well_formed_html_with_unique_ids(built, name):
    page = Page(built[name][0])
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    anchors = [a["href"][1:] for tag, a in page.tags if tag == "a" and a["href"].startswith("#")]
    assert set(anchors) <= set(page.ids)


@pytest.mark.parametrize("name", RUNS)
def test_the_page_needs_nothing_from_elsewhere(built, name):
    for tag, attributes in Page(built[name][0]).tags:
        assert not {"src", "srcset", "action"} & set(attributes)
        if "href" in attributes:
            assert attributes["href"].startswith(("#", "data:,")), tag


def bundles(html):
    """The scripts that a page carries compressed."""
    packed = re.findall('<script type="application/gzip" id="plotly">(.*?)</script>', html)
    return [gzip.decompress(base64.b64decode(one)).decode() for one in packed]


def test_plotly_is_there_once_and_not_without_plots(built):
    (script,) = bundles(built["sample_run"][0])
    assert re.match(r"/\*\*\n\* plotly\.js (\(\w+ - minified\) )?v\d", script)
    assert "Licensed under the MIT license" in script[:200]
    assert bundles(built["nothing_yet"][0]) == []


@pytest.mark.parametrize("name", RUNS)
def test_a_report_is_under_two_megabytes(built, name):
    if len(bundles(built["sample_run"][0])[0]) > 2_000_000:
        pytest.skip("installed without npm: the report carries plotly's full bundle")
    assert len(built[name][0].encode()) < 2_000_000


def folded(html):
    """Titles of the parts that are folded away when the page is opened."""
    return re.findall(r'<details class="fold"[^>]*><summary><h3>(.*?)</h3>', html)


def test_the_page_opens_with_verdict_and_pictures_and_folds_the_rest(built):
    html = built["sample_run"][0]
    topics = html.partition('id="family-1"')[2].partition('id="family-2"')[0]
    opened, _, rest = topics.partition('<details class="fold"')
    for title in ("What to run", "Quality against latency", "Throughput against", "Teacher and"):
        assert title in opened
    assert opened.count("data-plot") == 1 + 4 + 1 + 1
    assert rest.count("data-plot") == 4 + 1
    assert '<details class="fold" open' not in html
    assert folded(topics) == [
        "Batch consistency",
        "Cold start",
        "Second by second",
        "The start of the load",
        "Latency by span",
        "Can these numbers be trusted?",
        "The search",
    ]
    assert f"All {len(sample_run().trials)} trials" in folded(html)


def test_how_to_read_it_says_what_is_done(built):
    text = built["sample_run"][0].partition('id="reading"')[2]
    assert "had to drop, which count as slower than any" in text
    assert "exact (Clopper and Pearson) for plain shares" in text
    assert "elsewhere (<code>--url</code>)" in text
    assert "bootstrapped" not in text


def test_one_of_a_thing_is_one(built):
    run = RUNS["interrupted"]()
    first = run.trials[0]
    scores = tuple(one for one in run.scores if one.variant == first.trial.variant)
    page = page_of(replace(run, trials=(first,), scores=scores))
    said = "before a verdict: 1 model scored, 1 trial measured"
    assert any(said in family.finding.summary for family in page.families)
    assert "The one trial" in folded(render_html(page))
    assert "All 1" not in render_html(page)


def test_the_verdict_stands_first_by_word_and_symbol(built):
    words = Page(built["sample_run"][0]).words
    assert words.index("✓ Pass") < words.index("Evidence: topics")
    order = ["What to run", "What it gains", "Evidence", "Rejected candidates", "Every trial"]
    places = [words.index(title) for title in order]
    assert places == sorted(places)
    assert "8.72\u00d7 the best of topics-teacher-int8" in words


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("interrupted", "… Not finished"),
        ("all_rejected", "✕ Fail"),
        ("undecided", "? Undecided"),
        ("nothing_yet", "… Not finished"),
    ],
)
def test_other_outcomes_say_so_in_both_files(built, name, sign):
    html, markdown = built[name]
    assert sign in Page(html).words
    assert sign in markdown.splitlines()[0]


def test_an_undecided_verdict_says_what_would_decide_it(built):
    assert "Next step: raise traffic.duration_s to 20" in Page(built["undecided"][0]).words


def test_missing_server_metrics_are_dashes_never_zeros(built):
    rows = re.findall(r"^\| topics-.*$", built["no_server_metrics"][1], flags=re.MULTILINE)
    trials = [row.split(" | ") for row in rows if row.count("|") > 20]
    assert trials
    for cells in trials:
        assert [cells[place] for place in (14, 15, 16, 17)] == ["\u2013"] * 4
    html = Page(built["no_server_metrics"][0]).words
    assert "Size \u2013 MB" in html
    assert "Size 0 MB" not in html


def test_a_percentile_without_an_upper_bound_is_said(built):
    assert re.search(r"at least \d", Page(built["unbounded"][0]).words)


def test_a_queue_that_never_drained_is_said_in_words(built):
    page, markdown = built["never_drained"][:2]
    words = Page(page).words
    assert "the queue never drained" in words
    for text in (words, markdown):
        assert "3,600,000" not in text
        assert "3600000" not in text
        assert "unbounded ms" not in text
        assert "unbounded\u2013unbounded" not in text


def test_nothing_of_the_study_is_taken_for_markup(built):
    html, markdown = built["hostile"]
    page = Page(html)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert HOSTILE in page.words
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert not {"html_inline", "image"} & ({token.type for token in tokens} | kinds)
    assert "html_block" not in {token.type for token in tokens}


@pytest.mark.parametrize("name", RUNS)
def test_every_row_of_a_markdown_table_has_its_headers_columns(built, name):
    for block in built[name][1].split("\n\n"):
        if block.startswith("| "):
            counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(counts) == 1, block[:200]


def test_an_open_loop_reads_as_a_rate_in_both_files(built):
    html, markdown = built["open_loop"]
    for text in (Page(html).words, markdown):
        assert "736 requests/s Poisson" in text
        assert not re.search(r"\d in flight; max batch", text)
        assert "729 of 736 requests/s" in text


def test_cold_start_trust_and_search_are_in_both_files_where_they_are_known(built):
    for text in (Page(built["sample_run"][0]).words, built["sample_run"][1]):
        for title in ("Cold start", "Can these numbers be trusted?", "The search"):
            assert title in text
    for text in built["no_evidence_over_time"]:
        assert "Cold start</h3>" not in text
        assert "### Cold start" not in text
        assert "Can these numbers be trusted?" in text


def test_every_trial_and_every_rejection_is_in_both_files(built):
    run = sample_run()
    html, markdown = built["sample_run"]
    words = Page(html).words
    table = words.partition("Every trial")[2].partition("Environment, digests")[0]
    assert len(re.findall(r"HTTP|gRPC", table)) == len(run.trials)
    for reason in {r.reason for verdict in run.verdicts for r in verdict.rejected}:
        assert reason.split(" (")[0] in words
    assert markdown.count("the load generator was the limit") == 2


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        build_report(sample_run(), tmp_path / "absent")


def test_the_command_measures_the_recommended_configuration():
    run = sample_run()
    trial = next(r.trial for r in run.trials if r.trial.trial_id == run.verdicts[0].recommended)
    assert load_command(trial) == (
        "harness load STUDY.yaml --variant topics-student-int8 --protocol grpc "
        "--max-batch-size 16 --queue-delay-us 0 --instances 2 --intra-op-threads 1 "
        "--client-batch-size 16 --concurrency 16 --duration 12 --warmup 0.5"
    )
    threaded = replace(trial, serving=replace(trial.serving, intra_op_threads=4))
    assert "--instances 2 --intra-op-threads 4 --" in load_command(threaded)


def test_no_command_serves_what_load_has_no_option_for():
    run = sample_run()
    trial = run.trials[0].trial
    accelerated = replace(trial.serving, instance_kind="gpu", accelerator=Accelerator.TENSORRT)
    untold = ServingConfig(max_batch_size=0, instance_count=0)
    for serving in (accelerated, untold):
        assert load_command(replace(trial, serving=serving)) == ""


def test_the_command_of_a_trial_on_a_server_that_was_up_asks_that_server():
    trial = replace(
        sample_run().trials[0].trial, serving=ServingConfig(max_batch_size=0, instance_count=0)
    )
    server = {"url": "grpc://triton:8001", "model_control": False, "models": {trial.variant: "t"}}
    words = load_command(trial, server).split()
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert options["--url"] == "grpc://triton:8001"
    assert (options["--variant"], options["--model"]) == (trial.variant, "t")
    of_serving = {"--protocol", "--max-batch-size", "--instances", "--intra-op-threads"}
    assert not of_serving & set(options)
    assert "--model" not in load_command(trial, server | {"models": {trial.variant: trial.variant}})
    assert load_command(trial, server | {"model_control": True}) == "", "it was put back"
    streams = replace(trial.workload, generation=Generation(StreamApi.CHAT))
    assert load_command(replace(trial, workload=streams), server) == ""


def test_a_report_leaves_out_a_command_and_a_configuration_that_nobody_can_tell(tmp_path):
    run = sample_run()
    untold = ServingConfig(max_batch_size=0, instance_count=0)
    server = {"url": "http://triton:8000", "model_control": False, "models": {}}
    plain = [
        replace(one, trial=replace(one.trial, serving=untold))
        if one.trial.trial_id == run.verdicts[0].recommended
        else one
        for one in run.trials
    ]
    recommended = next(one.trial for one in plain if one.trial.serving == untold)
    verdict = replace(run.verdicts[0], recommended=recommended.trial_id)
    run = replace(run, trials=tuple(plain), verdicts=(verdict,))
    finding = page_of(replace(run, manifest={**run.manifest, "server": server})).families[0].finding
    assert "--url http://triton:8000" in finding.command
    assert finding.config == ""
    build_report(run, tmp_path)
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "Measure it again" not in text
        assert "config.pbtxt</summary>" not in text
        assert "```protobuf" not in text


def test_the_command_of_an_open_loop_names_its_rate_arrivals_shape_and_bound():
    workload = Workload(
        WireProtocol.HTTP, 8, 64, 30.0, 1.0, 20, LoadMode.OPEN, 250.0,
        ArrivalProcess(
            ArrivalKind.GAMMA, 2.0, shape=LoadShape(ShapeKind.RAMP, 0.5, 1.5, 60.0)
        ),
        batch_mix=((1, 0.75), (8, 0.25)),
    )  # fmt: skip
    words = load_command(Trial("a", "f", ServingConfig(), workload)).split()
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert parse_arrivals(options["--arrivals"]).burstiness_cv == 2.0
    assert parse_shape(options["--shape"]) == workload.arrivals.shape
    assert parse_mix(options["--batch-mix"]) == workload.batch_mix
    assert (options["--rate"], options["--max-in-flight"]) == ("250", "64")
    assert not {"--concurrency", "--client-batch-size"} & set(options)


def test_a_recorded_command_is_quoted_for_the_shell():
    assert run_command({"command": ["harness", "run", "my study.yaml"]}).endswith("'my study.yaml'")
    assert run_command({}) == "harness run STUDY.yaml"


def test_a_recommended_teacher_stands_beside_its_students():
    run = sample_run()
    teacher = next(r for r in run.trials if r.trial.variant == "topics-teacher-fp32")
    verdict = replace(run.verdicts[0], recommended=teacher.trial.trial_id)
    finding = page_of(replace(run, verdicts=(verdict,))).families[0].finding
    assert finding.gains.caption == "Compared with the other models"
    titles = [column.title for column in finding.gains.columns]
    assert titles[1:3] == ["topics-teacher-fp32", "topics-teacher-int8"]
    assert "topics-student-int8" in titles
    assert "topics-tiny-fp32" not in titles


def test_gains_are_of_what_the_objective_bounds():
    run = sample_run()
    gains = page_of(run).families[0].finding.gains
    titles = [row[0].text for row in gains.rows]
    assert titles == ["Throughput", "Latency p95", "Accuracy", "Size", "Parameters"]
    assert len(families_of(run)[0].metrics) > 1


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.077, "13.0\u00d7 smaller than"), (1.0, "the same as"), (2.0, "2.00\u00d7 larger than")],
)
def test_sizes_are_compared_in_words(share, words):
    assert size_words(share) == words
