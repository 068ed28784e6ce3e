"use strict";
(() => {
  const root = document.documentElement;
  const boxes = [...document.querySelectorAll("[data-plot]")];
  const source = document.getElementById("plots");
  const figures = source ? JSON.parse(source.textContent) : {};
  const coarse = matchMedia("(pointer: coarse)");
  const hidden = new Set();

  /* Colours are names of CSS variables: one style sheet serves light, dark and print. */
  const resolved = (node, css) => {
    if (typeof node === "string") {
      return node.startsWith("--") ? css.getPropertyValue(node).trim() || node : node;
    }
    if (Array.isArray(node)) return node.map((item) => resolved(item, css));
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, resolved(v, css)]));
    }
    return node;
  };

  const folded = (box) => box.closest("details:not([open])") !== null;

  const drawBox = (box, css) => {
    const figure = resolved(figures[box.dataset.plot], css);
    /* What is planned is of the whole run, and has no key of variants. */
    const family = box.closest(".family")?.id ?? "";
    for (const trace of figure.data) {
      if (trace.meta) trace.visible = !hidden.has(`${family} ${trace.meta}`);
    }
    /* Under a finger, a drag scrolls the page and does not zoom the plot. */
    figure.layout.dragmode = coarse.matches ? false : "zoom";
    if (root.dataset.theme) figure.layout.width = box.clientWidth;
    Plotly.react(box, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: false,
      doubleClick: "reset",
    });
  };

  /* What is folded away has no width yet: it is drawn when it is unfolded. */
  const draw = () => {
    if (!window.Plotly) return;
    const css = getComputedStyle(root);
    for (const box of boxes) if (!folded(box)) drawBox(box, css);
  };

  const press = (button) => {
    const id = `${button.closest(".family").id} ${button.dataset.variant}`;
    if (!hidden.delete(id)) hidden.add(id);
    button.setAttribute("aria-pressed", String(!hidden.has(id)));
    draw();
  };

  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };

  /* What was not measured stays last, whichever way the column is sorted. */
  const sort = (header) => {
    const body = header.closest("table").tBodies[0];
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[header.cellIndex].dataset.sort;
    const rows = [...body.rows].sort((a, b) => {
      if (!key(a) || !key(b)) return (key(a) ? 0 : 1) - (key(b) ? 0 : 1);
      return down ? compare(key(b), key(a)) : compare(key(a), key(b));
    });
    body.append(...rows);
  };

  for (const button of document.querySelectorAll(".key button")) {
    button.addEventListener("click", () => press(button));
  }
  for (const button of document.querySelectorAll(".sortable th button")) {
    button.addEventListener("click", () => sort(button.parentNode));
  }
  for (const fold of document.querySelectorAll("details")) {
    fold.addEventListener("toggle", () => {
      if (!fold.open || !window.Plotly) return;
      const css = getComputedStyle(root);
      for (const box of fold.querySelectorAll("[data-plot]")) if (!folded(box)) drawBox(box, css);
    });
  }

  /* A link to a part unfolds it. */
  const follow = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let up = target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    const folds = target.tagName === "SECTION" ? target.querySelectorAll(":scope > details") : [];
    if (folds.length === 1) folds[0].open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", follow);
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", () => { if (link.hash === location.hash) follow(); });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const closed = [];
  addEventListener("beforeprint", () => {
    root.dataset.theme = "light";
    closed.push(...document.querySelectorAll("details:not([open])"));
    for (const fold of closed) fold.open = true;
    draw();
  });
  addEventListener("afterprint", () => {
    delete root.dataset.theme;
    for (const fold of closed.splice(0)) fold.open = false;
    draw();
  });

  /* plotly.js travels as gzip in base64, a third of its size. */
  const inflated = (id) => {
    const packed = atob(document.getElementById(id).textContent.trim());
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const start = async () => {
    if (source && window.DecompressionStream) {
      const script = document.createElement("script");
      script.textContent = await inflated("plotly");
      document.head.append(script);
      draw();
    } else if (source) {
      document.getElementById("too-old")?.removeAttribute("hidden");
    }
    follow();
    root.dataset.drawn = "";
  };
  start();
})();
