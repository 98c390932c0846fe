r"""The planes of a prepared guide, N P H W: this file alone knows their order, for torch and for Triton.

A guide of C channels (3 of a colour picture, 1 of a grey one, up to 16 of others) has these groups of planes, one
after the other:

- colours, C planes: the guide minus its mean;
- means, C planes: those of the colours over every window;
- lower, C (C - 1) / 2 planes: L below its diagonal, row by row: L_10, L_20, L_21, L_30, ...;
- inverse, C planes: 1 / D.

L is lower triangular with ones on its diagonal, D is diagonal, and :math:`L D L^T = \Sigma + \epsilon U` (Eq. 12). P is
3 for one channel, 12 for three and 168 for 16. The functions say where a group begins; Triton calls them while
compiling.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MOST_CHANNELS = 16


def means_at(channels: int) -> int:
    return channels


def lower_at(channels: int, row: int = 1, column: int = 0) -> int:
    """Where L[row, column] is; the first of them without a row."""
    return 2 * channels + row * (row - 1) // 2 + column


def inverse_at(channels: int) -> int:
    return 2 * channels + channels * (channels - 1) // 2


def planes_of(channels: int) -> int:
    """P, the number of all planes."""
    return 3 * channels + channels * (channels - 1) // 2


def channels_of(planes: int) -> int:
    """C, given P."""
    return next(channels for channels in range(1, MOST_CHANNELS + 1) if planes_of(channels) == planes)


class GuidePlanes(NamedTuple):
    """The groups as lists of tensors; ``lower`` by (row, column)."""

    colours: list[Tensor]
    means: list[Tensor]
    lower: dict[tuple[int, int], Tensor]
    inverse: list[Tensor]

    def joined(self, dtype: torch.dtype) -> Tensor:
        """One tensor with the planes in dimension 1, of lists of N H W."""
        each = [*self.colours, *self.means, *self.lower.values(), *self.inverse]
        return torch.stack([plane.to(dtype) for plane in each], dim=1)


def split(planes: Tensor) -> GuidePlanes:
    """The groups of a tensor with the planes in dimension 0."""
    channels = channels_of(len(planes))
    means, lower, inverse = (at(channels) for at in (means_at, lower_at, inverse_at))
    each = list(planes.unbind(0))
    places = [(row, column) for row in range(channels) for column in range(row)]
    below = dict(zip(places, each[lower:inverse], strict=True))
    return GuidePlanes(each[:means], each[means:lower], below, each[inverse:])
