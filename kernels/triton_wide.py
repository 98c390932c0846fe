"""W p for wide windows, where strips would lose too many lanes: prefix sums in memory, and three kernels.

``prefix_sums`` has running sums down the rows, as narrow windows do, and stores their prefix sums along the row.
``solve`` takes differences of those and stores the prefix sums of a and b, and ``collect`` takes differences of these.
No lane is lost and the cost hardly depends on the radius, but nearly twice as many bytes move. On an H200 this was 2.4
times as fast as the other way with wider strips (19x256x512, radius 31), and half as fast at radius 3.
"""

import triton
import triton.language as tl

from .triton_solve import factors, line, means_at, planes_of, store, three
from .triton_windows import difference, ends, reciprocal, tile


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
    area, image = height * width, tl.program_id(2).to(tl.int64)
    p += (image * labels + label) * area + column
    sums += (image * labels + label) * ((CHANNELS + 1) * area) + column
    planes += image * PLANES * area + column
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    s = tl.zeros((LABELS, COLUMNS), tl.float32)
    s_0, s_1, s_2 = s, s, s
    for row in range(tl.maximum(first - RADIUS - 1, 0), tl.minimum(first + RADIUS, height)):
        new = tl.load(p + row * width, mask=valid, other=0.0).to(tl.float32)
        c_0, c_1, c_2 = three(planes + row * width, area, here, CHANNELS)
        if DIVIDE:
            new *= by_column * reciprocal(row, height, RADIUS, CLIPPED)
        s += new
        s_0 += new * c_0
        s_1 += new * c_1
        s_2 += new * c_2
    for row in range(first, tl.minimum(first + ROWS, height)):
        # All loads come first: the compiler moves none of them over a shuffle, of which cumsum is made.
        enter, leave = (row + RADIUS) * width, (row - RADIUS - 1) * width
        entering, leaving = here & (row + RADIUS < height), here & (row > RADIUS)
        new = tl.load(p + enter, mask=valid & entering, other=0.0).to(tl.float32)
        old = tl.load(p + leave, mask=valid & leaving, other=0.0).to(tl.float32)
        c_0, c_1, c_2 = three(planes + enter, area, entering, CHANNELS)
        o_0, o_1, o_2 = three(planes + leave, area, leaving, CHANNELS)
        if DIVIDE:
            new *= by_column * reciprocal(row + RADIUS, height, RADIUS, CLIPPED)
            old *= by_column * reciprocal(row - RADIUS - 1, height, RADIUS, CLIPPED)
        s += new - old
        s_0 += new * c_0 - old * o_0
        s_1 += new * c_1 - old * o_1
        s_2 += new * c_2 - old * o_2
        t, t_0, t_1, t_2 = tl.cumsum(s, 1), tl.cumsum(s_0, 1), tl.cumsum(s_1, 1), tl.cumsum(s_2, 1)
        store(sums + row * width, area, valid, t, t_0, t_1, t_2, CHANNELS)


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
    area, image, valid = height * width, tl.program_id(2).to(tl.int64), (label < labels) & here
    sums += (image * labels + label) * ((CHANNELS + 1) * area)
    slopes += (image * labels + label) * ((CHANNELS + 1) * area) + column
    means = planes + (image * PLANES * area + means_at(CHANNELS) * area + column)
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    places = ends(column, width, RADIUS, COLUMNS)
    for row in range(first, tl.minimum(first + ROWS, height)):
        n = by_column * reciprocal(row, height, RADIUS, CLIPPED)
        x = sums + row * width
        total = difference(x, valid, places) * n
        y_0 = difference(x + area, valid, places) * n
        y_1, y_2 = y_0, y_0
        if CHANNELS == 3:
            y_1 = difference(x + 2 * area, valid, places) * n
            y_2 = difference(x + 3 * area, valid, places) * n
        window = factors(means + row * width, area, here, CHANNELS)
        b, a_0, a_1, a_2 = line(total, y_0, y_1, y_2, window, CHANNELS)
        b, a_0, a_1, a_2 = tl.cumsum(b, 1), tl.cumsum(a_0, 1), tl.cumsum(a_1, 1), tl.cumsum(a_2, 1)
        store(slopes + row * width, area, valid, b, a_0, a_1, a_2, CHANNELS)


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
    area, image = height * width, tl.program_id(2).to(tl.int64)
    out += (image * labels + label) * area + column
    slopes += (image * labels + label) * ((CHANNELS + 1) * area)
    planes += image * PLANES * area + column
    by_column = reciprocal(column, width, RADIUS, CLIPPED)
    s = tl.zeros((LABELS, COLUMNS), tl.float32)
    s_0, s_1, s_2 = s, s, s
    for row in range(tl.maximum(first - RADIUS - 1, 0), tl.minimum(first + RADIUS, height)):
        x = slopes + row * width
        s += difference(x, valid, places)
        s_0 += difference(x + area, valid, places)
        if CHANNELS == 3:
            s_1 += difference(x + 2 * area, valid, places)
            s_2 += difference(x + 3 * area, valid, places)
    for row in range(first, tl.minimum(first + ROWS, height)):
        entering, leaving = row + RADIUS < height, row > RADIUS
        new, old = slopes + (row + RADIUS) * width, slopes + (row - RADIUS - 1) * width
        s += difference(new, valid & entering, places)
        s -= difference(old, valid & leaving, places)
        s_0 += difference(new + area, valid & entering, places)
        s_0 -= difference(old + area, valid & leaving, places)
        if CHANNELS == 3:
            s_1 += difference(new + 2 * area, valid & entering, places)
            s_1 -= difference(old + 2 * area, valid & leaving, places)
            s_2 += difference(new + 3 * area, valid & entering, places)
            s_2 -= difference(old + 3 * area, valid & leaving, places)
        c_0, c_1, c_2 = three(planes + row * width, area, here, CHANNELS)
        result = s + c_0 * s_0
        if CHANNELS == 3:
            result += c_1 * s_1 + c_2 * s_2
        if DIVIDE:
            result *= by_column * reciprocal(row, height, RADIUS, CLIPPED)
        tl.store(out + row * width, result.to(out.dtype.element_ty), mask=valid)
