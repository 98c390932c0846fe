"use strict";
// One's own picture and scores under the sliders of Algorithm 1. Uses arithmetic.js and live.js of the paper's page.

/** Return the uint16 numbers of deflated text: all low bytes, then all high ones. */
async function unpacked(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer()), count = bytes.length / 2;
  return Float64Array.from({length: count}, (_, i) => bytes[i] + 256 * bytes[count + i]);
}

/** Return the value of the 16 bits of a half-precision number. */
function half(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
  return bits & 0x8000 ? -size : size;
}

/** Return numbers in a list of planes. */
const planesIn = (numbers, count) =>
  Array.from({length: count}, (_, k) => numbers.slice(k * numbers.length / count, (k + 1) * numbers.length / count));

async function explore(root, data) {
  const {size, factor, cells, classes, names, colours} = data, [height, width] = size, total = height * width;
  const scores = planesIn((await unpacked(data.scores)).map(half), classes.length);
  const full = cells.every((side, k) => side === size[k]);
  const fine = full ? scores : scores.map((plane) => interpolate(plane, cells, size));
  const strides = Object.keys(data.guides).map(Number), blocksOf = {};
  for (const stride of strides) {
    const {units, colours: packed} = data.guides[stride], blocks = size.map((side) => Math.ceil(side / stride));
    const given = cells.every((side, k) => side === blocks[k]);
    blocksOf[stride] = {given, guide: planesIn((await unpacked(packed)).map((value) => value / units), 3)};
  }
  const before = labelsOf(fine), first = data.settings, photo = root.querySelector("img");
  await photo.decode();
  root.replaceChildren();

  const view = make("canvas", {width: photo.naturalWidth, height: photo.naturalHeight, className: "view", role: "img"});
  const scroller = make("div", {className: "scroller"}, view), context = view.getContext("2d");
  const scale = view.width / width, changedNow = eachFrame(compute), shownNow = eachFrame(show);
  const display = make("div", {className: "controls"}), controls = make("div", {className: "controls"});
  root.append(display, scroller, controls);
  const share = {low: 0, high: 100, show: (value) => `${Math.round(value)} %`};
  const divider = slider(display, "dividing line", {...share, step: 0.1, start: 50}, shownNow);
  const opacity = slider(display, "labels' opacity", {...share, start: 45}, shownNow);
  const sized = () => { // at zoom 1 the picture leaves room for the sliders
    view.style.width = `calc(${zoom.value} * min(100%, 62vh * ${view.width / view.height}))`;
  };
  const zoom = slider(display, "zoom", {low: 1, high: 8, step: 0.5, start: 1, show: (v) => `${v} x`}, sized);
  sized();
  const near = (value) => Number(Number(value).toPrecision(4)), free = {step: "any", read: near};
  const widest = Math.max(...size), sliders = {
    stride: slider(controls, "stride (pixels a block)", {low: 0, high: strides.length - 1, start: first.stride,
      read: (k) => strides[k], write: (stride) => strides.indexOf(stride),
      show: (stride) => String(stride * factor)}, changedNow),
    radius: slider(controls, "radius (blocks)", {low: 0, high: Math.max(first.radius, Math.min(64, widest)),
      start: first.radius}, changedNow),
    eps: slider(controls, "epsilon", {low: -2, high: 5, step: "any", start: first.eps, ...power}, changedNow),
    weight: slider(controls, "weight lambda", {low: 0, high: Math.max(32, first.weight), start: first.weight,
      ...free}, changedNow),
    balance: slider(controls, "balance", {low: 0, high: 1, start: first.balance, ...free}, changedNow),
    iterations: slider(controls, "iterations", {low: 0, high: Math.max(10, first.iterations),
      start: first.iterations}, changedNow),
  };
  const status = make("p", {className: "status", role: "status"}), pointed = make("p", {className: "status"}, "\u00a0");
  root.append(status, pointed);
  const fill = numbers(root, "Pixels", ["", "pixels", "share"]);
  const fillClasses = numbers(root, "Classes", ["number", "", "class", "pixels before", "after"]);
  const text = make("pre", {className: "settings"}), copied = make("span", {role: "status"});
  const button = make("button", {type: "button"}, "Copy settings");
  const reset = make("button", {type: "button"}, "First settings");
  const use = "Saved as settings.json: "
    + "python -m segmodel.refine PHOTO SCORES.npy --settings settings.json --output labels.png";
  root.append(make("p", {}, button, " ", reset, " ", copied), make("p", {className: "status"}, use), text);

  const swatch = (k) => make("i", {className: "swatch", style: `background: rgb(${colours[k]})`});
  const layers = [before, before].map(() => Object.assign(document.createElement("canvas"), {width, height}));
  const edges = edgesOf(before, width);
  let after = before, afterEdges = edges;

  /** Draw a label map once: its colours, and its boundaries in white, on canvases of their own. */
  function layer(canvas, labels, lines) {
    const inks = colours.map((colour, k) => // nothing is laid over the background
      rgba(...colour, names[k].toLowerCase() === "background" ? 0 : Math.round(2.55 * opacity.value)));
    const white = rgba(255, 255, 255);
    paint(canvas.getContext("2d"), (i) => (lines[i] ? white : inks[labels[i]]));
  }

  let drawn = null;
  function show() {
    if (drawn?.opacity !== opacity.value) layer(layers[0], before, edges);
    if (drawn?.opacity !== opacity.value || drawn.after !== after) layer(layers[1], after, afterEdges);
    drawn = {opacity: opacity.value, after};
    const split = divider.value / 100 * view.width;
    context.imageSmoothingEnabled = false;
    context.drawImage(photo, 0, 0, view.width, view.height);
    [[before, 0, split], [after, split, view.width - split]].forEach(([labels, left, wide], k) => {
      context.save();
      context.beginPath();
      context.rect(left, 0, wide, view.height);
      context.clip();
      context.drawImage(layers[k], 0, 0, view.width, view.height);
      stamp(context, labels, size, classes, {scale, apart: Math.round(60 / scale), height: 12});
      context.restore();
    });
    context.fillStyle = "#000";
    context.fillRect(split - 2, 0, 4, view.height);
    context.fillStyle = "#fff";
    context.fillRect(split - 1, 0, 2, view.height);
    context.font = "bold 13px sans-serif";
    context.textBaseline = "top";
    for (const [words, align, x] of [["before", "right", split - 8], ["after", "left", split + 8]]) {
      context.textAlign = align;
      context.lineWidth = 3;
      context.strokeStyle = "#000";
      context.strokeText(words, x, 6);
      context.fillStyle = "#fff";
      context.fillText(words, x, 6);
    }
  }

  function compute() {
    const start = performance.now();
    const own = Object.fromEntries(Object.entries(sliders).map(([name, {value}]) => [name, value]));
    const blocks = blocksOf[own.stride];
    blocks.scores ??= blocks.given ? scores : fine.map((plane) => blockMeans(plane, size, own.stride));
    after = refine(blocks.scores, blocks.given ? null : fine, size, blocks.guide, own).labels;
    const spent = performance.now() - start, counts = [before, after].map((labels) => {
      const count = new Array(classes.length).fill(0);
      for (const label of labels) count[label]++;
      return count;
    });
    afterEdges = edgesOf(after, width);
    let changed = 0, both = 0, old = 0, recent = 0;
    for (let i = 0; i < total; i++) {
      changed += before[i] !== after[i];
      old += edges[i];
      recent += afterEdges[i];
      both += edges[i] * afterEdges[i];
    }
    const row = (name, count) => [name, grouped(count), percent(count, total)];
    fill([row("with another label", changed), row("at boundaries before", old), row("at boundaries after", recent),
      row("at both", both)]);
    fillClasses(classes.map((number, k) =>
      [String(number), swatch(k), names[k], ...counts.map((count) => grouped(count[k]))])
      .filter((_, k) => counts[0][k] + counts[1][k] > 0));
    const [down, across] = size.map((side) => Math.ceil(side / own.stride));
    status.textContent = `${width} x ${height} pixels, ${across} x ${down} blocks,`
      + ` ${classes.length} classes: computed in ${spent.toFixed(0)} ms.`;
    text.textContent = JSON.stringify({settings: {...own, stride: own.stride * factor}});
    copied.textContent = "";
    view.setAttribute("aria-label", `Labels before and after refinement; ${grouped(changed)} pixels changed`);
    show();
  }

  const at = (event) => {
    const area = view.getBoundingClientRect();
    return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
  };
  const drag = (event) => {
    if (event.buttons & 1) divider.value = 100 * at(event)[0];
  };
  view.addEventListener("pointerdown", (event) => {
    view.setPointerCapture(event.pointerId);
    drag(event);
  });
  view.addEventListener("pointermove", (event) => {
    drag(event);
    const [x, y] = at(event), column = Math.floor(x * width), line = Math.floor(y * height), i = line * width + column;
    if (!(column >= 0 && column < width && line >= 0 && line < height)) return;
    pointed.textContent = `Row ${line}, column ${column}: before ${names[before[i]]}, after ${names[after[i]]}.`;
  });
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {
      document.execCommand("copy"); // where a browser keeps its clipboard from files
    }
    copied.textContent = "copied";
  });
  reset.addEventListener("click", () => {
    for (const name of Object.keys(sliders)) sliders[name].value = first[name];
    changedNow();
  });
  compute();
}

{
  const root = document.getElementById("explorer");
  explore(root, JSON.parse(document.getElementById("data").textContent)).catch((error) => {
    root.replaceChildren(make("p", {}, `This browser cannot show the page: ${error.message}`));
    throw error;
  });
}
