"""The guide's part of the filter in Triton: window means, and L D L^T of the covariances, in two kernels.

All sums are float64: a covariance is a small difference of large numbers, and every label depends on it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import guide_planes, triton_many
from .backend import on_its_gpu
from .triton_solve import FEW, means_at, planes_of
from .triton_windows import LAUNCH, columns_of_tile, counts, difference, ends, launch, reach, tile

PIXELS = 32  # of a program of ``factorise``
ROWS = 8  # of a program of ``guide_sums``


@triton.jit
def _product(first, second, valid, pair):
    value = tl.load(first, mask=valid, other=0.0).to(tl.float64)
    return tl.where(pair, value * tl.load(second, mask=valid, other=0.0), value)


@triton.jit(do_not_specialize=["height", "width"])
def guide_sums(
    planes, sums, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums over the rows of the windows, as prefix sums along each tile, of one colour, or of the product of two.

    ``sums`` has the colours first, then the pairs (0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), ...
    """
    begin, column, inside = tile(width, ROWS, COLUMNS, 0)
    area, image, which = height.to(tl.int64) * width, tl.program_id(2).to(tl.int64), tl.program_id(1)
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    PLANES: tl.constexpr = planes_of(CHANNELS)
    planes += image * PLANES * area + column
    sums += (image * (CHANNELS + PAIRS) + which) * area + column
    pair, one = which >= CHANNELS, tl.zeros((), tl.int32)
    for i in tl.static_range(1, CHANNELS):
        one += (which >= CHANNELS + i * (i + 1) // 2).to(tl.int32)
    first = planes + tl.where(pair, one, which) * area
    second = planes + tl.where(pair, which - CHANNELS - one * (one + 1) // 2, which) * area
    total = tl.zeros((1, COLUMNS), tl.float64)
    for row in range(tl.maximum(begin - RADIUS - 1, 0), tl.minimum(begin + RADIUS, height)):
        total += _product(first + row * width, second + row * width, inside, pair)
    for row in range(begin, tl.minimum(begin + ROWS, height)):
        enter, leave = (row + RADIUS) * width, (row - RADIUS - 1) * width
        total += _product(first + enter, second + enter, inside & (row + RADIUS < height), pair)
        total -= _product(first + leave, second + leave, inside & (row > RADIUS), pair)
        tl.store(sums + row * width, tl.cumsum(total, axis=1), mask=inside)


@triton.jit(do_not_specialize=["height", "width"])
def factorise(
    planes, sums, eps, height, width,
    CHANNELS: tl.constexpr, RADIUS: tl.constexpr, COLUMNS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Means, L and 1 / D into the planes that follow the colours.

    With v the covariances, L_ij D_j = v_ij - sum_k L_ik D_k L_jk over k < j, and
    D_i = v_ii + eps - sum_k L_ik D_k L_ik over k < i.
    """
    PAIRS: tl.constexpr = CHANNELS * (CHANNELS + 1) // 2
    PLANES: tl.constexpr = planes_of(CHANNELS)
    area, image = height.to(tl.int64) * width, tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    valid, row, column = pixel < area, pixel // width, pixel % width
    sums += image * (CHANNELS + PAIRS) * area + row * width
    planes += image * PLANES * area + pixel
    products, places = sums + CHANNELS * area, ends(column, width, RADIUS, COLUMNS)
    n = (counts(row, height, RADIUS) * counts(column, width, RADIUS)).to(tl.float64)
    means, lower, inverse = (), (), ()
    for i in tl.static_range(CHANNELS):
        means += (difference(sums + i * area, valid, places) / n,)
        scaled = ()  # L_ij D_j
        for j in tl.static_range(i + 1):
            value = difference(products + (i * (i + 1) // 2 + j) * area, valid, places) / n - means[i] * means[j]
            for k in tl.static_range(j):
                factor = lower[j * (j - 1) // 2 + k] if j < i else scaled[k] * inverse[k]
                value -= scaled[k] * factor
            scaled += (value,)
        for j in tl.static_range(i):
            lower += (scaled[j] * inverse[j],)
        # What remains of a variance is at least 0, but rounding may have left a flat window less.
        inverse += (1.0 / (tl.maximum(scaled[i], 0.0) + eps),)
    found = means + lower + inverse
    for i in tl.static_range(PLANES - means_at(CHANNELS)):
        tl.store(planes + (means_at(CHANNELS) + i) * area, found[i].to(tl.float32), mask=valid)


@on_its_gpu
def moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes of a PreparedGuide, float32."""
    images, channels, height, width = guide.shape
    guide, radius = guide.float(), reach(radius, height, width)
    planes = guide.new_empty((images, guide_planes.planes_of(channels), height, width))
    torch.sub(guide, guide.mean(dim=(2, 3), keepdim=True), out=planes[:, :channels])
    columns, every = columns_of_tile(radius), channels + channels * (channels + 1) // 2
    sums = guide.new_empty((images, every, height, width), dtype=torch.float64)
    if images:
        grid = (triton.cdiv(height, ROWS) * triton.cdiv(width, columns), every, images)
        guide_sums[grid](planes, sums, height, width, channels, radius, ROWS, columns, **launch(columns))
        pixels, sizes = (triton.cdiv(height * width, PIXELS), images), (channels, radius, columns, PIXELS)
        if channels <= FEW:
            factorise[pixels](planes, sums, eps, height, width, *sizes, **LAUNCH)
        else:
            wide = sums.new_empty((images, *planes[0, channels:].shape))
            triton_many.factorise[pixels](wide, sums, eps, height, width, *sizes, **LAUNCH)
            planes[:, channels:] = wide
    return planes
