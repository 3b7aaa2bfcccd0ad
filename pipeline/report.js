// Learning curves: a legend that hides lines, and accuracies of the round nearest to pointer or cursor keys.
"use strict";

function enliven(figure, curves) {
  const svg = figure.querySelector("svg");
  const part = (id) => svg.querySelector("#" + CSS.escape(id));
  const frame = part(curves.frame).getBBox();
  let round = null;

  cropLegend(svg, part(curves.legend));
  const guide = document.createElementNS(svg.namespaceURI, "line");
  guide.setAttribute("class", "guide");
  guide.setAttribute("y1", frame.y);
  guide.setAttribute("y2", frame.y + frame.height);
  svg.append(guide);

  const legend = make("div", "legend");
  const heading = make("p", "", legend);
  heading.setAttribute("role", "status");
  const all = make("button", "all", legend);
  all.type = "button";
  const list = make("ul", "", legend);
  const entries = curves.lines.map((line) => addEntry(list, svg, line));
  for (const entry of entries) entry.button.addEventListener("click", () => toggle(entry, !entry.shown));
  all.addEventListener("click", () => {
    const show = entries.some((entry) => !entry.shown);
    for (const entry of entries) toggle(entry, show);
  });
  svg.after(legend);

  function toggle(entry, show) {
    entry.shown = show;
    entry.button.setAttribute("aria-pressed", show);
    for (const id of entry.line.ids) part(id).style.display = show ? "" : "none";
    say();
  }

  function say() {
    heading.textContent = round === null ? "AUBC" : `Accuracy at ${curves.budget[round]} labels`;
    all.textContent = entries.some((entry) => !entry.shown) ? "Show all" : "Hide all";
    for (const { line, shown, value } of entries) {
      if (!line.mean || !shown) value.textContent = "";
      else if (round === null) value.textContent = line.aubc;
      else value.textContent = estimate(line.mean[round], line.error && line.error[round]);
    }
    guide.style.display = round === null ? "none" : "";
  }

  function moveTo(place) {
    round = place === null ? null : Math.min(Math.max(place, 0), curves.budget.length - 1);
    if (round !== null) {
      const [low, high] = curves.limits;
      const x = frame.x + ((curves.budget[round] - low) / (high - low)) * frame.width;
      guide.setAttribute("x1", x);
      guide.setAttribute("x2", x);
    }
    say();
  }

  function follow(event) {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const [low, high] = curves.limits;
    const labels = low + ((place.x - frame.x) / frame.width) * (high - low);
    const away = curves.budget.map((budget) => Math.abs(budget - labels));
    moveTo(away.indexOf(Math.min(...away)));
  }

  svg.tabIndex = 0;
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && moveTo(null));
  svg.addEventListener("keydown", (event) => {
    const last = curves.budget.length - 1;
    const to = { ArrowLeft: (round ?? 1) - 1, ArrowRight: (round ?? -1) + 1, Home: 0, End: last, Escape: null };
    if (!(event.key in to)) return;
    event.preventDefault();
    moveTo(to[event.key]);
  });
  say();
}

// The legend below is made of buttons; the picture's own, for those without a script, makes room for it.
function cropLegend(svg, legend) {
  const { width } = svg.viewBox.baseVal;
  svg.setAttribute("viewBox", `0 0 ${width} ${legend.getBBox().y}`);
  legend.style.display = "none";
}

function addEntry(list, svg, line) {
  const button = make("button", "", make("li", "", list));
  button.type = "button";
  button.setAttribute("aria-pressed", true);
  const swatch = document.createElementNS(svg.namespaceURI, "svg");
  swatch.setAttribute("viewBox", "0 0 28 8");
  swatch.setAttribute("aria-hidden", true);
  const stroke = document.createElementNS(svg.namespaceURI, "path");
  stroke.setAttribute("d", "M0 4H28");
  stroke.setAttribute("stroke", line.colour);
  stroke.setAttribute("stroke-width", 3);
  stroke.setAttribute("stroke-dasharray", line.dash);
  swatch.append(stroke);
  button.append(swatch);
  make("span", "name", button).textContent = line.label;
  return { line, button, shown: true, value: make("span", "value", button) };
}

function make(kind, name, parent) {
  const element = document.createElement(kind);
  if (name) element.className = name;
  if (parent) parent.append(element);
  return element;
}

function estimate(mean, error) {
  return error === null ? mean.toFixed(3) : `${mean.toFixed(3)} ± ${error.toFixed(3)}`;
}

for (const data of document.querySelectorAll("script.curves")) {
  enliven(data.closest("figure"), JSON.parse(data.textContent));
}
