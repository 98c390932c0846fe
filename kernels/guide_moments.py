"""The planes of a guide in torch operators: window means, and L D L^T of the covariances (Eq. 12).

All in float64: a covariance is a small difference of large numbers, and every label depends on it.
"""

import torch
from torch import Tensor

from .backend import statistics_dtype
from .box_filter import box_sum
from .flat_planes import FlatPlanes, window_counts
from .guide_planes import GuidePlanes, planes_of
from .tiled_filter import tile_rows, tiles

Entries = dict[tuple[int, int], Tensor]


def factorise(covariance: Entries, eps: float) -> tuple[Entries, list[Tensor]]:
    """L below its diagonal, and 1 / D, of the covariances (row, column) on and below theirs, row by row, plus eps."""
    lower: Entries = {}
    diagonal: list[Tensor] = []
    for (i, j), entry in covariance.items():
        for k in range(j):
            entry = torch.addcmul(entry, lower[i, k] * diagonal[k], lower[j, k], value=-1)
        if i == j:
            # At least eps with eps added; rounding may have left a flat window a variance below zero.
            diagonal.append((entry + eps).clamp(min=eps))
        else:
            lower[i, j] = entry / diagonal[j]
    return lower, [1 / d for d in diagonal]


def moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes in standard operators, differentiable; all at once, because programs load as long as they are."""
    dtype, guide = statistics_dtype(guide.dtype), guide.double()
    guide = guide - guide.mean(dim=(2, 3), keepdim=True)
    inverse = 1 / window_counts(guide, radius, "clipped")
    colours = list(guide.unbind(1))  # each [N, H, W]
    pairs = [(i, j) for i in range(len(colours)) for j in range(i + 1)]
    sums = box_sum(torch.stack([*colours, *(colours[i] * colours[j] for i, j in pairs)]), radius)
    means, products = (inverse * sums).split((len(colours), len(pairs)))
    lower, scale = factorise({(i, j): v - means[i] * means[j] for (i, j), v in zip(pairs, products, strict=True)}, eps)
    return GuidePlanes(colours, list(means), lower, scale).joined(dtype)


def tiled_moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes, without autograd, in tiles of rows that stay in a CPU's cache."""
    (images, channels, height, width), dtype = guide.shape, statistics_dtype(guide.dtype)
    out = guide.new_empty((images, planes_of(channels), height, width), dtype=dtype)
    pairs = [(i, j) for i in range(channels) for j in range(i + 1)]
    first, second = ([pair[place] for pair in pairs] for place in (0, 1))
    count = channels + len(pairs)
    row = 2 * count * (width + min(radius, width - 1))  # 2: twice the bytes of an element
    rows = tile_rows(height, row, radius, guide.device)
    layout = FlatPlanes(rows, width, radius)
    padded = layout.padded(count, guide.new_empty(0, dtype=torch.float64))
    core = layout.core(padded)
    inverse = 1 / window_counts(core.new_empty((height, width)), radius, "clipped")
    for image in range(images):
        mean = guide[image].mean(dim=(1, 2), keepdim=True, dtype=torch.float64)
        for top, bottom, begin, end in tiles(height, rows, radius):
            torch.sub(guide[image, :, top:bottom], mean, out=layout.pixels(core[:channels]))
            torch.mul(core[first], core[second], out=core[channels:])
            windows = layout.box_sum(padded) * layout.spread(inverse[None, top:bottom])
            means, products = windows.split((channels, len(pairs)))
            products.addcmul_(means[first], means[second], value=-1)
            lower, scale = factorise(dict(zip(pairs, products, strict=True)), eps)
            planes = torch.stack([*core[:channels], *means, *lower.values(), *scale])
            out[image, :, begin:end] = layout.pixels(planes)[:, begin - top : end - top]
    return out
