r"""The guided filter in Triton: two kernels for W p, one for the moments of the guide.

``_slopes`` makes a and b of every window out of p (reads 1 plane a label, writes 4), ``_collect`` sums them over the
windows of every pixel (reads 4, writes 1). Both are one tile of box sums: down the rows a running sum that every tile
starts afresh, so that no error travels; along the row the doubling of ``flat_planes.window_sum``. No cost but the
halo grows with the radius. Nothing here is tuned on a GPU yet.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LAUNCH = {"num_warps": 8, "enable_fp_fusion": True}
TILE = 1024  # pixels: 4 values of one tile in each of 256 threads; twice as many spill
FLAT = 256  # pixels of a program without windows


@triton.jit
def _counts(rows, columns, height, width, RADIUS: tl.constexpr, CLIPPED: tl.constexpr):
    """The divisors n of the windows at these pixels; at least 1, also outside the image."""
    if CLIPPED:
        down = tl.minimum(rows + RADIUS, height - 1) - tl.maximum(rows - RADIUS, 0) + 1
        across = tl.minimum(columns + RADIUS, width - 1) - tl.maximum(columns - RADIUS, 0) + 1
        return tl.maximum(down * across, 1)
    return (2 * RADIUS + 1) * (2 * RADIUS + 1) + 0 * (rows + columns)


@triton.jit
def _load(plane, factor, rows, columns, height, width, FACTOR: tl.constexpr, TYPE: tl.constexpr):
    """Pixels of a plane, times those of a second one if FACTOR; 0 outside the image."""
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    value = tl.load(plane + rows * width + columns, mask=inside, other=0.0).to(TYPE)
    if FACTOR:
        value *= tl.load(factor + rows * width + columns, mask=inside, other=0.0).to(TYPE)
    return value


@triton.jit
def _load_input(
    plane, factor, rows, columns, height, width, RADIUS: tl.constexpr, MODE: tl.constexpr, TYPE: tl.constexpr
):
    """MODE bit 0: times the factor; bit 1: over the clipped counts (the adjoint)."""
    value = _load(plane, factor, rows, columns, height, width, MODE % 2 == 1, TYPE)
    if MODE >= 2:
        value /= _counts(rows, columns, height, width, RADIUS, True).to(TYPE)
    return value


@triton.jit
def _window_sum(x, SIZE: tl.constexpr):
    """Sums of SIZE columns from the own one on; what the last SIZE - 1 columns hold means nothing."""
    total = tl.zeros_like(x)
    for bit in tl.static_range(16):
        if (SIZE >> bit) % 2 == 1:
            total += _shift(x, SIZE % (1 << bit))
        if (SIZE >> bit) > 1:
            x += _shift(x, 1 << bit)
    return total


@triton.jit
def _shift(x, BY: tl.constexpr):
    index = tl.minimum(tl.arange(0, x.shape[1]) + BY, x.shape[1] - 1)
    return tl.gather(x, tl.broadcast_to(index[None, :], x.shape), axis=1)


@triton.jit
def _box_sum(
    plane, factor, row0, column0, height, width,
    RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, MODE: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Window sums [ROWS, COLUMNS] of the pixels from (row0, column0) on; the last 2 RADIUS columns mean nothing."""
    columns = column0 - RADIUS + tl.arange(0, COLUMNS)
    first = tl.zeros((COLUMNS,), TYPE)
    for row in range(row0 - RADIUS, row0 + RADIUS + 1):
        first += _load_input(plane, factor, row, columns, height, width, RADIUS, MODE, TYPE)
    rows = row0 + tl.arange(0, ROWS)[:, None]
    entering = _load_input(plane, factor, rows + RADIUS, columns[None, :], height, width, RADIUS, MODE, TYPE)
    leaving = _load_input(plane, factor, rows - 1 - RADIUS, columns[None, :], height, width, RADIUS, MODE, TYPE)
    step = tl.where(rows > row0, entering - leaving, 0.0)
    return _window_sum(first[None, :] + tl.cumsum(step, axis=0), 2 * RADIUS + 1)


@triton.jit
def _tile(height, width, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """First pixel of this program's tile, its rows [ROWS, 1] and columns [1, COLUMNS], and which of them count."""
    USEFUL: tl.constexpr = COLUMNS - 2 * RADIUS
    across = tl.cdiv(width, USEFUL)
    row0 = tl.program_id(0) // across * ROWS
    column0 = tl.program_id(0) % across * USEFUL
    index = tl.arange(0, COLUMNS)[None, :]
    rows, columns = row0 + tl.arange(0, ROWS)[:, None], column0 + index
    return row0, column0, rows, columns, (index < USEFUL) & (rows < height) & (columns < width)


@triton.jit
def _guide_means(
    planes, means, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRODUCTS: tl.constexpr,
):  # fmt: skip
    """Window means, in float64, of one colour, or of the product of two: pairs (0, 0), (1, 0), (1, 1), (2, 0) ..."""
    row0, column0, rows, columns, valid = _tile(height, width, RADIUS, ROWS, COLUMNS)
    area, image, which = height * width, tl.program_id(2).to(tl.int64), tl.program_id(1)
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    planes += image * (2 * CHANNELS + PAIRS) * area
    means += (image * (CHANNELS + PAIRS) + which) * area
    if PRODUCTS:
        first = (which >= 1).to(tl.int32) + (which >= 3).to(tl.int32)
        second = which - first * (first + 1) // 2
        means += CHANNELS * area
    else:
        first = which
        second = which
    total = _box_sum(
        planes + first * area, planes + second * area, row0, column0, height, width,
        RADIUS, ROWS, COLUMNS, PRODUCTS, tl.float64)  # fmt: skip
    total /= _counts(rows, columns, height, width, RADIUS, True).to(tl.float64)
    tl.store(means + rows * width + columns, total, mask=valid)


@triton.jit
def _factorise(planes, means, eps, area, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """Means, L and 1 / D into the planes that follow the colours (see PreparedGuide)."""
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    pixel, image = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.program_id(1).to(tl.int64)
    valid = pixel < area
    means += image * (CHANNELS + PAIRS) * area + pixel
    planes += image * (2 * CHANNELS + PAIRS) * area + CHANNELS * area + pixel
    products, factors = means + CHANNELS * area, planes + CHANNELS * area
    m_0 = tl.load(means, mask=valid, other=0.0)
    d_0 = tl.maximum(tl.load(products, mask=valid, other=0.0) - m_0 * m_0, 0.0) + eps
    tl.store(planes, m_0.to(tl.float32), mask=valid)
    if CHANNELS == 1:
        tl.store(factors, (1.0 / d_0).to(tl.float32), mask=valid)
    else:
        m_1 = tl.load(means + area, mask=valid, other=0.0)
        m_2 = tl.load(means + 2 * area, mask=valid, other=0.0)
        v_10 = tl.load(products + area, mask=valid, other=0.0) - m_1 * m_0
        v_11 = tl.load(products + 2 * area, mask=valid, other=0.0) - m_1 * m_1
        v_20 = tl.load(products + 3 * area, mask=valid, other=0.0) - m_2 * m_0
        v_21 = tl.load(products + 4 * area, mask=valid, other=0.0) - m_2 * m_1
        v_22 = tl.load(products + 5 * area, mask=valid, other=0.0) - m_2 * m_2
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
def _slopes(
    p, planes, slopes, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CLIPPED: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """a and b of every window: the planes a_0 .. a_C, b of each label."""
    row0, column0, rows, columns, valid = _tile(height, width, RADIUS, ROWS, COLUMNS)
    area, image = height * width, tl.program_id(2).to(tl.int64)
    plane = image * labels + tl.program_id(1)
    p += plane * area
    planes += image * (2 * CHANNELS + CHANNELS * (CHANNELS + 1) // 2) * area
    here, out = planes + rows * width + columns, slopes + plane * (CHANNELS + 1) * area + rows * width + columns
    means, factors = here + CHANNELS * area, here + 2 * CHANNELS * area
    inverse = 1.0 / _counts(rows, columns, height, width, RADIUS, CLIPPED).to(tl.float32)
    PLAIN: tl.constexpr = 2 * DIVIDE
    PRODUCT: tl.constexpr = 2 * DIVIDE + 1
    total = _box_sum(p, p, row0, column0, height, width, RADIUS, ROWS, COLUMNS, PLAIN, tl.float32)
    mean_0 = tl.load(means, mask=valid, other=0.0)
    y_0 = _box_sum(p, planes, row0, column0, height, width, RADIUS, ROWS, COLUMNS, PRODUCT, tl.float32)
    y_0 -= mean_0 * total
    b = inverse * total
    if CHANNELS == 1:
        a_0 = y_0 * inverse * tl.load(factors, mask=valid, other=0.0)
    else:
        mean_1, mean_2 = tl.load(means + area, mask=valid, other=0.0), tl.load(means + 2 * area, mask=valid, other=0.0)
        l_10, l_20 = tl.load(factors, mask=valid, other=0.0), tl.load(factors + area, mask=valid, other=0.0)
        l_21 = tl.load(factors + 2 * area, mask=valid, other=0.0)
        one, two = planes + area, planes + 2 * area
        y_1 = _box_sum(p, one, row0, column0, height, width, RADIUS, ROWS, COLUMNS, PRODUCT, tl.float32)
        y_1 -= mean_1 * total + l_10 * y_0
        y_2 = _box_sum(p, two, row0, column0, height, width, RADIUS, ROWS, COLUMNS, PRODUCT, tl.float32)
        y_2 -= mean_2 * total + l_20 * y_0 + l_21 * y_1
        a_2 = y_2 * inverse * tl.load(factors + 5 * area, mask=valid, other=0.0)
        a_1 = y_1 * inverse * tl.load(factors + 4 * area, mask=valid, other=0.0) - l_21 * a_2
        a_0 = y_0 * inverse * tl.load(factors + 3 * area, mask=valid, other=0.0) - l_10 * a_1 - l_20 * a_2
        b -= a_1 * mean_1 + a_2 * mean_2
        tl.store(out + area, a_1, mask=valid)
        tl.store(out + 2 * area, a_2, mask=valid)
    tl.store(out, a_0, mask=valid)
    tl.store(out + CHANNELS * area, b - a_0 * mean_0, mask=valid)


@triton.jit
def _collect(
    slopes, planes, out, labels, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CLIPPED: tl.constexpr, DIVIDE: tl.constexpr,
):  # fmt: skip
    """Sum of the windows' lines at every pixel, over the counts if DIVIDE (or always, when they are constant)."""
    row0, column0, rows, columns, valid = _tile(height, width, RADIUS, ROWS, COLUMNS)
    area, image = height * width, tl.program_id(2).to(tl.int64)
    plane = image * labels + tl.program_id(1)
    slopes += plane * (CHANNELS + 1) * area
    here = planes + image * (2 * CHANNELS + CHANNELS * (CHANNELS + 1) // 2) * area + rows * width + columns
    offset = slopes + CHANNELS * area
    result = _box_sum(offset, offset, row0, column0, height, width, RADIUS, ROWS, COLUMNS, 0, tl.float32)
    for c in tl.static_range(CHANNELS):
        slope = slopes + c * area
        line = _box_sum(slope, slope, row0, column0, height, width, RADIUS, ROWS, COLUMNS, 0, tl.float32)
        result += line * tl.load(here + c * area, mask=valid, other=0.0)
    if DIVIDE:
        result /= _counts(rows, columns, height, width, RADIUS, CLIPPED).to(tl.float32)
    tl.store(out + plane * area + rows * width + columns, result.to(out.dtype.element_ty), mask=valid)


def tiling(height: int, width: int, radius: int) -> tuple[int, int, int]:
    """Rows and columns of a tile (half of the columns or more are useful), and the number of tiles.

    Every doubling of the radius adds shifts whose indices occupy registers: full tiles spill from about 31 on.
    """
    columns = max(128, triton.next_power_of_2(4 * radius))
    rows = max(1, (TILE >> (radius // 16).bit_length()) // columns)
    return rows, columns, triton.cdiv(height, rows) * triton.cdiv(width, columns - 2 * radius)


def moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes of a PreparedGuide, float32."""
    images, channels, height, width = guide.shape
    guide = guide.float()
    planes = guide.new_empty((images, 12 if channels == 3 else 3, height, width))
    torch.sub(guide, guide.mean(dim=(2, 3), keepdim=True), out=planes[:, :channels])
    rows, columns, tiles = tiling(height, width, radius)
    pairs = channels * (channels + 1) // 2
    means = guide.new_empty((images, channels + pairs, height, width), dtype=torch.float64)
    if images:
        for count, products in ((channels, False), (pairs, True)):
            options = (channels, radius, rows, columns, products)
            _guide_means[(tiles, count, images)](planes, means, height, width, *options, **LAUNCH)
        grid = (triton.cdiv(height * width, FLAT), images)
        _factorise[grid](planes, means, eps, height * width, channels, FLAT, **LAUNCH)
    return planes


def filter_planes(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """W p, or W^T p, in the dtype of p."""
    p = p.contiguous()
    images, labels, height, width = p.shape
    channels, clipped = 3 if planes.shape[1] == 12 else 1, border == "clipped"
    out = torch.empty_like(p)
    slopes = planes.new_empty((images, labels, channels + 1, height, width))
    rows, columns, tiles = tiling(height, width, radius)
    grid, sizes = (tiles, labels, images), (labels, height, width, channels, radius, rows, columns, clipped)
    if images:
        _slopes[grid](p, planes, slopes, *sizes, clipped and adjoint, **LAUNCH)
        _collect[grid](slopes, planes, out, *sizes, not (clipped and adjoint), **LAUNCH)
    return out
