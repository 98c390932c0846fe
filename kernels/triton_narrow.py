"""W p for narrow windows: running sums down the rows, shuffles along them.

A program takes a strip of columns, a lane each, and some labels, and goes down the rows with one running sum for every
lane: a row enters, a row leaves. The sums start afresh every few rows, so that no error travels. Here a strip of 8
lanes (there are 32) with r = 2, at one row:

    lane                0    1    2    3    4    5    6    7
    row - r - 1         -    -    -    -    -    -    -    -      leaves the sums s
    row - r             .    .    .    .    .    .    .    .   \\
      ...               .    .    .    .    .    .    .    .    | in the sums s
    row + r             +    +    +    +    +    +    +    +   /  has just entered
    reads column       c-2  c-1   c   c+1  c+2  c+3  c+4  c+5
    across(s) adds     0-4  1-5  2-6  3-7   x    x    x    x      lanes i .. i + 2 r
    writes column       c   c+1  c+2  c+3  lost lost lost lost    the next strip begins at c+4

2 r lanes of a strip are lost, which is why there is another way for wide windows.
"""

import triton
import triton.language as tl

from .triton_solve import factors, line, pixel, planes_of, plus, plus_products, store
from .triton_windows import reciprocal, tile


@triton.jit
def _shift(x, BY: tl.constexpr):
    index = tl.minimum(tl.arange(0, x.shape[1]) + BY, x.shape[1] - 1)
    return tl.gather(x, tl.broadcast_to(index[None, :], x.shape), axis=1)


@triton.jit
def across(x, RADIUS: tl.constexpr):
    """Sums of 2 RADIUS + 1 < 16 columns from the own one on, by doubling; the last 2 RADIUS sums mean nothing."""
    SIZE: tl.constexpr = 2 * RADIUS + 1
    total = x
    for bit in tl.static_range(1, 4):
        if (SIZE >> bit) > 0:
            x += _shift(x, 1 << (bit - 1))
        if (SIZE >> bit) % 2 == 1:
            total += _shift(x, SIZE % (1 << bit))
    return total


@triton.jit
def _all_across(sums, RADIUS: tl.constexpr, COUNT: tl.constexpr):
    totals = ()
    for i in tl.static_range(COUNT):
        totals += (across(sums[i], RADIUS),)
    return totals


@triton.jit(do_not_specialize=["labels", "height", "width"])
def slopes(
    p, planes, out, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """a and b of every window: the planes b, a_0 .. a_C of each label. With DIVIDE p is divided by its counts first."""
    PLANES: tl.constexpr = planes_of(CHANNELS)
    first, column, here = tile(width, ROWS, COLUMNS, 2 * RADIUS)
    source = column - RADIUS  # what a lane reads; what it writes stands at its column
    inside = (source >= 0) & (source < width)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    valid = (label < labels) & inside  # [LABELS, COLUMNS]
    area, image = height.to(tl.int64) * width, tl.program_id(2).to(tl.int64)
    p += (image * labels + label) * area + source
    out += (image * labels + label) * ((CHANNELS + 1) * area) + column
    planes += image * PLANES * area
    colours, windows = planes + source, planes + column
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    by_source = reciprocal(source, width, RADIUS, CLIPPED)
    sums = (tl.zeros((LABELS, COLUMNS), tl.float32),) * (CHANNELS + 1)
    for row in range(tl.maximum(first - RADIUS - 1, 0), tl.minimum(first + RADIUS, height)):
        new = tl.load(p + row * width, mask=valid, other=0.0).to(tl.float32)
        if DIVIDE:
            new *= by_source * reciprocal(row, height, RADIUS, CLIPPED)
        sums = plus_products(sums, new, pixel(colours + row * width, area, inside, CHANNELS), CHANNELS)
    for row in range(first, tl.minimum(first + ROWS, height)):
        # All loads come first: the compiler moves none of them over a shuffle.
        enter, leave = (row + RADIUS) * width, (row - RADIUS - 1) * width
        entering, leaving = inside & (row + RADIUS < height), inside & (row > RADIUS)
        new = tl.load(p + enter, mask=valid & entering, other=0.0).to(tl.float32)
        old = tl.load(p + leave, mask=valid & leaving, other=0.0).to(tl.float32)
        colour = pixel(colours + enter, area, entering, CHANNELS)
        old_colour = pixel(colours + leave, area, leaving, CHANNELS)
        window = factors(windows + row * width, area, here, CHANNELS)
        if DIVIDE:
            new *= by_source * reciprocal(row + RADIUS, height, RADIUS, CLIPPED)
            old *= by_source * reciprocal(row - RADIUS - 1, height, RADIUS, CLIPPED)
        sums = plus_products(plus_products(sums, new, colour, CHANNELS), -old, old_colour, CHANNELS)
        n, totals = by_column * reciprocal(row, height, RADIUS, CLIPPED), _all_across(sums, RADIUS, CHANNELS + 1)
        lines = line(totals, n, window, CHANNELS)
        store(out + row * width, area, (label < labels) & here, lines, CHANNELS + 1)


@triton.jit(do_not_specialize=["labels", "height", "width"])
def collect(
    slopes, planes, out, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """Sum of the windows' lines at every pixel, over the counts if DIVIDE."""
    PLANES: tl.constexpr = planes_of(CHANNELS)
    first, column, here = tile(width, ROWS, COLUMNS, 2 * RADIUS)
    source = column - RADIUS
    inside = (source >= 0) & (source < width)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    valid = (label < labels) & inside  # [LABELS, COLUMNS]
    area, image = height.to(tl.int64) * width, tl.program_id(2).to(tl.int64)
    out += (image * labels + label) * area + column
    slopes += (image * labels + label) * ((CHANNELS + 1) * area) + source
    planes += image * PLANES * area + column
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    sums = (tl.zeros((LABELS, COLUMNS), tl.float32),) * (CHANNELS + 1)
    for row in range(tl.maximum(first - RADIUS - 1, 0), tl.minimum(first + RADIUS, height)):
        sums = plus(sums, pixel(slopes + row * width, area, valid, CHANNELS + 1), 1, CHANNELS + 1)
    for row in range(first, tl.minimum(first + ROWS, height)):
        enter, leave = (row + RADIUS) * width, (row - RADIUS - 1) * width
        entering, leaving = valid & (row + RADIUS < height), valid & (row > RADIUS)
        sums = plus(sums, pixel(slopes + enter, area, entering, CHANNELS + 1), 1, CHANNELS + 1)
        sums = plus(sums, pixel(slopes + leave, area, leaving, CHANNELS + 1), -1, CHANNELS + 1)
        colour = pixel(planes + row * width, area, here, CHANNELS)
        result = across(sums[0], RADIUS)
        for i in tl.static_range(CHANNELS):
            result += colour[i] * across(sums[i + 1], RADIUS)
        if DIVIDE:
            result *= by_column * reciprocal(row, height, RADIUS, CLIPPED)
        tl.store(out + row * width, result.to(out.dtype.element_ty), mask=(label < labels) & here)
