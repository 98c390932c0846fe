"""The guide's part of the filter in Triton: window means, and L D L^T of the covariances, in two kernels.

All sums are float64: a covariance is a small difference of large numbers, and every label depends on it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import guide_planes
from .backend import on_its_gpu
from .triton_solve import inverse_at, lower_at, means_at, planes_of
from .triton_windows import LAUNCH, columns_of_tile, counts, difference, ends, reach, tile

PIXELS = 32  # of a program of ``factorise``
ROWS = 8  # of a program of ``guide_sums``


@triton.jit
def _product(first, second, valid, PRODUCTS: tl.constexpr):
    value = tl.load(first, mask=valid, other=0.0).to(tl.float64)
    if PRODUCTS:
        value *= tl.load(second, mask=valid, other=0.0)
    return value


@triton.jit(do_not_specialize=["height", "width"])
def guide_sums(
    planes, sums, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRODUCTS: tl.constexpr,
):  # fmt: skip
    """Sums over the rows of the windows, as prefix sums along each tile, of one colour, or of the product of two.

    ``sums`` has the colours first, then the pairs (0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2).
    """
    begin, column, inside = tile(width, ROWS, COLUMNS, 0)
    area, image, which = height * width, tl.program_id(2).to(tl.int64), tl.program_id(1)
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    PLANES: tl.constexpr = planes_of(CHANNELS)
    planes += image * PLANES * area + column
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
def factorise(
    planes, sums, eps, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, COLUMNS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Means, L and 1 / D into the planes that follow the colours.

    With v the covariances, D_0 = v_00 + eps, L_10 = v_10 / D_0, L_20 = v_20 / D_0, D_1 = v_11 + eps - L_10 v_10,
    L_21 = (v_21 - L_20 v_10) / D_1, and D_2 = v_22 + eps - L_20 v_20 - L_21 L_21 D_1.
    """
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    PLANES: tl.constexpr = planes_of(CHANNELS)
    INVERSE: tl.constexpr = inverse_at(CHANNELS) - lower_at(CHANNELS)
    area, image = height * width, tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    valid, row, column = pixel < area, pixel // width, pixel % width
    sums += image * (CHANNELS + PAIRS) * area + row * width
    means = planes + (image * PLANES * area + means_at(CHANNELS) * area + pixel)
    products, lower = sums + CHANNELS * area, means + (lower_at(CHANNELS) - means_at(CHANNELS)) * area
    places = ends(column, width, RADIUS, COLUMNS)
    n = (counts(row, height, RADIUS) * counts(column, width, RADIUS)).to(tl.float64)
    m_0 = difference(sums, valid, places) / n
    v_00 = difference(products, valid, places) / n - m_0 * m_0
    # What remains of a variance is at least 0, but rounding may have left a flat window less.
    d_0 = tl.maximum(v_00, 0.0) + eps
    tl.store(means, m_0.to(tl.float32), mask=valid)
    if CHANNELS == 1:
        tl.store(lower + INVERSE * area, (1.0 / d_0).to(tl.float32), mask=valid)
    else:
        m_1 = difference(sums + area, valid, places) / n
        m_2 = difference(sums + 2 * area, valid, places) / n
        v_10 = difference(products + area, valid, places) / n - m_1 * m_0
        v_11 = difference(products + 2 * area, valid, places) / n - m_1 * m_1
        v_20 = difference(products + 3 * area, valid, places) / n - m_2 * m_0
        v_21 = difference(products + 4 * area, valid, places) / n - m_2 * m_1
        v_22 = difference(products + 5 * area, valid, places) / n - m_2 * m_2
        l_10, l_20 = v_10 / d_0, v_20 / d_0
        d_1 = tl.maximum(v_11 - l_10 * v_10, 0.0) + eps
        l_21 = (v_21 - l_20 * v_10) / d_1
        d_2 = tl.maximum(v_22 - l_20 * v_20 - l_21 * l_21 * d_1, 0.0) + eps
        tl.store(means + area, m_1.to(tl.float32), mask=valid)
        tl.store(means + 2 * area, m_2.to(tl.float32), mask=valid)
        tl.store(lower, l_10.to(tl.float32), mask=valid)
        tl.store(lower + area, l_20.to(tl.float32), mask=valid)
        tl.store(lower + 2 * area, l_21.to(tl.float32), mask=valid)
        tl.store(lower + INVERSE * area, (1.0 / d_0).to(tl.float32), mask=valid)
        tl.store(lower + (INVERSE + 1) * area, (1.0 / d_1).to(tl.float32), mask=valid)
        tl.store(lower + (INVERSE + 2) * area, (1.0 / d_2).to(tl.float32), mask=valid)


@on_its_gpu
def moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes of a PreparedGuide, float32."""
    images, channels, height, width = guide.shape
    guide, radius = guide.float(), reach(radius, height, width)
    planes = guide.new_empty((images, guide_planes.planes_of(channels), height, width))
    torch.sub(guide, guide.mean(dim=(2, 3), keepdim=True), out=planes[:, :channels])
    columns, pairs = columns_of_tile(radius), channels * (channels + 1) // 2
    sums = guide.new_empty((images, channels + pairs, height, width), dtype=torch.float64)
    if images:
        tiles = triton.cdiv(height, ROWS) * triton.cdiv(width, columns)
        for count, products in ((channels, False), (pairs, True)):
            options = (channels, radius, ROWS, columns, products)
            guide_sums[(tiles, count, images)](planes, sums, height, width, *options, **LAUNCH)
        grid = (triton.cdiv(height * width, PIXELS), images)
        factorise[grid](planes, sums, eps, height, width, channels, radius, columns, PIXELS, **LAUNCH)
    return planes
