"""The planes of a guide in torch operators: window means, and L D L^T of the covariances (Eq. 12).

All in float64: a covariance is a small difference of large numbers, and every label depends on it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .backend import statistics_dtype
from .box_filter import box_sum
from .flat_planes import FlatPlanes, window_counts
from .guide_planes import GuidePlanes

Box = Callable[[list[Tensor]], Sequence[Tensor]]
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


def moments(guide: Tensor, radius: int, eps: float, box: Box) -> Tensor:
    """The planes, by window sums of ``[N, H, W]`` colours and products."""
    dtype, guide = statistics_dtype(guide.dtype), guide.double()
    guide = guide - guide.mean(dim=(2, 3), keepdim=True)
    inverse = 1 / window_counts(guide, radius, "clipped")
    colours = list(guide.unbind(1))  # each [N, H, W]
    pairs = [(i, j) for i in range(len(colours)) for j in range(i + 1)]
    windows = [total * inverse for total in box([*colours, *(colours[i] * colours[j] for i, j in pairs)])]
    means, products = windows[: len(colours)], windows[len(colours) :]
    lower, scale = factorise({(i, j): v - means[i] * means[j] for (i, j), v in zip(pairs, products, strict=True)}, eps)
    return GuidePlanes(colours, means, lower, scale).joined(dtype)


def standard_moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes in standard operators, differentiable; all at once, because programs load as long as they are."""
    return moments(guide, radius, eps, lambda planes: box_sum(torch.stack(planes), radius).unbind())


def blocked_moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes, without autograd; sums of one plane of colours or products at a time stay in a CPU's cache."""
    layout = FlatPlanes(guide.shape[2], guide.shape[3], radius)
    return moments(guide, radius, eps, lambda planes: [layout.clipped_sum(plane) for plane in planes])
