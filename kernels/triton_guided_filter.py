"""The guided filter in Triton: which kernels filter with which windows, and how a map is cut into programs.

- ``triton_moments``: the planes of the guide.
- ``triton_narrow``: W p up to a radius of NARROW, in two kernels: a and b of every window, then their sums.
- ``triton_wide``: W p for larger windows, in three.
- ``triton_many``: what takes the place of the unrolled systems of a guide with more than FEW channels; such a guide
  takes the three kernels of large windows.
- ``triton_windows``, ``triton_solve``: what these share.
"""

import torch
import triton
from torch import Tensor

from . import guide_planes, triton_many, triton_narrow, triton_wide
from .backend import on_its_gpu
from .triton_solve import FEW
from .triton_windows import columns_of_tile, launch, reach

NARROW = 7  # the largest radius of windows that are summed by shuffles
SOLVE_ROWS = 4  # rows of a program of ``triton_wide.solve``
PROGRAMS = 2000  # enough to keep a large GPU busy (an H200 has 132 multiprocessors)


def is_wide(channels: int, radius: int) -> bool:
    """Whether three kernels filter, not two."""
    return radius > NARROW or channels > FEW


def tiling(
    images: int, labels: int, height: int, width: int, channels: int, radius: int
) -> tuple[tuple[int, ...], dict[str, int]]:
    """Grid and sizes of all kernels of W p but ``solve``.

    Many rows a program spare the rows that its sums begin with, and several labels a program share what it reads of
    the guide; but first of all there must be programs enough. Wide tiles leave no registers for a second label.
    """
    columns, wide = columns_of_tile(radius), is_wide(channels, radius)
    strips = triton.cdiv(width, columns if wide else columns - 2 * radius)
    for rows, group in ((16, 1), (8, 1)) if wide else ((32, 2), (16, 2), (8, 2), (8, 1), (4, 1)):
        group = min(group, triton.next_power_of_2(labels))
        grid = (triton.cdiv(height, rows) * strips, triton.cdiv(labels, group), images)
        if grid[0] * grid[1] * grid[2] >= PROGRAMS:
            break
    return grid, {"CHANNELS": channels, "RADIUS": radius, "ROWS": rows, "COLUMNS": columns, "LABELS": group}


@on_its_gpu
def filter_planes(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """W p, or W^T p, in the dtype of p."""
    p = p.contiguous()
    images, labels, height, width = p.shape
    channels, clipped = guide_planes.channels_of(planes.shape[1]), border == "clipped"
    full, radius = radius, reach(radius, height, width)
    out = torch.empty_like(p)
    slopes = planes.new_empty((images, labels, channels + 1, height, width))
    sizes = (labels, height, width)
    if images:
        grid, tile = tiling(images, labels, height, width, channels, radius)
        # The counts divide p before K (W^T) or the result after it (W); constant ones are the same on either side.
        before, after = {"DIVIDE": clipped and adjoint}, {"DIVIDE": not (clipped and adjoint)}
        options = {"CLIPPED": clipped, **launch(tile["COLUMNS"], channels + 1)}
        if is_wide(channels, radius):
            sums, rows = torch.empty_like(slopes), tile | {"ROWS": SOLVE_ROWS}
            lines = (triton.cdiv(height, SOLVE_ROWS) * triton.cdiv(width, tile["COLUMNS"]), *grid[1:])
            solve = triton_wide.solve if channels <= FEW else triton_many.solve
            triton_wide.prefix_sums[grid](p, planes, sums, *sizes, **tile, **before, **options)
            few = launch(tile["COLUMNS"], min(channels, FEW) + 1)  # those of more channels wait in memory
            solve[lines](sums, planes, slopes, *sizes, **rows, **options | few)
            triton_wide.collect[grid](slopes, planes, out, *sizes, **tile, **after, **options)
        else:
            triton_narrow.slopes[grid](p, planes, slopes, *sizes, **tile, **before, **options)
            triton_narrow.collect[grid](slopes, planes, out, *sizes, **tile, **after, **options)
    if radius < full and not clipped:
        out *= ((2 * radius + 1) / (2 * full + 1)) ** 4  # divided twice by the area of the window
    return out
