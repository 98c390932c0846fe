"""The guided filter on a CPU by the compiled loops of ``numba_rows``: what each of them gets, and on which thread."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from . import guide_planes, numba_rows
from .backend import statistics_dtype
from .flat_planes import line_counts
from .threads import share

LABELS = 3  # that are filtered together at most: they share each row of the guide while it is in the cache
ROWS = 8  # times the halo of a band of rows


def inverse_counts(size: int, radius: int, border: str, dtype: torch.dtype) -> np.ndarray:
    """One over the windows' pixels along a line; those of a window are the product of two."""
    if border == "constant":
        return torch.full((size,), 1 / (2 * radius + 1), dtype=dtype).numpy()
    return line_counts(size, radius, torch.empty((), dtype=dtype)).reciprocal_().numpy()


def parts(size: int, count: int) -> list[tuple[int, int]]:
    """Ranges of nearly equal size that make up ``range(size)``; at least one."""
    count = max(1, min(count, size))
    bounds = [size * i // count for i in range(count + 1)]
    return list(pairwise(bounds))


def filter_planes(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """W p, or W^T p, in the dtype of p."""
    dtype, threads, (images, labels, height, width) = statistics_dtype(p.dtype), torch.get_num_threads(), p.shape
    wide, planes = (x.detach().to(dtype).contiguous() for x in (p, planes))
    out = torch.empty_like(wide)
    rows, columns = (inverse_counts(size, radius, border, dtype) for size in (height, width))
    down, across = min(radius, height - 1), min(radius, width - 1)
    groups = parts(labels, threads * -(-labels // (threads * LABELS)))
    bands = parts(height, min(-(-threads // (len(groups) * max(images, 1))), height // (ROWS * down + 1)))
    window = (guide_planes.channels_of(planes.shape[1]), 0, rows, columns, down, across, adjoint)
    tasks = [
        (source, target, group, band, guide, *window)
        for source, target, guide in zip(wide.numpy(), out.numpy(), planes.numpy(), strict=True)
        for group in groups
        for band in bands
    ]
    share(numba_rows.filter_labels, tasks, threads)
    return out.to(p.dtype)


def moments(guide: Tensor, radius: int, eps: float) -> Tensor:
    """The planes of a PreparedGuide."""
    (images, channels, height, width), threads = guide.shape, torch.get_num_threads()
    shape, dtype = (images, guide_planes.planes_of(channels), height, width), statistics_dtype(guide.dtype)
    planes = torch.empty(shape, dtype=dtype)
    mean = guide.mean(dim=(2, 3), keepdim=True, dtype=torch.float64)
    torch.sub(guide.detach(), mean.detach(), out=planes[:, :channels])
    down, across = min(radius, height - 1), min(radius, width - 1)
    rows, columns = (inverse_counts(size, radius, "clipped", torch.float64) for size in (height, width))
    bands = parts(height, min(threads, height // (ROWS * down + 1)))
    tasks = [(image, channels, eps, band, rows, columns, down, across) for image in planes.numpy() for band in bands]
    share(numba_rows.moments, tasks, threads)
    return planes
