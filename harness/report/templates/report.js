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

  const draw = () => {
    if (!source) return;
    const css = getComputedStyle(root);
    for (const box of boxes) {
      const figure = resolved(figures[box.dataset.plot], css);
      const family = box.closest(".family").id;
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
    }
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
  /* A plot that was drawn while it was folded away has no width yet. */
  for (const folded of document.querySelectorAll("details.losses")) {
    folded.addEventListener("toggle", () => {
      for (const box of folded.querySelectorAll("[data-plot]")) Plotly.Plots.resize(box);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => {
    root.dataset.theme = "light";
    draw();
  });
  addEventListener("afterprint", () => {
    delete root.dataset.theme;
    draw();
  });
  draw();
})();
