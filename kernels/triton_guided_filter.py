r"""The guided filter in Triton: two kernels for W p (three for wide windows), and two for the moments of the guide.

``_slopes`` makes a and b of every window out of p, ``_collect`` sums them over the windows of every pixel. A program
takes a strip of columns, a lane each, and some labels, and goes down the rows with a running sum for every column (a
row enters, a row leaves), which starts afresh every few rows, so that no error travels. What lies side by side in a
row is summed by shuffles between the lanes of one warp, hence strips of 32 columns, of which 2 r are lost.

Above a radius of NARROW too many are lost. There, running sums are stored as prefix sums along the row, which start
afresh in every tile as wide as a window; the next kernel takes the difference of two of them wherever it wants, and the
cost hardly depends on the radius. One more kernel, ``_solve``, stands between the two, and nearly twice as many bytes
move. On an H200 the second way was 2.4 times as fast as the first with wider strips (19x256x512, radius 31), and half
as fast at radius 3.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .backend import on_its_gpu

LAUNCH = {"num_warps": 1, "enable_fp_fusion": True}
NARROW = tl.constexpr(7)  # the largest radius of windows that are summed by shuffles
FLAT = 32  # pixels of a program without windows
GUIDE_ROWS, SOLVE_ROWS = 8, 4  # rows of a program
PROGRAMS = 2000  # enough to keep a large GPU busy (an H200 has 132 multiprocessors)


@triton.jit
def _counts(index, size, RADIUS: tl.constexpr):
    """How many of the 2 RADIUS + 1 rows (or columns) around this one are in the image; at least 1, also outside it."""
    return tl.maximum(tl.minimum(index + RADIUS, size - 1) - tl.maximum(index - RADIUS, 0) + 1, 1)


@triton.jit
def _inverse(index, size, RADIUS: tl.constexpr, CLIPPED: tl.constexpr):
    """One over the rows (or columns) of the window: its part in 1 / n."""
    if CLIPPED:
        return 1.0 / (1.0 * _counts(index, size, RADIUS))
    return 1.0 / (2 * RADIUS + 1) + 0.0 * index


@triton.jit
def _shift(x, BY: tl.constexpr):
    index = tl.minimum(tl.arange(0, x.shape[1]) + BY, x.shape[1] - 1)
    return tl.gather(x, tl.broadcast_to(index[None, :], x.shape), axis=1)


@triton.jit
def _across(x, RADIUS: tl.constexpr):
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
def _tile(width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LOST: tl.constexpr):
    """First row of this program, its columns [1, COLUMNS], and which of them it is to write."""
    USEFUL: tl.constexpr = COLUMNS - LOST
    strips = tl.cdiv(width, USEFUL)
    index = tl.arange(0, COLUMNS)[None, :]
    column = tl.program_id(0) % strips * USEFUL + index
    return tl.program_id(0) // strips * ROWS, column, (index < USEFUL) & (column < width)


@triton.jit
def _ends(column, width, RADIUS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where the prefix sums stand whose difference is the window's: its last column, the one before its first, and the
    end of the tile before the last one's, if the window reaches over it; and whether the latter two count."""
    high, low = tl.minimum(column + RADIUS, width - 1), column - RADIUS - 1
    middle = high // COLUMNS * COLUMNS - 1
    return high, low, middle, low >= 0, (low >= 0) & (middle >= low)


@triton.jit
def _difference(x, valid, ends):
    high, low, middle, has_low, has_middle = ends
    value = tl.load(x + high, mask=valid, other=0.0) - tl.load(x + low, mask=valid & has_low, other=0.0)
    return value + tl.load(x + middle, mask=valid & has_middle, other=0.0)


@triton.jit
def _product(first, second, valid, PRODUCTS: tl.constexpr):
    value = tl.load(first, mask=valid, other=0.0).to(tl.float64)
    if PRODUCTS:
        value *= tl.load(second, mask=valid, other=0.0)
    return value


@triton.jit(do_not_specialize=["height", "width"])
def _guide_sums(
    planes, sums, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRODUCTS: tl.constexpr,
):  # fmt: skip
    """Sums over the rows of the windows, as float64 prefix sums along each tile, of one colour, or of the product of
    two: pairs (0, 0), (1, 0), (1, 1), (2, 0) ..."""
    begin, column, inside = _tile(width, ROWS, COLUMNS, 0)
    area, image, which = height * width, tl.program_id(2).to(tl.int64), tl.program_id(1)
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    planes += image * (2 * CHANNELS + PAIRS) * area + column
    sums += (image * (CHANNELS + PAIRS) + which) * area + column
    if PRODUCTS:
        one = (which >= 1).to(tl.int32) + (which >= 3).to(tl.int32)
        first, second = planes + one * area, planes + (which - one * (one + 1) // 2) * area
        sums += CHANNELS * area
    else:
        first, second = planes + which * area, planes
    total = tl.zeros((1, COLUMNS), tl.float64)
    for row in range(tl.maximum(begin - RADIUS - 1, 0), tl.minimum(begin + RADIUS, height)):
        total += _product(first + row * width, second + row * width, inside, PRODUCTS)
    for row in range(begin, tl.minimum(begin + ROWS, height)):
        enter, leave = (row + RADIUS) * width, (row - RADIUS - 1) * width
        total += _product(first + enter, second + enter, inside & (row + RADIUS < height), PRODUCTS)
        total -= _product(first + leave, second + leave, inside & (row > RADIUS), PRODUCTS)
        tl.store(sums + row * width, tl.cumsum(total, axis=1), mask=inside)


@triton.jit(do_not_specialize=["height", "width"])
def _factorise(
    planes, sums, eps, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, COLUMNS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Means, L and 1 / D into the planes that follow the colours (see PreparedGuide)."""
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    area, image = height * width, tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    valid, row, column = pixel < area, pixel // width, pixel % width
    sums += image * (CHANNELS + PAIRS) * area + row * width
    planes += image * (2 * CHANNELS + PAIRS) * area + CHANNELS * area + pixel
    products, factors = sums + CHANNELS * area, planes + CHANNELS * area
    ends = _ends(column, width, RADIUS, COLUMNS)
    n = (_counts(row, height, RADIUS) * _counts(column, width, RADIUS)).to(tl.float64)
    m_0 = _difference(sums, valid, ends) / n
    v_00 = _difference(products, valid, ends) / n - m_0 * m_0
    d_0 = tl.maximum(v_00, 0.0) + eps
    tl.store(planes, m_0.to(tl.float32), mask=valid)
    if CHANNELS == 1:
        tl.store(factors, (1.0 / d_0).to(tl.float32), mask=valid)
    else:
        m_1 = _difference(sums + area, valid, ends) / n
        m_2 = _difference(sums + 2 * area, valid, ends) / n
        v_10 = _difference(products + area, valid, ends) / n - m_1 * m_0
        v_11 = _difference(products + 2 * area, valid, ends) / n - m_1 * m_1
        v_20 = _difference(products + 3 * area, valid, ends) / n - m_2 * m_0
        v_21 = _difference(products + 4 * area, valid, ends) / n - m_2 * m_1
        v_22 = _difference(products + 5 * area, valid, ends) / n - m_2 * m_2
        l_10, l_20 = v_10 / d_0, v_20 / d_0
        d_1 = tl.maximum(v_11 - l_10 * v_10, 0.0) + eps
        l_21 = (v_21 - l_20 * v_10) / d_1
        d_2 = tl.maximum(v_22 - l_20 * v_20 - l_21 * l_21 * d_1, 0.0) + eps
        tl.store(planes + area, m_1.to(tl.float32), mask=valid)
        tl.store(planes + 2 * area, m_2.to(tl.float32), mask=valid)
        tl.store(factors, l_10.to(tl.float32), mask=valid)
        tl.store(factors + area, l_20.to(tl.float32), mask=valid)
        tl.store(factors + 2 * area, l_21.to(tl.float32), mask=valid)
        tl.store(factors + 3 * area, (1.0 / d_0).to(tl.float32), mask=valid)
        tl.store(factors + 4 * area, (1.0 / d_1).to(tl.float32), mask=valid)
        tl.store(factors + 5 * area, (1.0 / d_2).to(tl.float32), mask=valid)


@triton.jit
def _three(plane, area, valid, CHANNELS: tl.constexpr):
    """A pixel of three planes; of a grey guide only the first counts."""
    first = tl.load(plane, mask=valid, other=0.0)
    if CHANNELS == 1:
        return first, first, first
    return first, tl.load(plane + area, mask=valid, other=0.0), tl.load(plane + 2 * area, mask=valid, other=0.0)


@triton.jit
def _factors(means, area, valid, CHANNELS: tl.constexpr):
    """Means, L and 1 / D of windows; of a grey guide the first mean counts, and 1 / D in the place of L."""
    found = _three(means, area, valid, CHANNELS) + _three(means + CHANNELS * area, area, valid, CHANNELS)
    return found + _three(means + (3 * CHANNELS - 3) * area, area, valid, CHANNELS)


@triton.jit
def _line(total, y_0, y_1, y_2, factors, CHANNELS: tl.constexpr):
    """b and a of windows, out of their means of p and of I p."""
    m_0, m_1, m_2, l_10, l_20, l_21, d_0, d_1, d_2 = factors
    y_0 -= m_0 * total
    if CHANNELS == 1:
        a_0 = y_0 * l_10  # the only factor
        return total - a_0 * m_0, a_0, a_0, a_0
    y_1 -= m_1 * total + l_10 * y_0
    y_2 -= m_2 * total + l_20 * y_0 + l_21 * y_1
    a_2 = y_2 * d_2
    a_1 = y_1 * d_1 - l_21 * a_2
    a_0 = y_0 * d_0 - l_10 * a_1 - l_20 * a_2
    return total - a_0 * m_0 - a_1 * m_1 - a_2 * m_2, a_0, a_1, a_2


@triton.jit
def _store(slope, area, valid, b, a_0, a_1, a_2, CHANNELS: tl.constexpr):
    tl.store(slope, b, mask=valid)
    tl.store(slope + area, a_0, mask=valid)
    if CHANNELS == 3:
        tl.store(slope + 2 * area, a_1, mask=valid)
        tl.store(slope + 3 * area, a_2, mask=valid)


@triton.jit(do_not_specialize=["labels", "height", "width"])
def _slopes(
    p, planes, slopes, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """a and b of every window: the planes b, a_0 .. a_C of each label. With a wide window the prefix sums of p, I p."""
    LEFT: tl.constexpr = RADIUS if RADIUS <= NARROW else 0
    first, column, here = _tile(width, ROWS, COLUMNS, 2 * LEFT)
    source = column - LEFT  # what a lane reads; what it writes stands at its column
    inside = (source >= 0) & (source < width)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    valid = (label < labels) & inside  # [LABELS, COLUMNS]
    area, image = height * width, tl.program_id(2).to(tl.int64)
    p += (image * labels + label) * area + source
    slopes += (image * labels + label) * ((CHANNELS + 1) * area) + column
    planes += image * (2 * CHANNELS + CHANNELS * (CHANNELS + 1) // 2) * area
    colours, means = planes + source, planes + CHANNELS * area + column
    across = _inverse(column, width, RADIUS, CLIPPED)
    across_source = _inverse(source, width, RADIUS, CLIPPED)
    s = tl.zeros((LABELS, COLUMNS), tl.float32)
    s_0, s_1, s_2 = s, s, s
    for row in range(tl.maximum(first - RADIUS - 1, 0), tl.minimum(first + RADIUS, height)):
        new = tl.load(p + row * width, mask=valid, other=0.0).to(tl.float32)
        c_0, c_1, c_2 = _three(colours + row * width, area, inside, CHANNELS)
        if DIVIDE:
            new *= across_source * _inverse(row, height, RADIUS, CLIPPED)
        s += new
        s_0 += new * c_0
        s_1 += new * c_1
        s_2 += new * c_2
    for row in range(first, tl.minimum(first + ROWS, height)):
        # All loads come first: the compiler moves none of them over a shuffle.
        enter, leave = (row + RADIUS) * width, (row - RADIUS - 1) * width
        entering, leaving = inside & (row + RADIUS < height), inside & (row > RADIUS)
        new = tl.load(p + enter, mask=valid & entering, other=0.0).to(tl.float32)
        old = tl.load(p + leave, mask=valid & leaving, other=0.0).to(tl.float32)
        c_0, c_1, c_2 = _three(colours + enter, area, entering, CHANNELS)
        o_0, o_1, o_2 = _three(colours + leave, area, leaving, CHANNELS)
        if RADIUS <= NARROW:
            factors = _factors(means + row * width, area, here, CHANNELS)
        if DIVIDE:
            new *= across_source * _inverse(row + RADIUS, height, RADIUS, CLIPPED)
            old *= across_source * _inverse(row - RADIUS - 1, height, RADIUS, CLIPPED)
        s += new - old
        s_0 += new * c_0 - old * o_0
        s_1 += new * c_1 - old * o_1
        s_2 += new * c_2 - old * o_2
        if RADIUS > NARROW:
            b, a_0, a_1, a_2 = tl.cumsum(s, 1), tl.cumsum(s_0, 1), tl.cumsum(s_1, 1), tl.cumsum(s_2, 1)
        else:
            n = across * _inverse(row, height, RADIUS, CLIPPED)
            y_0, y_1, y_2 = _across(s_0, RADIUS) * n, _across(s_1, RADIUS) * n, _across(s_2, RADIUS) * n
            b, a_0, a_1, a_2 = _line(_across(s, RADIUS) * n, y_0, y_1, y_2, factors, CHANNELS)
        _store(slopes + row * width, area, (label < labels) & here, b, a_0, a_1, a_2, CHANNELS)


@triton.jit(do_not_specialize=["labels", "height", "width"])
def _solve(
    sums, planes, slopes, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr,
):  # fmt: skip
    """Wide windows: out of the prefix sums of p, I p those of b, a_0 .. a_C."""
    first, column, here = _tile(width, ROWS, COLUMNS, 0)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    area, image, valid = height * width, tl.program_id(2).to(tl.int64), (label < labels) & here
    sums += (image * labels + label) * ((CHANNELS + 1) * area)
    slopes += (image * labels + label) * ((CHANNELS + 1) * area) + column
    planes += image * (2 * CHANNELS + CHANNELS * (CHANNELS + 1) // 2) * area + CHANNELS * area + column
    across = _inverse(column, width, RADIUS, CLIPPED)
    ends = _ends(column, width, RADIUS, COLUMNS)
    for row in range(first, tl.minimum(first + ROWS, height)):
        n = across * _inverse(row, height, RADIUS, CLIPPED)
        x = sums + row * width
        total = _difference(x, valid, ends) * n
        y_0 = _difference(x + area, valid, ends) * n
        y_1, y_2 = y_0, y_0
        if CHANNELS == 3:
            y_1 = _difference(x + 2 * area, valid, ends) * n
            y_2 = _difference(x + 3 * area, valid, ends) * n
        factors = _factors(planes + row * width, area, here, CHANNELS)
        b, a_0, a_1, a_2 = _line(total, y_0, y_1, y_2, factors, CHANNELS)
        b, a_0, a_1, a_2 = tl.cumsum(b, 1), tl.cumsum(a_0, 1), tl.cumsum(a_1, 1), tl.cumsum(a_2, 1)
        _store(slopes + row * width, area, valid, b, a_0, a_1, a_2, CHANNELS)


@triton.jit
def _row(x, counts, valid, source, ends, RADIUS: tl.constexpr):
    """A row of slopes, if it counts; of a wide window its sums along the row."""
    if RADIUS > NARROW:
        return _difference(x, valid & counts, ends)
    return tl.load(x + source, mask=valid & counts, other=0.0)


@triton.jit(do_not_specialize=["labels", "height", "width"])
def _collect(
    slopes, planes, out, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LABELS: tl.constexpr,
    CLIPPED: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """Sum of the windows' lines at every pixel, over the counts if DIVIDE (or always, when they are constant)."""
    LEFT: tl.constexpr = RADIUS if RADIUS <= NARROW else 0
    first, column, here = _tile(width, ROWS, COLUMNS, 2 * LEFT)
    ends = _ends(column, width, RADIUS, COLUMNS)
    source = column - LEFT
    inside = (source >= 0) & (source < width)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)[:, None]
    valid = (label < labels) & inside  # [LABELS, COLUMNS]
    area, image = height * width, tl.program_id(2).to(tl.int64)
    out += (image * labels + label) * area + column
    slopes += (image * labels + label) * ((CHANNELS + 1) * area)
    planes += image * (2 * CHANNELS + CHANNELS * (CHANNELS + 1) // 2) * area + column
    across = _inverse(column, width, RADIUS, CLIPPED)
    s = tl.zeros((LABELS, COLUMNS), tl.float32)
    s_0, s_1, s_2 = s, s, s
    for row in range(tl.maximum(first - RADIUS - 1, 0), tl.minimum(first + RADIUS, height)):
        x = slopes + row * width
        s += _row(x, True, valid, source, ends, RADIUS)
        s_0 += _row(x + area, True, valid, source, ends, RADIUS)
        if CHANNELS == 3:
            s_1 += _row(x + 2 * area, True, valid, source, ends, RADIUS)
            s_2 += _row(x + 3 * area, True, valid, source, ends, RADIUS)
    for row in range(first, tl.minimum(first + ROWS, height)):
        entering, leaving = row + RADIUS < height, row > RADIUS
        new, old = slopes + (row + RADIUS) * width, slopes + (row - RADIUS - 1) * width
        s += _row(new, entering, valid, source, ends, RADIUS)
        s -= _row(old, leaving, valid, source, ends, RADIUS)
        s_0 += _row(new + area, entering, valid, source, ends, RADIUS)
        s_0 -= _row(old + area, leaving, valid, source, ends, RADIUS)
        if CHANNELS == 3:
            s_1 += _row(new + 2 * area, entering, valid, source, ends, RADIUS)
            s_1 -= _row(old + 2 * area, leaving, valid, source, ends, RADIUS)
            s_2 += _row(new + 3 * area, entering, valid, source, ends, RADIUS)
            s_2 -= _row(old + 3 * area, leaving, valid, source, ends, RADIUS)
        c_0, c_1, c_2 = _three(planes + row * width, area, here, CHANNELS)
        if RADIUS > NARROW:
            result = s + c_0 * s_0
            if CHANNELS == 3:
                result += c_1 * s_1 + c_2 * s_2
        else:
            result = _across(s, RADIUS) + c_0 * _across(s_0, RADIUS)
            if CHANNELS == 3:
                result += c_1 * _across(s_1, RADIUS) + c_2 * _across(s_2, RADIUS)
        if DIVIDE:
            result *= across * _inverse(row, height, RADIUS, CLIPPED)
        tl.store(out + row * width, result.to(out.dtype.element_ty), mask=(label < labels) & here)


def columns_of_tile(radius: int) -> int:
    """A lane each, or at least one window (see ``_ends``)."""
    return 32 if radius <= NARROW.value else triton.next_power_of_2(2 * radius + 1)


def reach(radius: int, height: int, width: int) -> int:
    """The radius, or one that covers the whole image already; a power of 2, that few sizes need their own kernels."""
    return min(radius, triton.next_power_of_2(max(height, width)))


def tiling(images: int, labels: int, height: int, width: int, radius: int) -> tuple[tuple[int, ...], dict[str, int]]:
    """Grid and sizes of ``_slopes`` and ``_collect``.

    Many rows a program spare the rows that its sums begin with, and several labels a program share what it reads of
    the guide; but first of all there must be programs enough. Wide tiles leave no registers for a second label.
    """
    columns, wide = columns_of_tile(radius), radius > NARROW.value
    strips = triton.cdiv(width, columns if wide else columns - 2 * radius)
    for rows, group in ((16, 1), (8, 1)) if wide else ((32, 2), (16, 2), (8, 2), (8, 1), (4, 1)):
        group = min(group, triton.next_power_of_2(labels))
        grid = (triton.cdiv(height, rows) * strips, triton.cdiv(labels, group), images)
        if grid[0] * grid[1] * grid[2] >= PROGRAMS:
            break
    return grid, {"RADIUS": radius, "ROWS": rows, "COLUMNS": columns, "LABELS": group}


@on_its_gpu
def moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes of a PreparedGuide, float32."""
    images, channels, height, width = guide.shape
    guide, radius = guide.float(), reach(radius, height, width)
    planes = guide.new_empty((images, 12 if channels == 3 else 3, height, width))
    torch.sub(guide, guide.mean(dim=(2, 3), keepdim=True), out=planes[:, :channels])
    columns, pairs = columns_of_tile(radius), channels * (channels + 1) // 2
    sums = guide.new_empty((images, channels + pairs, height, width), dtype=torch.float64)
    if images:
        tiles = triton.cdiv(height, GUIDE_ROWS) * triton.cdiv(width, columns)
        for count, products in ((channels, False), (pairs, True)):
            options = (channels, radius, GUIDE_ROWS, columns, products)
            _guide_sums[(tiles, count, images)](planes, sums, height, width, *options, **LAUNCH)
        grid = (triton.cdiv(height * width, FLAT), images)
        _factorise[grid](planes, sums, eps, height, width, channels, radius, columns, FLAT, **LAUNCH)
    return planes


@on_its_gpu
def filter_planes(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """W p, or W^T p, in the dtype of p."""
    p = p.contiguous()
    images, labels, height, width = p.shape
    channels, clipped = 3 if planes.shape[1] == 12 else 1, border == "clipped"
    full, radius = radius, reach(radius, height, width)
    out = torch.empty_like(p)
    slopes = planes.new_empty((images, labels, channels + 1, height, width))
    sizes = (labels, height, width, channels)
    if images:
        grid, tile = tiling(images, labels, height, width, radius)
        _slopes[grid](p, planes, slopes, *sizes, **tile, CLIPPED=clipped, DIVIDE=clipped and adjoint, **LAUNCH)
        if radius > NARROW.value:
            sums, slopes = slopes, torch.empty_like(slopes)
            rows = tile | {"ROWS": SOLVE_ROWS}
            lines = (triton.cdiv(height, SOLVE_ROWS) * triton.cdiv(width, tile["COLUMNS"]), *grid[1:])
            _solve[lines](sums, planes, slopes, *sizes, **rows, CLIPPED=clipped, **LAUNCH)
        divide = not (clipped and adjoint)
        _collect[grid](slopes, planes, out, *sizes, **tile, CLIPPED=clipped, DIVIDE=divide, **LAUNCH)
    if radius < full and not clipped:
        out *= ((2 * radius + 1) / (2 * full + 1)) ** 4  # divided twice by the area of the window
    return out
