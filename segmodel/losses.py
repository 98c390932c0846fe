"""Cross-entropy over the harder half of the pixels (Eq. 17; Sec. 7.1.2, on-line hard example mining)."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

IGNORE = 255
"""The label of pixels that count nowhere."""


def hard_pixel_loss(
    scores: Tensor, labels: Tensor, *, keep: float = 0.5, mining: Literal["pixel", "block"] = "pixel"
) -> Tensor:
    """Mean of ``-log p`` of the true class over the kept share of the batch's valid pixels.

    Args:
        scores: ``(N, C, H, W)``, float32 or float64.
        labels: ``(N, H, W)`` int64, 0..C-1 or 255 (ignored).
        keep: share of the valid pixels to keep, those with the larger loss; ties at the threshold are kept.
        mining: "pixel" decides for each pixel (the paper); "block" on the grid of every 4th row and column, each grid
            point for its 4 x 4 block (the authors' code).

    Returns:
        Scalar; 0 (with zero gradients) if no pixel is valid.
    """
    losses = functional.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="none")
    valid = labels != IGNORE
    kept = valid
    if keep < 1:
        if mining == "pixel":
            kept = valid & (losses.detach() >= _threshold(losses.detach()[valid], keep))
        else:
            kept = valid & _hard_blocks(losses.detach(), valid, keep)
    # a product, not an index: no copy of the losses, and an empty selection gives zero gradients
    return (losses * kept).sum() / kept.sum().clamp(min=1)


def _threshold(losses: Tensor, keep: float) -> Tensor | float:
    """The k-th largest loss, k = floor(keep * count), at least 1."""
    count = losses.numel()
    if count == 0:
        return float("inf")
    return losses.kthvalue(count - max(1, int(keep * count)) + 1).values


def _hard_blocks(losses: Tensor, valid: Tensor, keep: float) -> Tensor:
    grid_losses, grid_valid = losses[:, ::4, ::4], valid[:, ::4, ::4]
    hard = grid_valid & (grid_losses >= _threshold(grid_losses[grid_valid], keep))
    height, width = losses.shape[1:]
    return hard.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width]
