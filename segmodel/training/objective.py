"""Cross-entropy over the harder half of the pixels (Eq. 17; hard example mining of Sec. 7.1.2), weighted or not."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from segmodel.common import distributed
from segmodel.common.labels import IGNORE


def hard_pixel_loss(
    scores: Tensor,
    labels: Tensor,
    *,
    keep: float = 0.5,
    mining: Literal["pixel", "block"] = "pixel",
    across: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Mean of ``-log p`` of the true class over the kept share of the batch's valid pixels.

    Args:
        scores: ``(N, C, H, W)``, float32 or float64.
        labels: ``(N, H, W)`` int64, 0..C-1 or 255 (ignored).
        keep: share of the valid pixels to keep, those with the larger loss.
        mining: "pixel" decides for each pixel (the paper), and keeps at least one and ties at the threshold; "block" on
            the grid of every 4th row and column, each grid point for its 4 x 4 block, as the authors' code does: ties
            with the first loss that is not kept are dropped, and so is all where all losses are equal; the valid pixels
            of a block whose grid point is ignored are kept.
        across: the batch is that of all processes together: one threshold and one normaliser.
        class_weights: ``(C,)``, above 0: the mean is weighted, a pixel by its true class, and divided by the sum of the
            kept pixels' weights (as in ``torch.nn.CrossEntropyLoss``: only their ratios matter). Which pixels are kept
            depends on the losses without weights: hard is what is predicted badly, and a frequent class keeps its hard
            pixels.

    Raises:
        ValueError: shapes that do not fit, ``keep`` outside (0, 1], or an unknown ``mining``.

    Returns:
        Scalar; 0 (with zero gradients) if no pixel is valid. With ``across`` this process's share of it, times the
        number of processes: the mean of these over the processes is the loss of the whole batch.
    """
    if scores.ndim != 4 or labels.shape != (len(scores), *scores.shape[2:]):
        raise ValueError(f"labels: expected (N, H, W) of scores {tuple(scores.shape)}, got {tuple(labels.shape)}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep: expected a number in (0, 1], got {keep!r}")
    if mining not in ("pixel", "block"):
        raise ValueError(f"mining: expected pixel or block, got {mining!r}")
    if class_weights is not None and class_weights.shape != scores.shape[1:2]:
        raise ValueError(f"class_weights: expected ({scores.shape[1]},), got {tuple(class_weights.shape)}")
    losses = functional.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="none")
    valid = labels != IGNORE
    kept = valid
    if keep < 1:
        if mining == "pixel":
            kept = valid & (losses.detach() >= _threshold(losses.detach(), valid, keep, across))
        else:
            kept = valid & _hard_blocks(losses.detach(), valid, keep, across)
    if class_weights is not None:
        kept = kept * class_weights.to(losses)[labels.where(valid, 0)]
    # a product, not an index: no copy of the losses, and an empty selection gives zero gradients
    loss, weight = (losses * kept).sum(), kept.sum()
    if across:
        loss, weight = distributed.world_size() * loss, distributed.total(weight)
    return loss / (weight + (weight == 0))


def _threshold(losses: Tensor, valid: Tensor, keep: float, across: bool, *, beyond: bool = False) -> Tensor | float:
    """The k-th largest loss of the valid pixels, k = floor(keep * count), at least 1; with ``beyond`` the next one."""
    if across:
        losses, valid = (
            distributed.gathered(losses.contiguous()),
            distributed.gathered(valid.contiguous()),
        )
    losses = losses[valid]
    count = losses.numel()
    if count == 0:
        return float("inf")
    rank = int(keep * count) + 1 if beyond else max(1, int(keep * count))
    return losses.kthvalue(count - rank + 1).values


def _hard_blocks(losses: Tensor, valid: Tensor, keep: float, across: bool) -> Tensor:
    losses, decides = losses[:, ::4, ::4], valid[:, ::4, ::4]
    kept = ~decides | (losses > _threshold(losses, decides, keep, across, beyond=True))
    height, width = valid.shape[1:]
    return kept.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width]
