"use strict";
// The live figures of the paper's page. Each finds its place by its name and its data beside it.

// Of the labels; they differ in lightness, too.
const INKS = [rgba(226, 226, 220), rgba(214, 110, 60), rgba(50, 90, 150)], BLACK = rgba(0, 0, 0);
const LETTERS = ["a", "b", "c"];

/** Eq. 12: the weights that one pixel gives to all others, read at the border in three ways. */
function weightsFigure(root, {height, width, pixels}) {
  const guide = planesOf(bytesOf(pixels), 3), scale = 10, size = height * width;
  const controls = make("div", {className: "controls"}), pictures = make("div", {className: "panels"});
  root.append(controls, pictures);
  const draw = eachFrame(drawNow);
  const radius = slider(controls, "radius r", {low: 0, high: 8, start: 3}, draw);
  const epsilon = slider(controls, "epsilon", {low: -2, high: 5, step: "any", start: 1, ...power}, draw);
  const border = choice(controls, "shown", {clipped: "clipped", constant: "constant", authors: "authors"}, draw);
  const left = panel(pictures, "", height * scale, width * scale, 400);
  const right = panel(pictures, "", height * scale, width * scale, 400);
  const status = make("p", {className: "status"}), other = make("p", {className: "status"});
  root.append(status, other);
  const fill = numbers(root, "The row of W of this pixel, at three readings of the border",
    ["", "clipped (the default)", "constant (Eq. 12 to the letter)", "authors (their code)"]);
  let chosen = 2 * width + 14, hovered = chosen, rows = null;
  const place = (i) => `row ${Math.floor(i / width)}, column ${i % width}`;

  function drawNow() {
    const r = radius.value;
    rows = {};
    for (const name of ["clipped", "constant", "authors"]) {
      const prepared = prepareGuide(guide, height, width, {radius: r, epsilon: epsilon.value, border: name});
      rows[name] = {w: rowOfW(chosen, prepared), counts: prepared.counts};
    }
    const {w, counts} = rows[border.value], most = w.reduce((top, value) => Math.max(top, Math.abs(value)), 0) || 1;
    const y = Math.floor(chosen / width), x = chosen % width;
    for (let i = 0; i < size; i++) {
      const at = [(i % width) * scale, Math.floor(i / width) * scale, scale, scale];
      left.context.fillStyle = `rgb(${guide.map((plane) => plane[i])})`;
      left.context.fillRect(...at);
      const strength = Math.sqrt(Math.abs(w[i]) / most), tint = w[i] < 0 ? [178, 74, 24] : [24, 74, 140];
      right.context.fillStyle = `rgb(${tint.map((value) => Math.round(255 + strength * (value - 255)))})`;
      right.context.fillRect(...at);
      if (w[i] < -1e-12) {
        right.context.fillStyle = "#000";
        right.context.fillRect(at[0] + 3, at[1] + 4.5, 4, 1);
      }
    }
    for (const {context} of [left, right]) {
      for (const [reach, dashes] of [[0, []], [r, []], [2 * r, [6, 4]]]) {
        for (const [colour, thick] of [["#fff", 3], ["#000", 1.2]]) {
          context.strokeStyle = colour;
          context.lineWidth = thick;
          context.setLineDash(dashes);
          const [top, start] = [Math.max(y - reach, 0), Math.max(x - reach, 0)];
          context.strokeRect(start * scale, top * scale, (Math.min(x + reach + 1, width) - start) * scale,
            (Math.min(y + reach + 1, height) - top) * scale);
        }
      }
    }
    left.words.textContent = "guide I; pixel i, its window (solid), and all that share a window with it (dashed)";
    right.words.textContent = `w_ij, ${border.value}: the darker the larger, \u2212 where negative; `
      + `darkest: ${digits(most)}`;
    const colour = guide.map((plane) => plane[chosen]).join(", ");
    status.textContent = `Pixel i: ${place(chosen)}, colour ${colour}; its window holds`
      + ` ${counts[chosen]} of ${(2 * r + 1) ** 2} pixels.`;
    hover();
    const values = Object.values(rows).map((row) => row.w);
    const over = (name, measure) => [name, ...values.map(measure)];
    const sum = (list) => list.reduce((total, value) => total + value, 0);
    const negative = (list) => list.filter((value) => value < -1e-12);
    fill([
      over("row sum", (list) => digits(sum(list))), over("w_ii", (list) => digits(list[chosen])),
      over("largest w_ij", (list) => digits(Math.max(...list))),
      over("least w_ij", (list) => digits(Math.min(...list))),
      over("negative weights", (list) => String(negative(list).length)),
      over("their sum", (list) => digits(sum(negative(list)))),
    ]);
  }

  function hover() {
    const {w, counts} = rows[border.value], i = chosen, j = hovered;
    const back = border.value === "clipped" ? w[j] * counts[i] / counts[j] : w[j];
    other.textContent = `Pixel j (under the pointer): ${place(j)}; `
      + `w_ij = ${digits(w[j], 6)}, w_ji = ${digits(back, 6)}.`;
  }

  for (const {canvas} of [left, right]) {
    const under = (event) => {
      const area = canvas.getBoundingClientRect(), at = (from, start, length, count) =>
        Math.min(Math.max(Math.floor((from - start) / length * count), 0), count - 1);
      return at(event.clientY, area.top, area.height, height) * width + at(event.clientX, area.left, area.width, width);
    };
    canvas.tabIndex = 0;
    canvas.setAttribute("aria-label", "Choose pixel i: click, or move it with the arrow keys");
    canvas.addEventListener("click", (event) => {
      hovered = chosen = under(event);
      draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      hovered = under(event);
      if (rows) hover();
    });
    canvas.addEventListener("keydown", (event) => {
      const move = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
      if (!move) return;
      event.preventDefault();
      const y = Math.floor(chosen / width) + move[0], x = chosen % width + move[1];
      if (y >= 0 && y < height && x >= 0 && x < width) hovered = chosen = y * width + x;
      draw();
    });
  }
  draw();
}

/** Algorithm 1 on a coarse map of a small scene whose truth is known. */
function algorithmFigure(root, {side, cells, pixels, truth, scores}) {
  const guide = planesOf(bytesOf(pixels), 3), labels = bytesOf(truth), size = side * side, count = 3;
  const coarse = new Float32Array(bytesOf(scores).buffer), per = cells * cells;
  const unary = Array.from({length: count}, (_, l) =>
    interpolate(coarse.subarray(l * per, (l + 1) * per), [cells, cells], [side, side]));
  const near = boxSum(edgesOf(labels, side), side, side, 2);
  const controls = make("div", {className: "controls"}), pictures = make("div", {className: "panels"});
  root.append(controls);
  const draw = eachFrame(drawNow);
  const weight = slider(controls, "lambda", {low: 0, high: 16, step: 0.25, start: 2}, draw);
  const radius = slider(controls, "radius r", {low: 0, high: 20, start: 3}, draw);
  const epsilon = slider(controls, "epsilon", {low: -2, high: 5, step: "any", start: 1, ...power}, draw);
  const iterations = slider(controls, "iterations", {low: 0, high: 10, start: 3}, draw);
  const kind = choice(controls, "compatibility mu", {potts: "Potts", own: "drawn"}, draw);
  const matrix = make("table", {className: "numbers"}, make("caption", {}, "mu(l, l'), to be drawn"));
  const entries = LETTERS.map((row, a) => LETTERS.map((column, b) =>
    make("input", {type: "number", step: 0.1, value: a === b ? 0 : 1, "aria-label": `mu(${row}, ${column})`})));
  matrix.append(make("tr", {}, make("th"), ...LETTERS.map((letter) => make("th", {}, letter))));
  entries.forEach((row, a) => matrix.append(make("tr", {}, make("th", {}, LETTERS[a]),
    ...row.map((input) => make("td", {}, input)))));
  matrix.addEventListener("input", () => {
    kind.value = "own";
    draw();
  });
  controls.append(matrix);
  root.append(pictures);
  const [shown, given, before, after] = ["guide I", "truth", "", ""]
    .map((title) => panel(pictures, title, 2 * side, 2 * side, 200));
  const chosen = choice(root, "q of label", Object.fromEntries(LETTERS.map((letter, l) => [l, letter])), draw);
  const strip = make("div", {className: "panels"}), status = make("p", {className: "status"});
  root.append(strip, status);
  const chart = make("div", {className: "chart"});
  root.append(chart);
  const fill = numbers(root, "After each iteration",
    ["k", "F", "wrong pixels", "wrong within 2 pixels of a true boundary"]);
  const small = document.createElement("canvas");
  [small.width, small.height] = [side, side];
  const pen = small.getContext("2d");
  const enlarged = (view, colour) => {
    paint(pen, colour);
    view.context.imageSmoothingEnabled = false;
    view.context.drawImage(small, 0, 0, 2 * side, 2 * side);
  };
  const named = (view, found) => {
    enlarged(view, (i) => (found[i] === labels[i] ? INKS[labels[i]] : BLACK));
    stamp(view.context, found, [side, side], LETTERS, {scale: 2, apart: 12});
  };
  enlarged(shown, (i) => rgba(...guide.map((plane) => plane[i])));
  named(given, labels);

  function drawNow() {
    const mu = kind.value === "potts" ? null : entries.map((row) => row.map((input) => Number(input.value) || 0));
    const prepared = prepareGuide(guide, side, side, {radius: radius.value, epsilon: epsilon.value});
    const steps = guidanceCrfSteps(unary, prepared, {weight: weight.value, iterations: iterations.value, mu});
    const measured = steps.map(({phi}) => {
      const found = labelsOf(phi);
      let wrong = 0, close = 0, band = 0;
      for (let i = 0; i < size; i++) {
        wrong += found[i] !== labels[i];
        band += near[i] > 0.5;
        close += near[i] > 0.5 && found[i] !== labels[i];
      }
      return {found, wrong: percent(wrong, size), close: percent(close, band)};
    });
    const last = measured.at(-1), first = measured[0];
    named(before, first.found);
    named(after, last.found);
    before.words.textContent = `scores s: ${first.wrong} wrong (black)`;
    after.words.textContent = `after ${iterations.value} iterations: ${last.wrong} wrong (black)`;
    while (strip.children.length > steps.length) strip.lastChild.remove();
    while (strip.children.length < steps.length) panel(strip, "", side, side, 116);
    steps.forEach(({q}, k) => {
      const [canvas, words] = strip.children[k].children, plane = q[Number(chosen.value)];
      paint(canvas.getContext("2d"), (i) => rgba(...new Array(3).fill(Math.round(255 * plane[i]))));
      words.textContent = `q of ${LETTERS[chosen.value]}, k = ${k}`;
    });
    const values = steps.map((step) => step.functional);
    const rises = values.filter((value, k) => k > 0 && value > values[k - 1] + 1e-9 * Math.abs(values[k - 1])).length;
    const sure = mu === null || promised(mu);
    status.textContent = `F rises ${rises} times of ${values.length - 1}. ${sure
      ? "Here it cannot rise: mu is symmetric and negative semi-definite on zero-sum vectors, lambda not negative."
      : "Nothing is promised here: mu is not symmetric, or not negative semi-definite on zero-sum vectors."}`;
    chart.innerHTML = lineChart(values, "F after iteration k");
    fill(steps.map(({functional}, k) =>
      [String(k), grouped(Number(functional.toFixed(2))), measured[k].wrong, measured[k].close]));
  }
  draw();
}

/** Eq. 6: what cells along a line are asked for, and what their scores can say of the pixels. */
function cellsFigure(root) {
  const length = 48, controls = make("div", {className: "controls"});
  root.append(controls);
  const draw = eachFrame(drawNow);
  const start = slider(controls, "first pixel of b", {low: 0, high: length - 1, start: 9}, draw);
  const extent = slider(controls, "pixels of b", {low: 1, high: length, start: 3}, draw);
  const gap = slider(controls, "pixels of a until the next b", {low: 1, high: length, start: 6}, draw);
  const chart = make("div", {className: "chart"});
  root.append(chart);
  const fill = numbers(root, "What n x n patch prediction can express at 1/16", ["n", "pixels a cell",
    "ambiguous cells", "wrong pixels", "histogram of the cells (share of b)", "best scores (probability of b)"]);

  function drawNow() {
    const line = Array.from({length}, (_, i) =>
      Number(i >= start.value && (i - start.value) % (extent.value + gap.value) < extent.value));
    const found = [1, 2, 4].map((n) => ({n, cell: 16 / n, ...lineOfCells(line, 16 / n)}));
    const x = (pixel) => 60 + 11.5 * pixel;
    const words = (right, y, text) => `<text x="${right}" y="${y}" text-anchor="end">${text}</text>`;
    const row = (labels, y) => labels.map((label, i) => {
      const letter = LETTERS[label], middle = `x="${x(i) + 5.5}" y="${y + 11}" text-anchor="middle"`;
      return `<rect class="${letter}" x="${x(i)}" y="${y}" width="11" height="14"/>`
        + `<text class="small" ${middle}>${letter}</text>`;
    });
    let drawn = words(52, 16, "truth") + row(line, 4).join("");
    found.forEach(({n, cell, histogram, said}, k) => {
      const top = 30 + 118 * k, y = (value) => top + 80 - 76 * value;
      drawn += words(52, top + 14, `n = ${n}`) + words(52, y(0), "0") + words(52, y(1) + 26, "1");
      histogram.forEach((value, i) => {
        drawn += `<rect class="bar" x="${x(i * cell) + 1}" y="${y(value)}" width="${11.5 * cell - 3}"`
          + ` height="${76 * value}"/>`;
      });
      drawn += `<polyline points="${Array.from(said, (value, i) => [x(i) + 5.5, y(value)]).join(" ")}"/>`
        + `<path class="half" d="M${x(0)} ${y(0.5)}H${x(length)}"/>`
        + row(Array.from(said, (value) => Number(value > 0.5)), top + 84).join("") + words(52, top + 95, "said");
    });
    const label = "Truth, histograms and what is said";
    chart.innerHTML = `<svg viewBox="0 0 620 380" role="img" aria-label="${label}">${drawn}</svg>`;
    fill(found.map(({n, cell, histogram, best, wrong}) => [String(n), String(cell),
      `${histogram.filter((p) => p > 1e-12 && p < 1 - 1e-12).length} of ${histogram.length}`, `${wrong} of ${length}`,
      Array.from(histogram, (p) => p.toFixed(3)).join(" "), Array.from(best, (p) => p.toFixed(3)).join(" ")]));
  }
  draw();
}

/** Fig. 3: nine boxes of two rings around a cell. */
function ringsFigure(root) {
  const controls = make("div", {className: "controls"}), chart = make("div", {className: "chart rings"});
  root.append(controls, chart);
  const draw = eachFrame(drawNow);
  const rings = [["near", 2, 6], ["far", 4, 12]].map(([name, radius, dilation]) => ({
    name,
    radius: slider(controls, `${name} ring: radius`, {low: 0, high: 8, start: radius}, draw),
    dilation: slider(controls, `${name} ring: distance`, {low: 1, high: 20, start: dilation}, draw),
  }));
  const fill = numbers(root, "The rings (the paper's text says a field of 28 x 28; the authors' code reaches 33 x 33)",
    ["ring", "boxes", "cells a box", "field", "cells read", "cells read more than once"]);

  function drawNow() {
    const half = Math.max(...rings.map((ring) => ring.radius.value + ring.dilation.value)), side = 2 * half + 1;
    const rows = [], cell = 400 / side, seen = new Uint8Array(side * side);
    let drawn = "";
    for (const {name, radius, dilation} of [...rings].reverse()) {
      const r = radius.value, d = dilation.value, times = new Uint8Array(side * side);
      for (const y of [-d, 0, d]) {
        for (const x of [-d, 0, d]) {
          drawn += `<rect class="${name}" x="${(half + x - r) * cell}" y="${(half + y - r) * cell}"`
            + ` width="${(2 * r + 1) * cell}" height="${(2 * r + 1) * cell}"/>`;
          for (let row = y - r; row <= y + r; row++) {
            for (let column = x - r; column <= x + r; column++) times[(half + row) * side + half + column]++;
          }
        }
      }
      times.forEach((count, i) => {
        seen[i] |= Number(count > 0);
      });
      const field = 2 * (d + r) + 1;
      rows.unshift([name, "9", `${2 * r + 1} x ${2 * r + 1} = ${(2 * r + 1) ** 2}`, `${field} x ${field}`,
        String(times.filter((count) => count > 0).length), String(times.filter((count) => count > 1).length)]);
    }
    rows.push(["both", "18", "", `${side} x ${side}`, `${seen.filter(Boolean).length} of ${side ** 2}`, ""]);
    chart.innerHTML = `<svg viewBox="-2 -2 404 404" role="img" aria-label="Boxes of the rings">`
      + `<rect class="frame" width="400" height="400"/>${drawn}`
      + `<rect class="centre" x="${half * cell}" y="${half * cell}" width="${cell}" height="${cell}"/></svg>`;
    fill(rows);
  }
  draw();
}

const FIGURES = {weights: weightsFigure, algorithm: algorithmFigure, cells: cellsFigure, rings: ringsFigure};
for (const root of document.querySelectorAll("[data-figure]")) {
  root.querySelector(".waiting")?.remove();
  const data = root.querySelector("script");
  FIGURES[root.dataset.figure](root, data ? JSON.parse(data.textContent) : {});
}
