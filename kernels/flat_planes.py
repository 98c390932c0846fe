"""Box sums by shifted additions, on planes laid out so that every shift is one contiguous slice."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Elements of one temporary per thread. About ten are alive at once and nearly stay in a 2 MB cache, and an addition of
# this size takes many times as long as its call. Half or twice as many cost up to a fifth on maps of 75x125 to 200x300.
BLOCK = 2**16
REGISTER = 32  # bytes


def window_sum(x: Tensor, size: int, *, dim: int = -1, step: int = 1, strided: bool = False) -> Tensor:
    """Sums over ``size`` elements ``step`` apart, window i starting at element i; ``(size - 1) * step`` fewer outputs.

    Doubling and tripling need about ``log2(size)`` additions and never subtract: a cumulative sum over a float32 image
    would lose three digits. With ``strided``, for 2-D tensors and the last dimension, 5 to 9 elements are summed in one
    pass over overlapping views: faster on a CPU, but not for autograd or export.
    """
    if size == 1:
        return x
    count = x.shape[dim] - (size - 1) * step
    # Of contiguous terms that fill a register torch.sum would make its inner loop, which takes five times as long.
    single = [n for n in (9, 8, 7, 6, 5) if strided and (size // n * step > 1 or n * x.itemsize < REGISTER)]
    parts = next((n for n in (*single, 2, 3) if size % n == 0), 0)
    part = window_sum(x, size // parts if parts else size - 1, dim=dim, step=step, strided=strided)
    if not parts:
        return part.narrow(dim, 0, count) + x.narrow(dim, (size - 1) * step, count)
    shift = size // parts * step
    if parts in single:
        return part.as_strided((len(part), parts, count), (part.stride(0), shift, 1)).sum(1)
    total = part.narrow(dim, 0, count)
    for index in range(1, parts):
        total = total + part.narrow(dim, index * shift, count)
    return total


def window_counts(x: Tensor, radius: int, border: str) -> Tensor:
    """Divisor of every window of ``x``: H x W true pixel counts ("clipped") or the whole area ("constant")."""
    if border == "constant":
        return x.new_full(x.shape[-2:], float((2 * radius + 1) ** 2))
    rows, columns = (line_counts(size, radius, x) for size in x.shape[-2:])
    return rows[:, None] * columns[None, :]


def line_counts(size: int, radius: int, like: Tensor) -> Tensor:
    index = torch.arange(size, device=like.device)
    first, last = (index - radius).clamp(min=0), (index + radius).clamp(max=size - 1)
    return (last - first + 1).to(like.dtype)


@dataclass(frozen=True)
class FlatPlanes:
    """Planes of H rows, each row followed by r zeros, one plane after the other, with a margin for whole windows.

    The r zeros end one row and begin the next, so a window never sees a pixel of another row, and a shift in either
    direction is a shift of the flat index: [planes, length] tensors without any row structure. Of a window larger than
    the map only what the map can fill is laid out.
    """

    height: int
    width: int
    radius: int

    @property
    def down(self) -> int:
        return min(self.radius, self.height - 1)

    @property
    def across(self) -> int:
        return min(self.radius, self.width - 1)

    @property
    def pitch(self) -> int:
        return self.width + self.across

    @property
    def length(self) -> int:
        return self.height * self.pitch

    @property
    def margin(self) -> int:
        return self.down * self.pitch + self.across

    def block(self, planes: int, device: torch.device) -> int:
        """How many planes to work on at once: few on a CPU, so that they stay in its cache."""
        fitting = torch.get_num_threads() * BLOCK // self.length if device.type == "cpu" else planes
        return max(1, min(planes, fitting))

    def padded(self, planes: int, like: Tensor) -> Tensor:
        """Zeros with margins: what ``box_sum`` reads."""
        return like.new_zeros(planes, self.length + 2 * self.margin)

    def core(self, padded: Tensor) -> Tensor:
        """The [planes, length] view of a padded buffer between its margins."""
        return padded.narrow(1, self.margin, self.length)

    def pixels(self, flat: Tensor) -> Tensor:
        """The [planes, H, W] view of the pixels, without the zeros between rows."""
        return flat.unflatten(1, (self.height, self.pitch)).narrow(2, 0, self.width)

    def spread(self, planes: Tensor) -> Tensor:
        """Copy [planes, H, W] into this layout."""
        flat = planes.new_zeros(planes.shape[0], self.length)
        self.pixels(flat).copy_(planes)
        return flat

    def box_sum(self, padded: Tensor) -> Tensor:
        """Clipped window sums [planes, length]; the values between the rows mean nothing."""
        columns = window_sum(padded, 2 * self.down + 1, step=self.pitch, strided=True)
        return window_sum(columns, 2 * self.across + 1, strided=True)

    def clipped_sum(self, planes: Tensor) -> Tensor:
        """Clipped window sums of [planes, H, W], in that shape."""
        padded = self.padded(len(planes), planes)
        self.pixels(self.core(padded)).copy_(planes)
        return self.pixels(self.box_sum(padded))
