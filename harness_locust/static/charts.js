// Charts of the tab 'Serving', drawn as SVG: lines over time, stacked areas, bars.
// A colour is CSS (`var(--c1, ...)`), so that the stylesheet and the theme may come and change later.

const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 220;
const MARGIN = { top: 14, right: 14, bottom: 34, left: 54 };

const MISSING = "–", MINUS = "−";

/** Three significant digits, whole from 1000 on: as `harness.words.numbers.number` has it. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  if (value === 0) return "0";
  const rounded = Number(value.toFixed(decimals(value)));
  if (Math.abs(rounded) < 1e-3) return scientific(value);
  const places = decimals(rounded);  // Rounding may have gained a digit: 9.999 is 10.0.
  return rounded.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", MINUS);
}

function decimals(value) {
  return Math.min(20, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)))));
}

function scientific(value) {
  const [mantissa, power] = value.toExponential(1).split("e");
  const raised = String(Number(power)).replace(/./g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);
  return `${mantissa.replace("-", MINUS)}×10${raised}`;
}

/** A whole number, exact. */
export function count(value) {
  return value === null || value === undefined ? MISSING : value.toLocaleString("en-US");
}

/** A latency in words; what no bound could be given for is an hour in the numbers. */
export function latency(value_ms) {
  return value_ms !== null && value_ms >= 3_600_000 ? "unbounded" : number(value_ms);
}

/** Lines over time. `lines`: [{name, colour, values}]; `bounds`: [{value, text}]. */
export function drawLines(box, { at, lines, unit, bounds = [], stacked = false, top = 0 }) {
  const shown = stacked ? stack(lines) : lines.map((line) => ({ ...line, upper: line.values }));
  const known = shown.flatMap((line) => line.upper).filter((value) => value !== null);
  if (!known.length) return false;
  const frame = makeFrame(box, unit, "seconds of the test");
  const limits = bounds.map((bound) => bound.value);
  // A bound far above what is measured would press the lines to the floor: it is named instead.
  const highest = Math.max(top, ...known);
  const near = limits.filter((value) => value < 6 * highest);
  const y = frame.scaleY(Math.max(highest, ...near) * 1.08);
  const last = Math.max(10, at[at.length - 1] + 0.5);
  const x = frame.scaleX(last, box);
  for (const line of shown.reverse()) {
    if (stacked) frame.area(at, line, x, y);
    else frame.line(at, line, x, y);
  }
  bounds.forEach((bound) => {
    if (near.includes(bound.value)) frame.bound(bound.text, y(bound.value));
    else frame.bound(`${bound.text}: far above this`, MARGIN.top, true);
  });
  legend(box, lines, unit);
  return true;
}

/** Bars. `bars`: [[label, count]]. */
export function drawBars(box, { bars, unit, below, colour }) {
  if (!bars.length) return false;
  const frame = makeFrame(box, unit, below);
  const y = frame.scaleY(Math.max(...bars.map(([, count]) => count)) * 1.12);
  const room = frame.width - MARGIN.left - MARGIN.right;
  const step = room / bars.length;
  const wide = Math.min(46, step * 0.7);
  const every = Math.ceil(bars.length / (room / 34));
  bars.forEach(([label, count], index) => {
    const middle = MARGIN.left + step * (index + 0.5);
    const high = frame.floor - y(count);
    const bar = frame.put("rect", { x: middle - wide / 2, y: y(count), width: wide, height: Math.max(high, 1), style: `fill: ${colour}`, rx: 2 });
    tip(bar, `batch of ${label}: ${count.toLocaleString("en-US")} executions`);
    if (index % every === 0) frame.text(label, middle, frame.floor + 14, "middle");
    if (wide > 22) frame.text(short(count), middle, y(count) - 4, "middle");
  });
  box.replaceChildren(frame.svg);
  return true;
}

/** One upon the other; where a part that is known elsewhere is not, the whole is not either. */
function stack(lines) {
  const known = lines.filter((line) => line.values.some((value) => value !== null));
  let below = lines[0].values.map((_, index) => (known.every((line) => line.values[index] !== null) ? 0 : null));
  return lines.map((line) => {
    const lower = below;
    const upper = line.values.map((value, index) => (value === null || below[index] === null ? null : below[index] + value));
    if (known.includes(line)) below = upper;
    return { ...line, lower, upper };
  });
}

function makeFrame(box, unit, below) {
  const width = Math.max(260, Math.round(box.clientWidth));
  const floor = HEIGHT - MARGIN.bottom;
  const svg = element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img" });
  const put = (name, attributes) => svg.appendChild(element(name, attributes));
  const text = (words, x, y, anchor = "start", kind = "") => {
    const made = put("text", { x, y, "text-anchor": anchor, class: kind });
    made.textContent = words;
    return made;
  };
  text(below, (MARGIN.left + width - MARGIN.right) / 2, HEIGHT - 3, "middle", "title");
  const side = text(unit, 0, 0, "middle", "title");
  side.setAttribute("transform", `translate(11 ${(MARGIN.top + floor) / 2}) rotate(-90)`);
  return {
    svg, put, text, width, floor,
    scaleY(highest) {
      const { step, end } = ticks(highest, 4);
      const y = (value) => floor - ((floor - MARGIN.top) * value) / end;
      for (let value = 0; value <= end + step / 2; value += step) {
        put("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value), class: value ? "grid" : "axis" });
        text(short(value), MARGIN.left - 6, y(value) + 4, "end");
      }
      return y;
    },
    scaleX(last, place) {
      const x = (value) => MARGIN.left + ((width - MARGIN.left - MARGIN.right) * value) / last;
      const step = niceSeconds(last / Math.max(3, Math.floor(width / 110)));
      for (let value = 0; value <= last; value += step) text(String(value), x(value), floor + 14, "middle");
      place.replaceChildren(svg);
      return x;
    },
    line(at, line, x, y) {
      for (const part of pieces(line.upper)) {
        const points = part.map((index) => `${x(at[index]).toFixed(1)},${y(line.upper[index]).toFixed(1)}`);
        if (points.length === 1) put("circle", { cx: points[0].split(",")[0], cy: points[0].split(",")[1], r: 2, style: `fill: ${line.colour}` });
        else put("polyline", { points: points.join(" "), fill: "none", "stroke-width": 2, style: `stroke: ${line.colour}`, class: "line" });
      }
    },
    area(at, line, x, y) {
      for (const part of pieces(line.upper)) {
        const above = part.map((index) => `${x(at[index]).toFixed(1)},${y(line.upper[index]).toFixed(1)}`);
        const beneath = part.map((index) => `${x(at[index]).toFixed(1)},${y(line.lower[index] || 0).toFixed(1)}`).reverse();
        put("polygon", { points: [...above, ...beneath].join(" "), style: `fill: ${line.colour}`, class: "area" });
      }
    },
    bound(words, at, beyond = false) {
      if (!beyond) put("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at, class: "bound" });
      text(words, width - MARGIN.right - 2, beyond ? at + 2 : Math.max(at - 5, 10), "end", "bound");
    },
  };
}

/** Runs of neighbouring points that are there: a gap is drawn as a gap. */
function pieces(values) {
  const runs = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index && values[index - 1] !== null && runs.length) runs[runs.length - 1].push(index);
    else runs.push([index]);
  });
  return runs;
}

function legend(box, lines, unit) {
  const row = document.createElement("div");
  row.className = "legend";
  for (const line of lines) {
    const key = row.appendChild(document.createElement("span"));
    const mark = key.appendChild(document.createElement("i"));
    mark.style.background = line.colour;
    const latest = [...line.values].reverse().find((value) => value !== null);
    key.append(`${line.name} ${line.hidden ? "" : number(latest)}`.trim());
    key.title = `latest, in ${unit}`;
  }
  box.append(row);
}

function ticks(highest, count) {
  const rough = (highest || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
  return { step, end: Math.ceil(highest / step - 1e-9) * step || step };
}

function niceSeconds(rough) {
  const nice = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400];
  return nice.find((one) => one >= rough) || 86400 * Math.ceil(rough / 86400);
}

function short(value) {
  if (value >= 1e6) return `${plain(value / 1e6)}M`;
  if (value >= 1e4) return `${plain(value / 1e3)}k`;
  return plain(value);
}

function tip(shape, words) {
  shape.appendChild(element("title", {})).textContent = words;
}

function element(name, attributes) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Without the zeros that say how exact a measurement is: a tick is exact. */
function plain(value) {
  return Number(value.toPrecision(3)).toString();
}
