// Locust's start form: it lists what this locustfile adds in one folded part; here it is grouped.
// Nothing of Locust's is moved: headings are put between its fields, and hide the fields behind them.

const GROUPS = [
  ["What is tested", ["variant", "objective", "protocol", "generate", "loadMode", "rate", "clientBatchSize", "lengthMix"]],
  ["Model and payloads", ["model", "payloads", "batchMix", "seed", "payloadSeed", "responseCache", "knownAnswers"]],
  ["Open loop: when requests fall due", ["arrivals", "traceUnit", "shape", "maxInFlight"]],
  ["Closed loop: users over time", ["usersShape", "sweep", "stepTime"]],
  ["Connection", ["transport", "requestTimeout", "metricsUrl", "caFile", "insecure"]],
  ["What is kept", ["histograms", "records"]],
];

/** A field that is listed nowhere stays with the one before it. */
const groupOf = (name, before) => (GROUPS.find(([, names]) => names.includes(name)) || [before])[0];

/** Once for every form that Locust shows; the part that the choices stand in is unfolded. */
export function groupForm() {
  const field = document.querySelector('form [name="objective"]');
  const fold = field && field.closest(".MuiAccordion-root");
  const box = fold && boxOf(field, fold);
  if (!box || box.dataset.grouped) return;
  box.dataset.grouped = "yes";
  const button = fold.querySelector('[aria-expanded="false"]');
  if (button) button.click();
  const members = new Map();
  let title = GROUPS[0][0];
  for (const row of [...box.children]) {
    const input = row.querySelector("[name]") || row;
    title = groupOf(input.name || "", title);
    if (!members.has(title)) members.set(title, []);
    members.get(title).push(row);
  }
  const chosen = members.get(GROUPS[0][0]).some((row) => row.querySelector('[name="variant"]'));
  for (const [name, rows] of members) {
    const open = name === GROUPS[0][0] || (name === GROUPS[1][0] && !chosen) || rows.some(isFilledIn);
    rows[0].before(heading(name, rows, open));
  }
}

/** The element whose children are the fields, one each. */
function boxOf(field, fold) {
  const other = fold.querySelector('[name="rate"]');
  let box = field.parentElement;
  while (other && box && !box.contains(other)) box = box.parentElement;
  return box;
}

/** Whether somebody asked for it on the command line: text where there is none by default. */
function isFilledIn(row) {
  const input = row.querySelector('input[type="text"][name]');
  const standard = { maxInFlight: "1000", stepTime: "10", requestTimeout: "30", seed: "0", payloadSeed: "0" };
  return Boolean(input && input.value && input.value !== standard[input.name]);
}

function heading(title, rows, open) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "form-group";
  button.textContent = title;
  const show = (unfolded) => {
    button.setAttribute("aria-expanded", String(unfolded));
    for (const row of rows) row.classList.toggle("form-folded", !unfolded);
  };
  button.addEventListener("click", () => show(button.getAttribute("aria-expanded") !== "true"));
  show(open);
  return button;
}
