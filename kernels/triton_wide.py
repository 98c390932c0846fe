"""W p for wide windows, where strips would lose too many lanes: prefix sums in memory, and three kernels.

``prefix_sums`` has running sums down the rows, as narrow windows do, and stores their prefix sums along the row.
``solve`` takes differences of those and stores the prefix sums of a and b, and ``collect`` takes differences of these.
No lane is lost and the cost hardly depends on the radius, but nearly twice as many bytes move. On an H200 this was 2.4
times as fast as the other way with wider strips (19x256x512, radius 31), and half as fast at radius 3.
"""

import triton
import triton.language as tl

from .triton_solve import factors, line, pixel, planes_of, plus, plus_products, store
from .triton_windows import difference, ends, reciprocal, tile


@triton.jit
def _differences(x, area, valid, places, COUNT: tl.constexpr):
    """Sums over windows along a row, of planes of prefix sums that follow one another."""
    values = ()
    for i in tl.static_range(COUNT):
        values += (difference(x + i * area, valid, places),)
    return values


@triton.jit
def _prefix_sums(values, COUNT: tl.constexpr):
    sums = ()
    for i in tl.static_range(COUNT):
        sums += (tl.cumsum(values[i], 1),)
    return sums


@triton.jit(do_not_specialize=["labels", "height", "width"])
def prefix_sums(
    p, planes, sums, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """Prefix sums of p, I p over the rows of the windows. With DIVIDE p is divided by its counts first."""
    PLANES: tl.constexpr = planes_of(CHANNELS)
    first, column, here = tile(width, ROWS, COLUMNS, 0)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    valid = (label < labels) & here  # [LABELS, COLUMNS]
    area, image = height.to(tl.int64) * width, tl.program_id(2).to(tl.int64)
    p += (image * labels + label) * area + column
    sums += (image * labels + label) * ((CHANNELS + 1) * area) + column
    planes += image * PLANES * area + column
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    total = (tl.zeros((LABELS, COLUMNS), tl.float32),) * (CHANNELS + 1)
    for row in range(tl.maximum(first - RADIUS - 1, 0), tl.minimum(first + RADIUS, height)):
        new = tl.load(p + row * width, mask=valid, other=0.0).to(tl.float32)
        if DIVIDE:
            new *= by_column * reciprocal(row, height, RADIUS, CLIPPED)
        total = plus_products(total, new, pixel(planes + row * width, area, here, CHANNELS), CHANNELS)
    for row in range(first, tl.minimum(first + ROWS, height)):
        # All loads come first: the compiler moves none of them over a shuffle, of which cumsum is made.
        enter, leave = (row + RADIUS) * width, (row - RADIUS - 1) * width
        entering, leaving = here & (row + RADIUS < height), here & (row > RADIUS)
        new = tl.load(p + enter, mask=valid & entering, other=0.0).to(tl.float32)
        old = tl.load(p + leave, mask=valid & leaving, other=0.0).to(tl.float32)
        if DIVIDE:
            new *= by_column * reciprocal(row + RADIUS, height, RADIUS, CLIPPED)
            old *= by_column * reciprocal(row - RADIUS - 1, height, RADIUS, CLIPPED)
        total = plus_products(total, new, pixel(planes + enter, area, entering, CHANNELS), CHANNELS)
        total = plus_products(total, -old, pixel(planes + leave, area, leaving, CHANNELS), CHANNELS)
        store(sums + row * width, area, valid, _prefix_sums(total, CHANNELS + 1), CHANNELS + 1)


@triton.jit(do_not_specialize=["labels", "height", "width"])
def solve(
    sums, planes, slopes, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr,
):  # fmt: skip
    """Out of the prefix sums of p, I p those of b, a_0 .. a_C."""
    PLANES: tl.constexpr = planes_of(CHANNELS)
    first, column, here = tile(width, ROWS, COLUMNS, 0)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    area, valid = height.to(tl.int64) * width, (label < labels) & here
    image = tl.program_id(2).to(tl.int64)
    sums += (image * labels + label) * ((CHANNELS + 1) * area)
    slopes += (image * labels + label) * ((CHANNELS + 1) * area) + column
    planes += image * PLANES * area + column
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    places = ends(column, width, RADIUS, COLUMNS)
    for row in range(first, tl.minimum(first + ROWS, height)):
        n = by_column * reciprocal(row, height, RADIUS, CLIPPED)
        totals = _differences(sums + row * width, area, valid, places, CHANNELS + 1)
        window = factors(planes + row * width, area, here, CHANNELS)
        lines = line(totals, n, window, CHANNELS)
        store(slopes + row * width, area, valid, _prefix_sums(lines, CHANNELS + 1), CHANNELS + 1)


@triton.jit(do_not_specialize=["labels", "height", "width"])
def collect(
    slopes, planes, out, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """Sum of the windows' lines at every pixel, over the counts if DIVIDE; ``slopes`` are prefix sums of b and a."""
    PLANES: tl.constexpr = planes_of(CHANNELS)
    first, column, here = tile(width, ROWS, COLUMNS, 0)
    places = ends(column, width, RADIUS, COLUMNS)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    valid = (label < labels) & here  # [LABELS, COLUMNS]
    area, image = height.to(tl.int64) * width, tl.program_id(2).to(tl.int64)
    out += (image * labels + label) * area + column
    slopes += (image * labels + label) * ((CHANNELS + 1) * area)
    planes += image * PLANES * area + column
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    sums = (tl.zeros((LABELS, COLUMNS), tl.float32),) * (CHANNELS + 1)
    for row in range(tl.maximum(first - RADIUS - 1, 0), tl.minimum(first + RADIUS, height)):
        sums = plus(sums, _differences(slopes + row * width, area, valid, places, CHANNELS + 1), 1, CHANNELS + 1)
    for row in range(first, tl.minimum(first + ROWS, height)):
        enter, leave = slopes + (row + RADIUS) * width, slopes + (row - RADIUS - 1) * width
        entering, leaving = valid & (row + RADIUS < height), valid & (row > RADIUS)
        sums = plus(sums, _differences(enter, area, entering, places, CHANNELS + 1), 1, CHANNELS + 1)
        sums = plus(sums, _differences(leave, area, leaving, places, CHANNELS + 1), -1, CHANNELS + 1)
        colour = pixel(planes + row * width, area, here, CHANNELS)
        result = sums[0]
        for i in tl.static_range(CHANNELS):
            result += colour[i] * sums[i + 1]
        if DIVIDE:
            result *= by_column * reciprocal(row, height, RADIUS, CLIPPED)
        tl.store(out + row * width, result.to(out.dtype.element_ty), mask=valid)
