"""Settings of a refinement that follow from the scores, and the gate that keeps what is thin."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

THIN = 2
"""Radius, in blocks, of the square that must fit into whatever is not thin: 5 blocks."""

GATE = 3 * THIN
"""Blocks away that the gate at a block depends on."""


def settings_from(scores: Tensor, size: Sequence[int]) -> dict[str, Any]:
    """Every setting of ``Refinement`` that follows from scores ``(N, C, h, w)`` and the picture's size (H, W).

    The stride is at most a quarter of the picture's pixels a score, rounded up to a power of 2, and at least 4, where
    the scores are not finer; the wide window covers a sixth of the picture's longer side.
    """
    spacing = max(side / cells for side, cells in zip(size, scores.shape[-2:], strict=True))
    stride = 4 if spacing <= 8 else 2 ** max(2, round(spacing / 4).bit_length() - 1)
    cells = max(size) / stride
    return {"stride": stride, "radius": max(3, round(cells / 6)), "narrow": 3, "weight": 8.0, "iterations": 3}


def thinness(beliefs: Tensor, *, radius: int = THIN) -> Tensor:
    """How much of the beliefs ``(N, L, h, w)`` lies in thin places: ``(N, 1, h, w)`` in 0..1, without gradient.

    Of each label what an opening by a square of radius ``radius`` takes away (the top-hat): it leaves alone whatever
    the square fits into. The largest over the labels, spread by the radius.
    """
    beliefs = beliefs.detach()
    opened = _largest(-_largest(-beliefs, radius), radius)
    return _largest((beliefs - opened).amax(1, keepdim=True), radius)


def _largest(x: Tensor, radius: int) -> Tensor:
    """The largest value in the square around each place."""
    side = 2 * radius + 1
    rows = functional.max_pool2d(x, (side, 1), stride=1, padding=(radius, 0))
    return functional.max_pool2d(rows, (1, side), stride=1, padding=(0, radius))
