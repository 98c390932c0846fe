r"""The guided filter in torch operators: rows and labels in tiles that stay in a CPU's cache, every view made once.

With J = (1, I), C + 1 planes, what has to be solved in a window is one system:

.. math:: (b, a) = (L^{-T} D^{-1} L^{-1}) S(J p) / n, \quad K p = J^T S(b, a)

where L has the window means of the colours in its first column and below that the guide's own L, and D begins with 1:
:math:`E[J J^T] = L D L^T` but for eps. All rows of L below a pivot, and all planes of a step, are one operator, which
writes where the next one reads. The vectors are those of ``FlatPlanes``: neighbours in a column are ``pitch`` apart.
"""

import torch
from torch import Tensor

from .flat_planes import FlatPlanes, window_counts
from .guide_planes import channels_of, inverse_at, lower_at, means_at

BLOCK = 2**16  # elements of one buffer per thread: five of them nearly stay in a cache of 2 MB
HALO = 24  # rows of a tile per row of the radius, at least: 4 of them are computed twice

Additions = list[tuple[Tensor, Tensor, Tensor]]


def plan_sums(x: Tensor, size: int, step: int, spare: list[Tensor], plan: Additions) -> Tensor:
    """Sums over ``size`` elements ``step`` apart of a vector, and into the plan the additions (a, b, out) for them.

    As ``flat_planes.window_sum``; ``spare`` are three vectors, of which x may be one.
    """
    if size == 1:
        return x
    count = x.numel() - (size - 1) * step
    parts = next((n for n in (2, 3) if size % n == 0), 0)
    part = plan_sums(x, size // parts if parts else size - 1, step, spare, plan)
    if not parts:
        plan.append((part[:count], x[(size - 1) * step :], part[:count]))
        return part[:count]
    used, shift = {x.data_ptr(), part.data_ptr()}, size // parts * step
    out = next(vector for vector in spare if vector.data_ptr() not in used)[:count]
    plan.append((part[:count], part[shift : shift + count], out))
    if parts == 3:
        plan.append((out, part[2 * shift : 2 * shift + count], out))
    return out


class Tile:
    """Buffers and views for some labels in some rows: ``p`` [labels, H, W] goes in, ``result`` comes out."""

    def __init__(self, layout: FlatPlanes, channels: int, labels: int, like: Tensor) -> None:
        self.layout, self.labels, rows = layout, labels, channels + 1
        self.plane = layout.length + layout.margin  # the margin between two planes serves both
        size = rows * labels * self.plane + layout.margin
        spare = [like.new_empty(size) for _ in range(3)]
        products, slopes = like.new_zeros(size), like.new_zeros(size)
        self.plans: tuple[Additions, Additions] = ([], [])
        windows, total = (self._box(x, spare, plan) for x, plan in zip((products, slopes), self.plans, strict=True))
        self.products, self.slopes = (
            self._planes(products, rows, layout.margin),
            self._planes(slopes, rows, layout.margin),
        )
        self.windows, self.total = self._planes(windows, rows, 0), self._planes(total, rows, 0)
        self.p, self.result = self._pixels(self.products[0]), self._pixels(self.total[0])

    def _box(self, x: Tensor, spare: list[Tensor], plan: Additions) -> Tensor:
        columns = plan_sums(x, 2 * self.layout.down + 1, self.layout.pitch, spare, plan)
        return plan_sums(columns, 2 * self.layout.across + 1, 1, spare, plan)

    def _planes(self, flat: Tensor, rows: int, offset: int) -> Tensor:
        """[rows, labels, length]."""
        shape, strides = (rows, self.labels, self.layout.length), (self.labels * self.plane, self.plane, 1)
        return flat.as_strided(shape, strides, offset)

    def _pixels(self, flat: Tensor) -> Tensor:
        return flat.unflatten(1, (self.layout.height, self.layout.pitch))[..., : self.layout.width]

    def apply(self, colours: Tensor, lower: Tensor, diagonal: Tensor) -> None:
        """``p`` -> ``result``: K p.

        Args:
            colours: ``[C, 1, length]``.
            lower: L below its diagonal, row by row, ``[C (C + 1) / 2, 1, length]``.
            diagonal: 1 / (D n), ``[C + 1, 1, length]``.
        """
        rows, columns = range(1, len(diagonal)), range(len(diagonal) - 1)
        at = [row * (row - 1) // 2 for row in range(len(diagonal))]
        torch.mul(self.products[0], colours, out=self.products[1:])
        self._add(self.plans[0])
        for i in columns:
            factors = lower[[at[row] + i for row in rows if row > i]]
            self.windows[i + 1 :].addcmul_(factors, self.windows[i], value=-1)
        torch.mul(self.windows, diagonal, out=self.slopes)
        for i in reversed(rows):
            self.slopes[:i].addcmul_(lower[at[i] : at[i] + i], self.slopes[i], value=-1)
        self._add(self.plans[1])
        for total, colour in zip(self.total[1:], colours, strict=True):
            self.total[0].addcmul_(total, colour)

    def _add(self, plan: Additions) -> None:
        for a, b, out in plan:
            torch.add(a, b, out=out)


def tile_rows(height: int, row: int, radius: int, device: torch.device) -> int:
    """Rows of a tile whose planes have ``row`` elements a row: what fits into a CPU's cache, or all of them."""
    fitting = max(1, torch.get_num_threads() * BLOCK // row, HALO * radius) if device.type == "cpu" else height
    return min(height, fitting)


def tiles(height: int, rows: int, halo: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, begin, end) of tiles of ``rows`` rows: all rows within the halo of begin to end are in the tile."""
    found, done, top = [], 0, 0
    while done < height:
        end = height if top + rows == height else top + rows - halo
        found.append((top, top + rows, done, end))
        done, top = end, min(end - halo, height - rows)
    return found


def tiled_filter(p: Tensor, planes: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """W p, or W^T p, in the dtype of p."""
    (images, labels, height, width), channels = p.shape, channels_of(planes.shape[1])
    out = torch.empty_like(p, memory_format=torch.contiguous_format)
    inverse, one = 1 / window_counts(planes, radius, border), planes.new_ones(())
    rows = tile_rows(height, (channels + 1) * (width + min(radius, width - 1)), radius, p.device)
    layout = FlatPlanes(rows, width, radius)
    block = (channels + 1) * (layout.length + layout.margin)
    fitting = torch.get_num_threads() * BLOCK // block if p.device.type == "cpu" else labels
    tile = Tile(layout, channels, max(1, min(labels, fitting)), planes)
    order = [
        plane
        for row in range(channels)
        for plane in (means_at(channels) + row, *(lower_at(channels, row, column) for column in range(row)))
    ]
    for image in range(images):
        for top, bottom, begin, end in tiles(height, rows, 2 * radius):
            factors = layout.spread(torch.cat([planes[image, :, top:bottom], inverse[None, top:bottom]])).unsqueeze(1)
            diagonal = factors[inverse_at(channels) :] * factors[-1]
            diagonal = torch.cat([factors[-1:], diagonal[:-1]])
            before, after = (inverse[top:bottom], one) if adjoint else (one, inverse[begin:end])
            for first in range(0, labels, tile.labels):
                source = p[image, first : first + tile.labels, top:bottom]
                # Of a last block with fewer labels the others keep what the block before left there.
                torch.mul(source, before, out=tile.p[: len(source)])
                tile.apply(factors[:channels], factors[order], diagonal)
                result = tile.result[: len(source), begin - top : end - top]
                torch.mul(result, after, out=out[image, first : first + tile.labels, begin:end])
    return out
