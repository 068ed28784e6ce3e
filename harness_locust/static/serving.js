// The tab 'Serving': Locust makes the tab and leaves its panel empty; this fills it.

import { count, drawBars, drawLines, latency, number } from "./charts.js";
import { groupForm } from "./form.js";

const EVERY_MS = 1000;
const TITLE = "Serving";
const WHERE = [
  ["client_ms", "client and network", "--c5"], ["queue_ms", "queue", "--c3"], ["compute_input_ms", "compute input", "--c4"],
  ["compute_infer_ms", "compute infer", "--c2"], ["compute_output_ms", "compute output", "--c1"],
];
const HEADLINES = { pass: "Pass", fail: "Fail", undecided: "Undecided", invalid: "Invalid", none: "No verdict" };
const FALLBACK = { "--c1": "#15803d", "--c2": "#2563eb", "--c3": "#b45309", "--c4": "#7c3aed", "--c5": "#64748b" };
const PARTS = `
  <div class="head"><h2 data-part="title"></h2><span class="faint" data-part="subtitle"></span></div>
  <div data-part="verdict" aria-live="polite"></div><ul class="paper notices" data-part="notices"></ul>
  <div class="tiles" data-part="tiles"></div>
  <div class="grid" data-part="streams" hidden>
    <section class="paper"><h3>Time to first token</h3><div class="chart" data-part="ttft"></div></section>
    <section class="paper"><h3>Inter-token latency</h3><div class="chart" data-part="itl"></div></section>
    <section class="paper"><h3>Output tokens</h3><div class="chart" data-part="tokens"></div></section>
    <section class="paper"><h3>Running and waiting</h3><div class="chart" data-part="engine"></div></section>
  </div>
  <div class="grid">
    <section class="paper"><h3>Response latency</h3><div class="chart" data-part="latency"></div></section>
    <section class="paper"><h3>Throughput</h3><div class="chart" data-part="throughput"></div></section>
    <section class="paper"><h3>Where a mean request's time goes</h3><div class="chart" data-part="where"></div></section>
    <section class="paper"><h3 data-part="batch-title"></h3><div class="chart" data-part="batches"></div></section>
  </div>
  <section class="paper wide"><h3>GPU</h3><div data-part="gpu"></div></section>
  <section class="paper wide"><h3>Load generators</h3><div data-part="generators"></div></section>
  <section class="paper wide"><h3>Tests of this session</h3><div data-part="tests"></div></section>
  <section class="paper"><h3>Downloads</h3><div class="links">
    <a href="./serving/trials.csv">Trials (CSV)</a><a href="./serving/series.csv">Per-second series (CSV)</a>
    <a href="./hdr-histograms.json">HDR histograms (JSON)</a></div><p class="faint" data-part="folder"></p></section>`;

let panel = null;
let asked = null; // number of the test that somebody chose; null follows the running one
let known = null; // the document that is shown
let drawn = "";
let waiting = false;
let tabShown = "";

function selectedTab() {
  return document.querySelector('[role="tab"][aria-selected="true"]');
}

/** Our panel stands behind Locust's tabs while ours is selected, and nowhere else. */
function place() {
  const tab = selectedTab();
  const wanted = tab !== null && tab.textContent.trim() === TITLE;
  if (!wanted) {
    if (panel) panel.remove();
    return false;
  }
  const home = tab.closest(".MuiContainer-root") || tab.closest('[role="tablist"]').parentElement;
  if (!panel) {
    panel = document.createElement("div");
    panel.className = "serving";
    panel.innerHTML = PARTS;
    const resized = new ResizeObserver(() => draw());
    for (const box of [panel, ...panel.querySelectorAll(".chart")]) resized.observe(box);
  }
  if (panel.parentElement !== home) home.append(panel);
  return true;
}

function followTheme() {
  const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
  const theme = red + green + blue < 384 ? "dark" : "light";
  if (panel && panel.dataset.theme !== theme) {
    panel.dataset.theme = theme;
    drawn = "";
  }
}

async function poll() {
  if (!place() || waiting || document.hidden) return;
  waiting = true;
  try {
    const answer = await fetch(`./serving/data.json${asked ? `?test=${asked}` : ""}`);
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    known = await answer.json();
    panel.dataset.stale = "";
  } catch (error) {
    part("subtitle").textContent = `Locust does not answer (${error.message}): what is shown is what it said last`;
    panel.dataset.stale = "yes";
  } finally {
    waiting = false;
  }
  draw();
}

const part = (name) => panel.querySelector(`[data-part="${name}"]`);
const colour = (name) => `var(${name}, ${FALLBACK[name]})`;
/** Of the panel and its charts: what is drawn fits them, also once a late stylesheet has laid them out. */
const widths = () => [panel, ...panel.querySelectorAll(".chart")].map((box) => box.clientWidth).join();

function draw() {
  if (!panel || !panel.isConnected || !known || panel.dataset.stale) return;
  followTheme();
  const state = JSON.stringify(known) + widths();
  if (state === drawn) return; // nothing new: nothing moves
  drawn = state;
  const test = known.shown;
  drawTests();
  part("folder").textContent = known.folder_problem
    || (known.folder ? `Every test is also in the run folder ${known.folder} (harness report opens it).`
      : "Nothing is written to disk: locust --out DIR keeps the session as a run folder.");
  if (!test) {
    part("title").textContent = "No test has run yet";
    part("subtitle").textContent = "Start one: what it shows appears here.";
    return;
  }
  part("title").textContent = test.variant;
  const seconds = `${count(Math.floor(test.elapsed_s))} s`;
  part("subtitle").textContent = [`test ${test.number}`, test.protocol, test.load, test.running ? `running for ${seconds}` : `over after ${seconds}`].join(" · ");
  drawVerdict(test.verdict);
  drawNotices(test);
  drawTiles(test);
  drawCharts(test);
  drawServer(test);
  drawGenerators(test);
}

function drawVerdict(verdict) {
  const said = [];
  if (verdict.window_s !== null) said.push(`${verdict.final ? "Judged at the end" : "Judged at the last look"}, over ${number(verdict.window_s)} s`);
  if (verdict.needed_s !== null && !verdict.final) said.push(`about ${number(verdict.needed_s)} s in all would tell`);
  if (verdict.needed_s !== null && verdict.final) said.push(`a test of about ${number(verdict.needed_s)} s would tell`);
  if (verdict.next_look_s !== null) said.push(`next look after ${number(verdict.next_look_s)} s`);
  said.push(`looks are fixed ahead, so that together they err in at most 5 tests of 100 (each ${(100 * verdict.confidence).toFixed(1)}%)`);
  if (verdict.not_measured.length) said.push(`not measured here: ${verdict.not_measured.join(", ")}`);
  const head = make("p", {}, make("b", {}, HEADLINES[verdict.decision] + (verdict.phase ? ` (${verdict.phase})` : "")), verdict.reasons.join("; "));
  part("verdict").className = `paper verdict ${verdict.decision}`;
  part("verdict").replaceChildren(head, make("p", { class: "faint" }, `${said.join("; ")}.`));
}

function drawNotices(test) {
  const words = test.notices.map((one) => `${Math.round(one.at_s)} s: ${one.text}`);
  words.push(...test.warnings);
  if (test.first_failure) words.push(`the first failure: ${test.first_failure}`);
  part("notices").replaceChildren(...words.map((one) => make("li", {}, one)));
}

function drawTiles({ totals, streams }) {
  const tiles = [
    ...streamTiles(streams),
    ["p50", `${number(totals.p50_ms)} ms`], ["p95", `${number(totals.p95_ms)} ms`], ["p99", `${number(totals.p99_ms)} ms`],
    ["requests/s", number(totals.requests_per_s)], ["inferences/s", number(totals.inferences_per_s)],
    ["failed", count(totals.failed)], ["dropped", count(totals.dropped)], ["sent late (p99)", `${number(totals.schedule_delay_p99_ms)} ms`],
  ];
  part("tiles").replaceChildren(...tiles.map(([name, value]) => make("div", { class: "paper tile" }, make("span", { class: "faint" }, name), make("b", {}, value))));
}

function streamTiles(streams) {
  if (!streams) return [];
  const tiles = [
    ["output tokens/s", number(streams.output_tokens_per_s)], ["TTFT p95", `${number(streams.ttft.p95)} ms`],
    ["ITL p99", `${number(streams.itl.p99)} ms`], ["goodput, requests/s", number(streams.good_per_s)],
    ["running", count(streams.running)], ["waiting", count(streams.waiting)],
  ];
  if (streams.left) tiles.push(["left on purpose", count(streams.left)]);
  return tiles;
}

function drawStreams(test) {
  const { streams } = test;
  part("streams").hidden = !streams;
  if (!streams) return;
  const { series, engine } = streams;
  const percentiles = (span) => [["p50", "--c1"], ["p95", "--c2"], ["p99", "--c3"]].map(([name, tone]) => ({ name, colour: colour(tone), values: series[`${span}_${name}_ms`] }));
  const boundsOn = (span) => test.bounds.filter((one) => one.span === span).map((one) => ({ value: one.value_ms, text: one.text }));
  for (const span of ["ttft", "itl"]) {
    const lines = { at: test.series.at_s, unit: "milliseconds", bounds: boundsOn(span), lines: percentiles(span) };
    if (!drawLines(part(span), lines)) missing(span, "No token yet.");
  }
  const tokens = [{ name: "output tokens", colour: colour("--c2"), values: series.output_tokens_per_s }];
  if (!drawLines(part("tokens"), { at: test.series.at_s, unit: "tokens per second", lines: tokens })) missing("tokens", "No token yet.");
  const told = [["running", "--c2"], ["waiting", "--c3"]].map(([name, tone]) => ({ name, colour: colour(tone), values: engine[name] }));
  if (!engine.at_s.length || !drawLines(part("engine"), { at: engine.at_s, unit: "requests", lines: told })) {
    missing("engine", "The server's metrics page shows no engine of streams (generation_running): only the embedded one has it.");
  }
}

function drawCharts(test) {
  drawStreams(test);
  const series = test.series;
  const lines = (...columns) => columns.map(([column, name, tone]) => ({ name, colour: colour(tone), values: series[column] }));
  const drawnLatency = drawLines(part("latency"), {
    at: series.at_s, unit: "milliseconds", bounds: test.bounds.filter((one) => one.span === "response").map((one) => ({ value: one.value_ms, text: one.text })),
    lines: lines(["p50_ms", "p50", "--c1"], ["p95_ms", "p95", "--c2"], ["p99_ms", "p99", "--c3"]),
  });
  if (!drawnLatency) missing("latency", "No answer yet.");
  const columns = [["requests_per_s", "requests", "--c1"], ["bad_per_s", "failed and dropped", "--c3"]];
  if (test.totals.inferences_per_s > 1.01 * test.totals.requests_per_s) columns.unshift(["inferences_per_s", "inferences", "--c2"]);
  if (!series.at_s.length || !drawLines(part("throughput"), { at: series.at_s, unit: "per second", lines: lines(...columns) })) missing("throughput", "No answer yet.");
}

function drawServer({ server }) {
  const why = `The server's statistics are missing${server.problem ? `: ${server.problem}` : "."}`;
  const series = server.series;
  const lines = WHERE.map(([column, name, tone]) => ({ name, colour: colour(tone), values: series[column] }));
  const offered = server.offered && drawLines(part("where"), { at: series.at_s, unit: "milliseconds", lines, stacked: true });
  if (!offered) missing("where", server.offered ? "No request was answered yet." : why);
  else {
    const whole = WHERE.map(([column, name]) => `${name} ${number(server.where[column])}`).join(", ");
    part("where").append(make("p", { class: "faint" }, `Whole test, ms: ${whole}.${cacheWords(server)}`));
  }
  part("batch-title").textContent = `Executed batches${server.batch_mean ? `: ${number(server.batch_mean)} on average` : ""}`;
  const bars = server.batch_sizes.map(([size, count]) => [String(size), count]);
  if (!drawBars(part("batches"), { bars, unit: "executions", below: "rows of the batch that the server ran", colour: colour("--c2") })) missing("batches", server.offered ? "No batch was executed yet." : why);
  drawGpu(server);
}

function cacheWords({ cache_hits: hits, requests, version }) {
  const told = version ? ` Version ${version} of the model answered.` : "";
  return hits ? `${told} The response cache answered ${count(hits)} of ${count(requests)} requests in its place.` : told;
}

function drawGpu(server) {
  const box = part("gpu");
  const { gpu_utilization: share, gpu_memory_bytes: memory } = server;
  if (server.gpu_problem || (share === null && memory === null)) {
    box.className = "faint";
    box.replaceChildren(server.gpu_problem ? `Missing: ${server.gpu_problem}.` : "Missing: not read yet.");
    return;
  }
  box.className = "chart";
  const values = server.series.gpu_utilization.map((one) => (one === null ? null : 100 * one));
  drawLines(box, { at: server.series.at_s, unit: "% busy", lines: [{ name: "utilisation, %", colour: colour("--c1"), values }], top: 100 });
  box.append(make("p", { class: "faint" }, memory === null ? "Memory is not told." : `Memory in use: ${number(memory / 2 ** 30)} GiB.`));
}

function drawGenerators({ generators, totals }) {
  if (!generators.length) {
    part("generators").replaceChildren(make("p", { class: "faint" }, "No process has reported yet."));
    return;
  }
  const rows = generators.map((one) => [
    one.process, one.lost ? "lost" : `${Math.round(100 * one.cpu_cores)}%`, `${number(one.loop_lag_p99_ms)} ms`, `${number(one.memory_bytes / 2 ** 20)} MiB`, one.remark,
  ]);
  const note = `Requests were sent ${number(totals.schedule_delay_p99_ms)} ms late at the 99th percentile; ${count(totals.dropped)} were dropped.`;
  part("generators").replaceChildren(table(["Process", "CPU, of a core", "Event loop lag, p99", "Memory", "In words"], rows, [0, 4]), make("p", { class: "faint" }, note));
}

function drawTests() {
  if (!known.tests.length) {
    part("tests").replaceChildren(make("p", { class: "faint" }, "None was judged yet."));
    return;
  }
  const rows = known.tests.map((one) => {
    const choose = make("button", { class: "link", type: "button" }, `${one.number}`);
    choose.addEventListener("click", () => { asked = one.running ? null : one.number; poll(); });
    return [choose, one.variant, [one.protocol, one.load, one.phase].filter(Boolean).join(", "), one.objective || "–",
      HEADLINES[one.decision], latency(one.p50_ms), latency(one.p95_ms), latency(one.p99_ms), number(one.requests_per_s), count(one.failed)];
  });
  const made = table(["Test", "Variant", "Load", "Objective", "Verdict", "p50 (ms)", "p95 (ms)", "p99 (ms)", "Requests/s", "Failed"], rows, [1, 2, 3]);
  known.tests.forEach((one, index) => made.rows[index + 1].cells[4].classList.add("tone", one.decision));
  part("tests").replaceChildren(made);
}

function table(titles, rows, words) {
  const line = (cells, kind) => make("tr", {}, ...cells.map((cell, index) => make(kind, { class: words.includes(index) ? "words" : "" }, cell)));
  return make("table", {}, make("thead", {}, line(titles, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td"))));
}

function missing(name, words) {
  part(name).replaceChildren(make("div", { class: "missing" }, words));
}

function make(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** On a narrow screen Locust's row of tabs is cut off: the selected one is brought into view, and left
 * alone from then on. Locust moves the row itself, not always far enough: so once more after it. */
function showTab() {
  const tab = selectedTab();
  const row = tab && tab.closest(".MuiTabs-scroller");
  const seen = row ? `${tab.textContent} ${row.clientWidth} ${row.scrollWidth}` : "";
  if (seen === tabShown) return;
  tabShown = seen;
  for (const afterMs of row ? [0, 500, 1000] : []) setTimeout(() => centre(tab, row), afterMs);
}

function centre(tab, row) {
  const [inner, outer] = [tab.getBoundingClientRect(), row.getBoundingClientRect()];
  row.scrollLeft += inner.left - outer.left - (outer.width - inner.width) / 2;
}

/** Into the page's head, where it stays when the panel leaves; loaded before anybody selects the tab. */
function addStylesheet() {
  const link = make("link", { rel: "stylesheet", href: "./serving/static/serving.css" });
  link.addEventListener("load", () => { drawn = ""; draw(); });
  document.head.append(link);
}

new MutationObserver(() => {
  groupForm();
  showTab();
  const stood = panel && panel.isConnected;
  if (place() && !stood) poll();
}).observe(document.getElementById("root"), { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-selected"] });
document.addEventListener("click", () => requestAnimationFrame(() => draw()));
window.addEventListener("resize", showTab);
setInterval(() => { showTab(); poll(); }, EVERY_MS);
addStylesheet();
groupForm();
poll();
