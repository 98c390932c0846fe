"use strict";
// The arithmetic of the live figures: Eq. 6, Eq. 11 and 12, and Algorithm 1, as bilinear_target.py, guided_filter.py
// and guidance_crf.py have them, and tested against these. It depends on nothing: any JavaScript engine runs it.
//
// A plane is a Float64Array of height * width numbers in reading order; a map is a list of planes, one a channel or
// label. A score is a negative energy. Sizes are written height, width.

/** Return the sums of a plane over the windows of side 2 radius + 1, clipped at the border.
 *  Running sums, of columns and then along the row: a wide window costs what a narrow one costs. */
function boxSum(x, height, width, radius, out = new Float64Array(height * width)) {
  const tall = Math.min(radius, height), wide = Math.min(radius, width), first = wide + 1;
  const columns = new Float64Array(width + 2 * wide + 1); // zeros before and after them
  for (let row = 0, j = 0; row < tall; row++) for (let i = 0; i < width; i++, j++) columns[first + i] += x[j];
  for (let row = 0, j = 0; row < height; row++) {
    const enters = (row + tall) * width, leaves = (row - tall - 1) * width;
    if (row + tall < height) for (let i = 0; i < width; i++) columns[first + i] += x[enters + i];
    if (row > tall) for (let i = 0; i < width; i++) columns[first + i] -= x[leaves + i];
    let sum = 0;
    for (let i = first; i < first + wide; i++) sum += columns[i];
    for (let i = 0; i < width; i++, j++) {
      sum += columns[i + 2 * wide + 1] - columns[i];
      out[j] = sum;
    }
  }
  return out;
}

/** Return what the guided filter needs of a guide of one or three planes, values in 0..255.
 *
 *  border: "clipped" (He et al.), "constant" (Eq. 12 to the letter) or "authors" (zero-padded moments).
 *  balance: share of the plain mean over the windows that is left out; 0 is the paper's filter.
 *  (Sigma_k + epsilon U)^-1 is kept as its factors L^-T D^-1 L^-1, which lose fewer digits than the inverse. */
function prepareGuide(guide, height, width, {radius, epsilon, border = "clipped", balance = 0}) {
  const size = height * width, side = 2 * radius + 1, colour = guide.length === 3;
  const counts = boxSum(new Float64Array(size).fill(1), height, width, radius), clipped = border === "clipped";
  const area = border === "constant" ? side ** 2 : Math.min(side, height) * Math.min(side, width);
  const divisor = border === "authors" ? new Float64Array(size).fill(area) : counts;
  const share = new Float64Array(size).fill(1 / area);
  if (clipped) for (let k = 0; k < size; k++) share[k] = 1 / counts[k];
  const average = (plane) => {
    const sums = boxSum(plane, height, width, radius);
    for (let k = 0; k < size; k++) sums[k] /= divisor[k];
    return sums;
  };
  const centred = guide.map((plane) => {
    const own = Float64Array.from(plane), middle = own.reduce((sum, value) => sum + value, 0) / size;
    if (border !== "authors") for (let k = 0; k < size; k++) own[k] -= middle; // their zeros outside are no colour
    return own;
  });
  const mean = centred.map(average);
  const covariance = (a, b) => {
    const second = average(multiply(centred[a], centred[b]));
    addProduct(second, -1, mean[a], mean[b]);
    return second;
  };
  const d0 = covariance(0, 0), factors = [d0];
  for (let k = 0; k < size; k++) d0[k] = 1 / (d0[k] + epsilon);
  if (colour) {
    const l10 = covariance(0, 1), l20 = covariance(0, 2), l21 = covariance(1, 2);
    const d1 = covariance(1, 1), d2 = covariance(2, 2);
    for (let k = 0; k < size; k++) {
      const s10 = l10[k], s20 = l20[k];
      l10[k] *= d0[k];
      l20[k] *= d0[k];
      const rest = l21[k] - l10[k] * s20;
      d1[k] = 1 / (d1[k] + epsilon - l10[k] * s10);
      l21[k] = rest * d1[k];
      d2[k] = 1 / (d2[k] + epsilon - l20[k] * s20 - l21[k] * rest);
    }
    factors.push(d1, d2, l10, l20, l21);
  }
  const spare = Array.from({length: guide.length + 2}, () => new Float64Array(size));
  return {guide: centred, mean, factors, share, counts, height, width, radius, clipped, plain: 1 - balance, spare};
}

/** Turn covariances with the guide, one plane a channel, into the slopes of the windows' lines: in place. */
function solve(covariance, factors, share) {
  const [d0, d1, d2, l10, l20, l21] = factors, [a, b, c] = covariance;
  if (covariance.length === 1) return multiply(a, multiply(share, d0), a);
  for (let k = 0; k < share.length; k++) {
    const y1 = b[k] - l10[k] * a[k], y2 = c[k] - l20[k] * a[k] - l21[k] * y1;
    const z = d2[k] * y2, y = d1[k] * y1 - l21[k] * z;
    a[k] = (d0[k] * a[k] - l10[k] * y - l20[k] * z) * share[k];
    b[k] = y * share[k];
    c[k] = z * share[k];
  }
  return a;
}

/** Return the products of two planes. */
function multiply(x, y, out = new Float64Array(x.length)) {
  for (let k = 0; k < out.length; k++) out[k] = x[k] * y[k];
  return out;
}

/** Add factor x y to a plane, in place. */
function addProduct(out, factor, x, y) {
  for (let k = 0; k < out.length; k++) out[k] += factor * x[k] * y[k];
}

/** Return W p for one plane p (Eq. 11): every window fits a line to p over the guide, every pixel sums the lines of its
 *  windows. */
function guidedFilter(p, prepared, out = new Float64Array(p.length)) {
  const {guide, mean, factors, share, height, width, radius, plain, spare} = prepared;
  const [total, work, ...slopes] = spare;
  boxSum(p, height, width, radius, total);
  slopes.forEach((slope, c) => {
    boxSum(multiply(guide[c], p, work), height, width, radius, slope);
    addProduct(slope, -1, mean[c], total);
  });
  solve(slopes, factors, share);
  for (let k = 0; k < total.length; k++) total[k] *= plain * share[k];
  slopes.forEach((slope, c) => addProduct(total, -1, slope, mean[c]));
  boxSum(total, height, width, radius, out);
  slopes.forEach((slope, c) => addProduct(out, 1, boxSum(slope, height, width, radius, work), guide[c]));
  return multiply(out, share, out);
}

/** Return row i of W (Eq. 12) as a plane: the weights w_ij of all pixels j. With clipped windows D W is symmetric, D
 *  the windows' counts; with the two others W is. */
function rowOfW(i, prepared) {
  const here = new Float64Array(prepared.counts.length), {counts, clipped} = prepared;
  here[i] = clipped ? 1 / counts[i] : 1;
  return guidedFilter(here, prepared).map((w, j) => (clipped ? w * counts[j] : w));
}

/** Return the row sums of W: 1, less the balance, with clipped windows. */
function rowSums(prepared) {
  const ones = new Float64Array(prepared.counts.length).fill(1);
  return prepared.clipped ? ones.fill(prepared.plain) : guidedFilter(ones, prepared);
}

/** Return the softmax over the labels of a map of scores. */
function softmax(scores) {
  const size = scores[0].length, q = scores.map(() => new Float64Array(size));
  for (let i = 0; i < size; i++) {
    let most = -Infinity, sum = 0;
    for (const plane of scores) if (plane[i] > most) most = plane[i];
    for (let l = 0; l < q.length; l++) sum += q[l][i] = Math.exp(scores[l][i] - most);
    for (let l = 0; l < q.length; l++) q[l][i] /= sum;
  }
  return q;
}

/** Return scores - weight m with m = mu W q: lines 2 to 4 of Algorithm 1. mu: a list of rows, or null for Potts, where
 *  m = W 1 - g. The last label's g is what the others leave of the row sums. */
function update(scores, q, prepared, {weight, mu = null}) {
  const ones = rowSums(prepared), last = ones.slice(), size = ones.length;
  const present = (plane) => plane.some((share) => share > 1e-9); // what no pixel has moves no score by 1e-7
  const g = q.slice(0, -1).map((plane) => (present(plane) ? guidedFilter(plane, prepared) : new Float64Array(size)));
  for (const plane of g) for (let i = 0; i < size; i++) last[i] -= plane[i];
  g.push(last);
  return scores.map((s, l) => {
    const phi = s.slice();
    if (mu === null) for (let i = 0, own = g[l]; i < size; i++) phi[i] -= weight * (ones[i] - own[i]);
    else g.forEach((other, k) => {
      for (let i = 0, factor = weight * mu[l][k]; i < size; i++) phi[i] -= factor * other[i];
    });
    return phi;
  });
}

/** Return the scores phi after all iterations of Algorithm 1, from the scores on. */
function guidanceCrf(scores, prepared, {weight, iterations, mu = null}) {
  let phi = scores;
  for (let k = 0; k < iterations; k++) phi = update(scores, softmax(phi), prepared, {weight, mu});
  return phi;
}

/** Return q and the functional F after each iteration, the start included. F goes down where windows are clipped,
 *  nothing is left out, weight >= 0, and mu is symmetric and negative semi-definite on vectors that sum to zero. */
function guidanceCrfSteps(scores, prepared, {weight, iterations, mu = null}) {
  const steps = [];
  for (let k = 0, phi = scores; k <= iterations; k++) {
    const q = softmax(phi), next = update(scores, q, prepared, {weight, mu});
    let functional = 0; // sum_i n_i sum_l q (ln q - s + weight / 2 m), and weight m = s - next
    q.forEach((plane, l) => plane.forEach((share, i) => {
      const entropy = share > 0 ? Math.log(share) : 0;
      functional += prepared.counts[i] * share * (entropy - (scores[l][i] + next[l][i]) / 2);
    }));
    steps.push({q, phi, functional});
    phi = next;
  }
  return steps;
}

/** Return whether F is promised to go down for a compatibility mu: symmetric, and v mu v <= 0 for all v of sum zero. */
function promised(mu) {
  const n = mu.length - 1, near = 1e-9 * (1 + Math.max(...mu.flat().map(Math.abs)));
  if (mu.some((row, a) => row.some((value, b) => Math.abs(value - mu[b][a]) > near))) return false;
  // minus mu on the basis e_a - e_last, to be positive semi-definite: eliminate one row after the other
  const rest = mu.slice(0, n).map((row, a) => row.slice(0, n).map((v, b) => mu[a][n] + mu[n][b] - v - mu[n][n]));
  for (let k = 0; k < n; k++) {
    if (rest[k][k] < -near) return false;
    for (let a = k + 1; a < n; a++) {
      if (rest[k][k] <= near && Math.abs(rest[a][k]) > Math.sqrt(near)) return false;
      const factor = rest[k][k] > near ? rest[a][k] / rest[k][k] : 0;
      for (let b = k + 1; b < n; b++) rest[a][b] -= factor * rest[k][b];
    }
  }
  return true;
}

/** Return the label of the largest score at every pixel; the first of equal ones. */
function labelsOf(scores) {
  return Uint8Array.from(scores[0], (_, i) => {
    let best = 0;
    for (let l = 1; l < scores.length; l++) if (scores[l][i] > scores[best][i]) best = l;
    return best;
  });
}

/** Return positions and weights of linear interpolation along one side: half-pixel centres, clamped borders. */
function taps(size, length, scale) {
  const first = new Int32Array(length), next = new Int32Array(length), part = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    const at = Math.max((i + 0.5) * scale - 0.5, 0);
    first[i] = Math.min(Math.floor(at), size - 1);
    next[i] = Math.min(first[i] + 1, size - 1);
    part[i] = at - first[i];
  }
  return {first, next, part};
}

/** Return a plane h x w interpolated bilinearly to height x width. scale: cells a pixel, down and across. */
function interpolate(x, [h, w], [height, width], [down, across] = [h / height, w / width]) {
  const rows = taps(h, height, down), columns = taps(w, width, across);
  const out = new Float64Array(height * width), row = new Float64Array(w);
  for (let y = 0, j = 0; y < height; y++) {
    const above = rows.first[y] * w, below = rows.next[y] * w, part = rows.part[y];
    for (let i = 0; i < w; i++) row[i] = x[above + i] + part * (x[below + i] - x[above + i]);
    for (let i = 0; i < width; i++, j++) {
      const left = row[columns.first[i]];
      out[j] = left + columns.part[i] * (row[columns.next[i]] - left);
    }
  }
  return out;
}

/** Return the means over blocks of side x side pixels; the last row and column are repeated up to a whole block. */
function blockMeans(x, [height, width], side) {
  const h = Math.ceil(height / side), w = Math.ceil(width / side), out = new Float64Array(h * w);
  for (let y = 0; y < h * side; y++) {
    const from = Math.min(y, height - 1) * width, to = Math.floor(y / side) * w;
    for (let block = 0, i = 0; block < w; block++) {
      for (let k = 0; k < side; k++, i++) out[to + block] += x[from + Math.min(i, width - 1)];
    }
  }
  return out.map((sum) => sum / side ** 2);
}

/** Return the labels after refinement at the size of the picture, and their scores, as segmodel.inference.refinement
 *  computes them: the CRF runs on blocks of the picture, and what it changes is interpolated and added to the scores.
 *
 *  coarse: the scores of the blocks; fine: the scores at the picture's size, or null where the blocks' were given;
 *  guide: the planes of the blocks' mean colours. */
function refine(coarse, fine, size, guide, {stride, radius, eps, weight, balance, iterations}) {
  const blocks = size.map((side) => Math.ceil(side / stride));
  const prepared = prepareGuide(guide, ...blocks, {radius, epsilon: eps, balance});
  const phi = guidanceCrf(coarse, prepared, {weight, iterations}), [height, width] = size, w = blocks[1];
  const change = fine === null ? phi : phi.map((plane, l) => plane.map((value, i) => value - coarse[l][i]));
  const best = new Float64Array(height * width).fill(-Infinity), labels = new Uint8Array(best.length);
  const nothing = new Float64Array(fine === null ? best.length : 0), row = new Float64Array(w);
  const rows = taps(blocks[0], height, 1 / stride), {first, next, part} = taps(w, width, 1 / stride);
  for (let y = 0; y < height; y++) {
    const above = rows.first[y] * w, below = rows.next[y] * w, share = rows.part[y];
    for (let l = 0; l < change.length; l++) {
      const x = change[l], own = fine === null ? nothing : fine[l], start = y * width;
      for (let i = 0; i < w; i++) row[i] = x[above + i] + share * (x[below + i] - x[above + i]);
      for (let i = 0; i < width; i++) {
        const left = row[first[i]], score = left + part[i] * (row[next[i]] - left) + own[start + i];
        if (score > best[start + i]) {
          best[start + i] = score;
          labels[start + i] = l;
        }
      }
    }
  }
  return {labels, best};
}

/** Return where the label differs from the one to the left or above, 1 or 0. */
function edgesOf(labels, width) {
  const edges = new Float64Array(labels.length);
  for (let start = 0; start < labels.length; start += width) {
    for (let i = start; i < start + width; i++) {
      if ((i > start && labels[i] !== labels[i - 1]) || (start > 0 && labels[i] !== labels[i - width])) edges[i] = 1;
    }
  }
  return edges;
}

/** Return Eq. 6 along a line: for a line of labels 0 and 1 and cells of so many pixels, the histogram of label 1 around
 *  each cell, the best scores' probability, and what these say of every pixel after interpolation. */
function lineOfCells(line, cell, steps = 500) {
  const cells = line.length / cell, {first, next, part} = taps(cells, line.length, 1 / cell);
  const gather = (x) => {
    const out = new Float64Array(cells);
    x.forEach((value, j) => {
      out[first[j]] += (1 - part[j]) * value;
      out[next[j]] += part[j] * value;
    });
    return out;
  };
  const spread = (x) => Float64Array.from(line, (_, j) => x[first[j]] + part[j] * (x[next[j]] - x[first[j]]));
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const weight = gather(Float64Array.from(line, () => 1));
  const histogram = gather(Float64Array.from(line)).map((sum, i) => sum / weight[i]);
  // the score of 1 less that of 0, by accelerated gradient descent from the histogram (fit_scores)
  let scores = histogram.map((p) => Math.log(Math.max(p, 1e-3)) - Math.log(Math.max(1 - p, 1e-3))), ahead = scores;
  for (let step = 0; step < steps; step++) {
    const gradient = gather(spread(ahead).map((s, j) => sigmoid(s) - line[j])), previous = scores;
    scores = ahead.map((s, i) => s - (4 / cell) * gradient[i]); // both labels' scores move, by 2 / cell each
    ahead = scores.map((s, i) => s + (step / (step + 3)) * (s - previous[i]));
  }
  const said = spread(scores).map(sigmoid);
  return {histogram, best: scores.map(sigmoid), said, wrong: line.reduce((n, p, j) => n + ((said[j] > 0.5) != p), 0)};
}
