"use strict";
// What the live figures share: sliders, numbers, pictures of pixels. Everything on a page works without a network.

/** Return an element with properties (or, where it has none of the name, attributes) and children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return a function that calls draw in the next animation frame, once however often it is called before. */
function eachFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

/** Add a slider with its value beside it. read makes a value of the slider's position, write a position of a value. */
function slider(parent, name, {low, high, step = 1, start, read = Number, write = Number, show = String}, changed) {
  const input = make("input", {type: "range", name, min: low, max: high, step, value: write(start)});
  const told = make("output");
  const tell = () => {
    told.value = show(read(Number(input.value)));
    input.setAttribute("aria-valuetext", told.value);
  };
  input.addEventListener("input", () => {
    tell();
    changed();
  });
  tell();
  parent.append(make("label", {className: "slider"}, make("span", {}, name), input, told));
  return {
    get value() {
      return read(Number(input.value));
    },
    set value(value) {
      input.value = write(value);
      tell();
      changed();
    },
  };
}

/** How a slider of powers of ten reads and writes values such as epsilon: four digits. */
const power = {read: (position) => Number((10 ** position).toPrecision(4)), write: Math.log10};

/** Add a choice of one of several; options: value -> words. */
function choice(parent, name, options, changed) {
  const group = make("fieldset", {className: "choice"}, make("legend", {}, name));
  const own = `${name}-${Math.random().toString(36).slice(2)}`;
  const inputs = Object.entries(options).map(([value, words], k) => {
    const input = make("input", {type: "radio", name: own, value, checked: k === 0});
    input.addEventListener("change", changed);
    group.append(make("label", {}, input, ` ${words}`));
    return input;
  });
  parent.append(group);
  return {
    get value() {
      return inputs.find((input) => input.checked).value;
    },
    set value(value) {
      inputs.find((input) => input.value === value).checked = true;
    },
  };
}

/** Add a table of numbers, and return a function that fills it: rows of texts, the first of each its heading. */
function numbers(parent, caption, heads) {
  const body = make("tbody"), head = make("tr", {}, ...heads.map((text) => make("th", {scope: "col"}, text)));
  const table = make("table", {className: "numbers"}, make("caption", {}, caption), make("thead", {}, head), body);
  parent.append(make("div", {className: "wide"}, table));
  return (rows) => {
    body.replaceChildren(...rows.map(([name, ...values]) => {
      const cells = values.map((value) => make("td", {}, value));
      return make("tr", {}, make("th", {scope: "row"}, name), ...cells);
    }));
  };
}

/** Add a canvas under its title; width: what it may take at most, in CSS pixels. */
function panel(parent, title, height, width, most) {
  const canvas = make("canvas", {width, height, role: "img", "aria-label": title});
  const words = make("figcaption", {}, title), kind = most > 200 ? "panel" : "panel small";
  const frame = make("figure", {className: kind}, canvas, words);
  frame.style.width = `${most}px`;
  parent.append(frame);
  return {canvas, words, frame, context: canvas.getContext("2d")};
}

/** Return a colour as the 32 bits that a canvas keeps: red, green, blue, opacity in 0..255. */
const rgba = (red, green, blue, opacity = 255) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;

/** Fill a canvas of its own pixels: colour(i) is made by rgba. */
function paint(context, colour) {
  const {width, height} = context.canvas, image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colour(i);
  context.putImageData(image, 0, 0);
}

/** Return the bytes of base64 text. */
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Return the planes of bytes of pixels that lie channel last. */
function planesOf(pixels, channels) {
  return Array.from({length: channels}, (_, c) =>
    Float64Array.from({length: pixels.length / channels}, (_, i) => pixels[channels * i + c]));
}

/** Write each label's name where a lattice of points meets its inside: no colour is needed to tell them apart. */
function stamp(context, labels, size, names, {scale = 1, apart = 24, height = 11} = {}) {
  const [rows, columns] = size;
  context.font = `bold ${height}px sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 3;
  const reach = Math.ceil(height / scale / 2);
  for (let y = apart >> 1; y < rows; y += apart) {
    for (let x = apart >> 1; x < columns; x += apart) {
      const label = labels[y * columns + x], other = (dy, dx) => {
        const row = Math.min(Math.max(y + dy, 0), rows - 1), column = Math.min(Math.max(x + dx, 0), columns - 1);
        return labels[row * columns + column] !== label;
      };
      if ([-1, 0, 1].some((dy) => [-1, 0, 1].some((dx) => other(dy * reach, dx * reach)))) continue;
      const place = [names[label], (x + 0.5) * scale, (y + 0.5) * scale];
      context.strokeStyle = "#000";
      context.strokeText(...place);
      context.fillStyle = "#fff";
      context.fillText(...place);
    }
  }
}

const digits = (value, count = 4) => value.toFixed(count).replace("-", "\u2212");
const percent = (part, whole) => `${(100 * part / whole).toFixed(2)} %`;
const grouped = (count) => count.toLocaleString("en-US").replace("-", "\u2212");

/** Return a line over 0, 1, ... with a dot at each value, as SVG text. */
function lineChart(values, label) {
  const low = Math.min(...values), span = Math.max(...values) - low || 1, step = 420 / Math.max(values.length - 1, 1);
  const points = values.map((value, k) => [76 + k * step, 150 - 130 * (value - low) / span]);
  const words = (x, y, text, anchor = "middle") => `<text x="${x}" y="${y}" text-anchor="${anchor}">${text}</text>`;
  const dots = points.map(([x, y], k) => `<circle cx="${x}" cy="${y}" r="3.5"/>${words(x, 168, k)}`).join("");
  return `<svg viewBox="0 0 510 190" role="img" aria-label="${label}"><polyline points="${points.join(" ")}"/>${dots}`
    + `${words(66, 24, grouped(Math.round(low + span)), "end")}${words(66, 154, grouped(Math.round(low)), "end")}`
    + `${words(280, 186, label)}</svg>`;
}
