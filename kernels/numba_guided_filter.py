"""The guided filter on a CPU by the compiled loops of ``numba_rows``: what each of them gets, and on which thread."""

import functools
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from . import guide_planes, numba_rows
from .backend import statistics_dtype
from .flat_planes import line_counts
from .threads import share

LABELS = 3  # that are filtered together at most: they share each row of the guide while it is in the cache
BAND = 8  # rows of a band, at least, per row of its halo
LARGE = 2**26  # elements of a guide's planes, above which they are not held for all rows at once


@functools.lru_cache(64)
def inverse_counts(size: int, radius: int, border: str, dtype: torch.dtype) -> np.ndarray:
    """One over the windows' pixels along a line; those of a window are the product of two.

    Kept for the next call: to make them takes as long as to filter a label of 75x125 pixels.
    """
    if border == "constant":
        return torch.full((size,), 1 / (2 * radius + 1), dtype=dtype).numpy()
    return line_counts(size, radius, torch.empty((), dtype=dtype)).reciprocal_().numpy()


def parts(size: int, count: int) -> list[tuple[int, int]]:
    """Ranges of nearly equal size that make up ``range(size)``; at least one."""
    count = max(1, min(count, size))
    return list(pairwise(size * i // count for i in range(count + 1)))


class Window:
    """A window on maps of one size: its reach, and the inverse counts, in the dtype of the sums' results."""

    def __init__(self, height: int, width: int, radius: int, border: str, dtype: torch.dtype) -> None:
        self.height, self.down, self.across = height, min(radius, height - 1), min(radius, width - 1)
        self.rows, self.columns = (inverse_counts(size, radius, border, dtype) for size in (height, width))

    def bands(self, count: int) -> list[tuple[int, int]]:
        """Bands of rows, at most so many, that are not small beside what each computes anew of its neighbours."""
        return parts(self.height, min(count, self.height // (BAND * self.down + 1)))


def share_moments(planes: Tensor, guides: Tensor, eps: float, window: Window, top: int = 0) -> None:
    """Fill the planes [N, P, h, W] of rows from ``top`` of guides; those of a radius at either end are not whole."""
    channels, threads = guides.shape[1], torch.get_num_threads()
    height, rows = planes.shape[2], window.rows[top : top + planes.shape[2]]
    some = guides[:, :, :: max(1, guides.shape[2] // 512)]  # any constant near the mean will do, and torch copies them
    means = some.mean(dim=(2, 3), keepdim=True, dtype=planes.dtype)
    torch.sub(guides[:, :, top : top + height], means, out=planes[:, :channels])
    bands = parts(height, min(threads, height // (BAND * window.down + 1)))
    options = (rows, window.columns, window.down, window.across)
    tasks = [(image, channels, eps, band, *options) for image in planes.numpy() for band in bands]
    share(numba_rows.moments, tasks, threads)


def share_filter(
    p: Tensor, out: Tensor, planes: Tensor, window: Window, adjoint: bool, bands: list[tuple[int, int]], top: int = 0
) -> None:
    """W p or W^T p [N, L, H, W] in bands of rows, by planes that begin at row ``top``."""
    channels, threads = guide_planes.channels_of(planes.shape[1]), torch.get_num_threads()
    options = (channels, top, window.rows, window.columns, window.down, window.across, adjoint)
    tasks = [
        (source, target, group, band, guide, *options)
        for source, target, guide in zip(p.numpy(), out.numpy(), planes.numpy(), strict=True)
        for group in parts(p.shape[1], threads * -(-p.shape[1] // (threads * LABELS)))
        for band in bands
    ]
    share(numba_rows.filter_labels, tasks, threads)


def moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes of a PreparedGuide."""
    images, channels, height, width = guide.shape
    shape = (images, guide_planes.planes_of(channels), height, width)
    planes = torch.empty(shape, dtype=statistics_dtype(guide.dtype))
    share_moments(planes, guide.detach(), eps, Window(height, width, radius, "clipped", torch.float64))
    return planes


def filter_planes(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """W p, or W^T p, in the dtype of p."""
    dtype, threads, (images, labels, height, width) = statistics_dtype(p.dtype), torch.get_num_threads(), p.shape
    wide, planes = (x.detach().to(dtype).contiguous() for x in (p, planes))
    out, window = torch.empty_like(wide), Window(height, width, radius, border, dtype)
    bands = window.bands(-(-threads // max(images * labels, 1)))  # where there are fewer labels than threads
    share_filter(wide, out, planes, window, adjoint, bands)
    return out.to(p.dtype)


def filter_in_bands(p: Tensor, guide: Tensor, radius: int, eps: float, border: str) -> Tensor:
    """W p in the dtype of p, without autograd, and without the planes of more than a band of rows at a time."""
    dtype, (_, channels, height, width) = statistics_dtype(p.dtype), guide.shape
    wide = p.detach().to(dtype).contiguous()
    out, window = torch.empty_like(wide), Window(height, width, radius, border, dtype)
    exact, count = Window(height, width, radius, "clipped", torch.float64), guide_planes.planes_of(channels)
    halo = 2 * window.down
    for image in range(len(p)):
        source, target, picture = wide[image : image + 1], out[image : image + 1], guide.detach()[image : image + 1]
        for begin, end in window.bands(-(-4 * count * height * width // LARGE)):
            top, bottom = max(begin - halo, 0), min(end + halo, height)
            planes = torch.empty((1, count, bottom - top, width), dtype=dtype)
            share_moments(planes, picture, eps, exact, top)
            share_filter(source, target, planes, window, False, [(begin, end)], top)
    return out.to(p.dtype)
