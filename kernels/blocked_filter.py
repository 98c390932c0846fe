"""The guided filter in torch operators, some labels at a time, so that their planes stay in a CPU's cache."""

import torch
from torch import Tensor

from .flat_planes import FlatPlanes, window_counts
from .guide_planes import channels_of, inverse_at, split


def blocked_filter(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """W p, or W^T p: the same sums, image after image and some labels at a time, so that they stay in the cache."""
    layout, channels = FlatPlanes(p.shape[-2], p.shape[-1], radius), channels_of(planes.shape[1])
    out = torch.empty_like(p, memory_format=torch.contiguous_format)
    inverse, one = 1 / window_counts(planes, radius, border), planes.new_ones(())
    before, after = (inverse, one) if adjoint else (one, inverse)
    block = layout.block(p.shape[1], p.device)
    buffers = [layout.padded(block, planes) for _ in range(2 + channels)]
    for image in range(p.shape[0]):
        factors = layout.spread(torch.cat([planes[image], inverse[None]]))
        factors[inverse_at(channels) : -1] *= factors[-1]  # 1 / D and 1 / n are applied as one
        for first in range(0, p.shape[1], block):
            labels = slice(first, first + block)
            source, target = p[image, labels], out[image, labels]
            views = [buffer[: len(source)] for buffer in buffers]
            torch.mul(source, before, out=layout.pixels(layout.core(views[0])))
            torch.mul(layout.pixels(_gram(views, factors, layout)), after, out=target)
    return out


def _gram(buffers: list[Tensor], factors: Tensor, layout: FlatPlanes) -> Tensor:
    """K p for the p in the first buffer; the others are for b and for each a. The zeros between rows stay zero."""
    p, b, *a = (layout.core(buffer) for buffer in buffers)
    colour, mean, lower, inverse = split(factors[:-1])
    total = layout.box_sum(buffers[0])
    forward: list[Tensor] = []
    for i in range(len(a)):
        torch.mul(p, colour[i], out=a[0])
        value = layout.box_sum(buffers[2]).addcmul_(total, mean[i], value=-1)
        for j in range(i):
            value.addcmul_(lower[i, j], forward[j], value=-1)
        forward.append(value)
    torch.mul(total, factors[-1], out=b)
    for i in reversed(range(len(a))):
        torch.mul(forward[i], inverse[i], out=a[i])
        for j in range(i + 1, len(a)):
            a[i].addcmul_(lower[j, i], a[j], value=-1)
        b.addcmul_(a[i], mean[i], value=-1)
    result = layout.box_sum(buffers[1])
    for i in range(len(a)):
        result.addcmul_(layout.box_sum(buffers[2 + i]), colour[i])
    return result
