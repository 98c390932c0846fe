r"""The guided filter row by row: plain loops over rows that numba compiles.

Nothing as large as a map is held. With d the radius and t the row that is read, every label has

.. code-block:: text

    row t          p, I p of row t  ──> first    float64 column sums over rows t - 2 d .. t
    row y = t - d  sums of first along the row, solved with the guide's planes: b, a
                   b, a of row y    ──> solved   the last 2 d + 1 rows of b, a: those that second holds
                   b, a of row y    ──> second   float64 column sums over rows y - 2 d .. y
    row y - d      sums of second along the row, b + I^T a: the result

A row enters its column sums, another leaves them, and the sums along a row run too: the cost does not depend on the
radius. In float64 the running sums err less than float32 can hold. But what is no number never leaves a sum: NaN and
infinities reach all pixels of their label below and to the right of the first window that holds one.

All arrays are C-contiguous, and rows are taken as ``array[plane, row]``: of other slices numba would not know that
their elements are neighbours, and loops that are not vectorised take twice as long.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from . import guide_planes

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}


def compiled(function: Callable) -> Callable:
    """Compile a function on its first call, and keep the result beside this file or in the user's cache folder.

    Where neither can be written every process compiles anew.
    """
    try:
        kernel = njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # numba finds no folder for its cache
        kernel = njit(**OPTIONS)(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> None:
        try:
            kernel(*arguments)
        except OSError:  # the folder cannot be written any more; what was compiled for this call stays
            kernel(*arguments)

    return call


inner = njit(**OPTIONS)  # what a compiled function calls becomes part of it
means_at, lower_at, inverse_at = (
    inner(f) for f in (guide_planes.means_at, guide_planes.lower_at, guide_planes.inverse_at)
)


@inner
def sum_along(sums, windows, across):
    """Sums over 2 across + 1 elements of each row, which has across + 1 zeros on its left and across on its right.

    Each sum waits for the one before it: four rows at a time keep the processor busy.
    """
    size, width, rows = 2 * across + 1, windows.shape[1], len(sums)
    for i in range(0, rows - 3, 4):
        s0, s1, s2, s3 = sums[i], sums[i + 1], sums[i + 2], sums[i + 3]
        w0, w1, w2, w3 = windows[i], windows[i + 1], windows[i + 2], windows[i + 3]
        t0 = t1 = t2 = t3 = 0.0
        for x in range(size):
            t0 += s0[x]
            t1 += s1[x]
            t2 += s2[x]
            t3 += s3[x]
        for x in range(width):
            t0 += s0[x + size] - s0[x]
            t1 += s1[x + size] - s1[x]
            t2 += s2[x + size] - s2[x]
            t3 += s3[x + size] - s3[x]
            w0[x] = t0
            w1[x] = t1
            w2[x] = t2
            w3[x] = t3
    for i in range(rows // 4 * 4, rows):
        s, w, t = sums[i], windows[i], 0.0
        for x in range(size):
            t += s[x]
        for x in range(width):
            t += s[x + size] - s[x]
            w[x] = t


@inner
def scale(row, factor, factors, out):
    for x in range(len(out)):
        out[x] = row[x] * (factor * factors[x])


@inner
def move(sums, start, entering, enters, leaving, leaves, planes):
    """Row ``enters`` of p enters the column sums of p and of its products with the colours; row ``leaves`` leaves."""
    s = sums[0, start:]
    for x in range(len(entering)):
        s[x] += entering[x] - leaving[x]
    for c in range(len(sums) - 1):
        s, colour, before = sums[1 + c, start:], planes[c, enters], planes[c, leaves]
        for x in range(len(entering)):
            s[x] += entering[x] * colour[x] - leaving[x] * before[x]


@inner
def replace(sums, start, new, old):
    """Rows enter the column sums and take the place of those that leave them."""
    for i in range(len(sums)):
        s, a, b = sums[i, start:], new[i], old[i]
        for x in range(len(a)):
            s[x] += np.float64(a[x]) - np.float64(b[x])
            b[x] = a[x]


@inner
def solve(v, planes, y, n, columns):
    """Window sums of p and I p in row y -> b and a, in place; n * columns are the inverse counts.

    L f = S(I p) - mean S(p), then L^T a = f / (D n), and b = S(p) / n - mean^T a.
    """
    channels = len(v) - 1
    if channels == 3:
        return solve_colour(v, planes, y, n, columns)
    total = v[0]
    for i in range(channels):
        subtract_product(v[1 + i], planes[means_at(channels) + i, y], total)
        for j in range(i):
            subtract_product(v[1 + i], planes[lower_at(channels, i, j), y], v[1 + j])
    scale(total, n, columns, total)
    for i in range(channels - 1, -1, -1):
        a, inverse = v[1 + i], planes[inverse_at(channels) + i, y]
        for x in range(len(a)):
            a[x] *= inverse[x] * (n * columns[x])
        for j in range(i + 1, channels):
            subtract_product(a, planes[lower_at(channels, j, i), y], v[1 + j])
        subtract_product(total, planes[means_at(channels) + i, y], a)


@inner
def subtract_product(target, factor, row):
    for x in range(len(target)):
        target[x] -= factor[x] * row[x]


@inner
def solve_colour(v, planes, y, n, columns):
    """``solve`` for three channels in one loop, which takes 0.6 of the time."""
    b, a0, a1, a2 = v[0], v[1], v[2], v[3]
    m0, m1, m2, l10, l20, l21 = planes[3, y], planes[4, y], planes[5, y], planes[6, y], planes[7, y], planes[8, y]
    inverse0, inverse1, inverse2 = planes[9, y], planes[10, y], planes[11, y]
    for x in range(len(b)):
        c, s = n * columns[x], b[x]
        f0 = a0[x] - m0[x] * s
        f1 = a1[x] - m1[x] * s - l10[x] * f0
        f2 = a2[x] - m2[x] * s - l20[x] * f0 - l21[x] * f1
        g2 = f2 * inverse2[x] * c
        g1 = f1 * inverse1[x] * c - l21[x] * g2
        g0 = f0 * inverse0[x] * c - l10[x] * g1 - l20[x] * g2
        b[x] = s * c - m0[x] * g0 - m1[x] * g1 - m2[x] * g2
        a0[x] = g0
        a1[x] = g1
        a2[x] = g2


@inner
def combine(v, planes, y, n, columns, out):
    """(S(b) + I^T S(a)) * n * columns, for row y of the guide."""
    total = v[0]
    for c in range(len(v) - 1):
        a, colour = v[1 + c], planes[c, y]
        for x in range(len(total)):
            total[x] += a[x] * colour[x]
    scale(total, n, columns, out)


@compiled
def filter_labels(p, out, labels, band, planes, channels, origin, rows, columns, down, across, adjoint):
    """W p or W^T p [C, H, W] of the labels (first, end) in the rows (begin, end); ``planes`` begin at row ``origin``.

    rows, columns: the inverse counts of the windows, which are products of the two.
    """
    (first_label, end_label), (begin, end), (_, height, width) = labels, band, p.shape
    count, ring, start = end_label - first_label, 2 * down + 1, across + 1
    first = np.zeros((count, channels + 1, width + 2 * across + 1))
    second = np.zeros_like(first)
    solved = np.zeros((count, ring, channels + 1, width), p.dtype)
    windows = np.empty((channels + 1, width), p.dtype)
    entering, leaving = np.empty(width), np.empty(width)
    one, ones = np.ones_like(rows), np.ones_like(columns)
    before, before_columns = (rows, columns) if adjoint else (one, ones)
    after, after_columns = (one, ones) if adjoint else (rows, columns)
    top, bottom = max(begin - 2 * down, 0), min(end + 2 * down, height)  # rows of p that the result depends on
    for t in range(top, end + 2 * down):
        last, y, done = t - ring, t - down, t - 2 * down
        enters, leaves = min(t, height - 1), max(last, top)
        for i in range(count):
            label = first_label + i
            if y < height:
                if t < bottom:
                    scale(p[label, t], before[t], before_columns, entering)
                else:
                    entering[:] = 0
                if last >= top:
                    scale(p[label, last], before[last], before_columns, leaving)
                else:
                    leaving[:] = 0
                move(first[i], start, entering, enters - origin, leaving, leaves - origin, planes)
            if y >= max(begin - down, 0):
                if y < height:
                    sum_along(first[i], windows, across)
                    solve(windows, planes, y - origin, rows[y], columns)
                else:
                    windows[:] = 0
                replace(second[i], start, windows, solved[i, y % ring])
            if done >= begin:
                sum_along(second[i], windows, across)
                combine(windows, planes, done - origin, after[done], after_columns, out[label, done])


@compiled
def moments(planes, channels, eps, band, rows, columns, down, across):
    """Means, L and 1 / D of the windows of the colours, which are in the planes [P, H, W], in the rows (begin, end).

    rows, columns: the inverse counts in float64, as are all sums: a covariance is a small difference of large numbers.
    """
    (begin, end), (_, height, width) = band, planes.shape
    count, ring, start = channels + channels * (channels + 1) // 2, 2 * down + 1, across + 1
    sums, windows = np.zeros((count, width + 2 * across + 1)), np.empty((count, width))
    lower, n, outside = np.empty((count, width)), np.empty(width), np.zeros(width, planes.dtype)
    top = max(begin - down, 0)
    for t in range(top, end + down):
        pair, last = channels, t - ring
        for i in range(channels):
            enters = planes[i, t] if t < height else outside
            leaves = planes[i, last] if last >= top else outside
            s = sums[i, start:]
            for x in range(width):
                s[x] += np.float64(enters[x]) - np.float64(leaves[x])
            for j in range(i + 1):
                other = planes[j, t] if t < height else outside
                before = planes[j, last] if last >= top else outside
                s = sums[pair, start:]
                pair += 1
                for x in range(width):
                    s[x] += np.float64(enters[x]) * other[x] - np.float64(leaves[x]) * before[x]
        y = t - down
        if y >= begin:
            sum_along(sums, windows, across)
            for x in range(width):
                n[x] = rows[y] * columns[x]
            factorise(windows, lower, planes, channels, y, n, eps)


@inner
def factorise(windows, lower, planes, channels, y, n, eps):
    """L D L^T of the covariances plus eps, from the window sums of the colours and then of their products.

    Row i of the products becomes L_ij D_j: v_ij - sum_k (L_ik D_k) L_jk, and D_i at its end.
    """
    for i in range(channels):
        mean, plane, row = windows[i], planes[means_at(channels) + i, y], channels + i * (i + 1) // 2
        for x in range(len(n)):
            mean[x] *= n[x]
            plane[x] = mean[x]
        for j in range(i + 1):
            value, other, diagonal = windows[row + j], windows[j], windows[channels + j * (j + 3) // 2]
            for x in range(len(n)):
                value[x] = value[x] * n[x] - mean[x] * other[x]
            for k in range(j):
                subtract_product(value, windows[row + k], lower[j * (j - 1) // 2 + k])
            if j < i:
                plane, ratio = planes[lower_at(channels, i, j), y], lower[i * (i - 1) // 2 + j]
                for x in range(len(n)):
                    ratio[x] = value[x] / diagonal[x]
                    plane[x] = ratio[x]
            else:
                plane = planes[inverse_at(channels) + i, y]
                for x in range(len(n)):
                    # At least eps with eps added: rounding may have left a flat window less. NaN stays.
                    value[x] = eps if value[x] < 0 else value[x] + eps
                    plane[x] = 1 / value[x]
