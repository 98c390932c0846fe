"""The C x C systems of Eq. 12 of guides with more channels than registers hold: loops over memory, for every radius.

Unrolled, 16 channels would be some 600 multiplications on 150 values, and minutes of compiling. Here what is needed
again goes to memory, and the thread that wrote it reads it back.
"""

import triton
import triton.language as tl

from .triton_solve import inverse_at, lower_at, means_at, planes_of
from .triton_windows import counts, difference, ends, reciprocal, tile


@triton.jit(do_not_specialize=["height", "width"])
def factorise(
    out, sums, eps, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, COLUMNS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Means, L and 1 / D: the planes that follow the colours, in float64, out of the sums of ``guide_sums``.

    L_ij D_j = v_ij - sum_k L_ik D_k L_jk over k < j, and D_i = v_ii + eps - sum_k L_ik D_k L_ik over k < i.
    """
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    PLANES: tl.constexpr = planes_of(CHANNELS) - means_at(CHANNELS)
    area, image = height.to(tl.int64) * width, tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    valid, row, column = pixel < area, pixel // width, pixel % width
    sums += image * (CHANNELS + PAIRS) * area + row * width
    means = out + (image * PLANES * area + pixel)
    lower = means + (lower_at(CHANNELS) - means_at(CHANNELS)) * area
    inverse = means + (inverse_at(CHANNELS) - means_at(CHANNELS)) * area
    products, places = sums + CHANNELS * area, ends(column, width, RADIUS, COLUMNS)
    n = (counts(row, height, RADIUS) * counts(column, width, RADIUS)).to(tl.float64)
    for i in range(CHANNELS):
        mean = difference(sums + i * area, valid, places) / n
        tl.store(means + i * area, mean, mask=valid)
        own, own_products = lower + i * (i - 1) // 2 * area, products + i * (i + 1) // 2 * area
        for j in range(i):
            value = difference(own_products + j * area, valid, places) / n
            value -= mean * tl.load(means + j * area, mask=valid, other=0.0)
            other = lower + j * (j - 1) // 2 * area
            for k in range(j):
                scaled = tl.load(own + k * area, mask=valid, other=0.0)
                value -= scaled * tl.load(other + k * area, mask=valid, other=0.0)
            tl.store(own + j * area, value, mask=valid)  # L_ij D_j until the row is complete
        variance = difference(own_products + i * area, valid, places) / n - mean * mean
        for k in range(i):
            scaled = tl.load(own + k * area, mask=valid, other=0.0)
            entry = scaled * tl.load(inverse + k * area, mask=valid, other=0.0)
            variance -= scaled * entry
            tl.store(own + k * area, entry, mask=valid)
        # What remains of a variance is at least 0, but rounding may have left a flat window less.
        tl.store(inverse + i * area, 1.0 / (tl.maximum(variance, 0.0) + eps), mask=valid)


@triton.jit(do_not_specialize=["labels", "height", "width"])
def solve(
    sums, planes, slopes, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr,
):  # fmt: skip
    """``triton_wide.solve``: out of the prefix sums of p, I p those of b, a_0 .. a_C."""
    PLANES: tl.constexpr = planes_of(CHANNELS)
    first, column, here = tile(width, ROWS, COLUMNS, 0)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    area, image = height.to(tl.int64) * width, tl.program_id(2).to(tl.int64)
    valid = (label < labels) & here  # [LABELS, COLUMNS]
    sums += (image * labels + label) * ((CHANNELS + 1) * area)
    slopes += (image * labels + label) * ((CHANNELS + 1) * area) + column
    planes += image * PLANES * area + column
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    places = ends(column, width, RADIUS, COLUMNS)
    for row in range(first, tl.minimum(first + ROWS, height)):
        n = by_column * reciprocal(row, height, RADIUS, CLIPPED)
        offset, slope = slopes + row * width, slopes + area + row * width
        means = planes + means_at(CHANNELS) * area + row * width
        lower = planes + lower_at(CHANNELS) * area + row * width
        inverse = planes + inverse_at(CHANNELS) * area + row * width
        mean = difference(sums + row * width, valid, places) * n
        for i in range(CHANNELS):
            total = difference(sums + (i + 1) * area + row * width, valid, places)
            y = total * n - mean * tl.load(means + i * area, mask=here, other=0.0)
            for j in range(i):
                entry = tl.load(lower + (i * (i - 1) // 2 + j) * area, mask=here, other=0.0)
                y -= entry * tl.load(slope + j * area, mask=valid, other=0.0)
            tl.store(slope + i * area, y, mask=valid)
        b = mean
        for step in range(CHANNELS):
            i = CHANNELS - 1 - step
            a = tl.load(slope + i * area, mask=valid, other=0.0)
            a *= tl.load(inverse + i * area, mask=here, other=0.0)
            for j in range(i + 1, CHANNELS):
                entry = tl.load(lower + (j * (j - 1) // 2 + i) * area, mask=here, other=0.0)
                a -= entry * tl.load(slope + j * area, mask=valid, other=0.0)
            b -= a * tl.load(means + i * area, mask=here, other=0.0)
            tl.store(slope + i * area, a, mask=valid)
        tl.store(offset, tl.cumsum(b, 1), mask=valid)
        for i in range(CHANNELS):
            a = tl.load(slope + i * area, mask=valid, other=0.0)
            tl.store(slope + i * area, tl.cumsum(a, 1), mask=valid)
