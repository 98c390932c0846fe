"""The settings of a refinement that follow from the scores: a rule of four lines, and why it is so.

How far may a drawn boundary be wrong? The scores say it themselves: where they are unsure, 1 - max q of the softmax q
is the share of pixels that they expect to have wrong. Its sum over the picture, per length of the boundaries that they
draw, is the width of the doubtful band along a boundary; divided by the picture's side it is the *doubt*, which does
not change with the size of the picture or with the grid that the scores are given on (also not where a model has
enlarged them itself). It is what tells the models apart that the rule was found on (training pictures): half a percent
for scores that are finer and surer than the boundaries need (MediaPipe's person), 2 percent for a street scene with
poles and signs (CamVid), 3 to 5 for animals of which whole parts are taken for others (VOC; scores of stride 4 to 16).

- The window has to reach across the doubtful band to colours that are sure, and no further: what is thin is lost in a
  window that is wide. Its radius grows with the square of the doubt, 7 blocks for CamVid, 12 and more for VOC.
- The weight grows with the doubt, 5 for CamVid, 16 for VOC: scores that know little have little to say against the
  picture, and with more weight than that pavements lose to the roads beside them.
- The *balance* is the share of the window's plain mean that is taken away from its message. A guided filter gives that
  mean plus what colour explains; the mean says "as most of the window", which a thin or small thing never is, and grows
  with the window. Without it (the paper's form) wide windows erase poles and pavements; with all of it taken away large
  things are no longer mended. So it falls from 0.85 at CamVid's doubt to 0.4 where whole regions are to be mended,
  and to nothing for sure scores, where it would draw specks.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

CELLS = 256
"""Cells along a side that the doubt is measured on; scores with more are thinned out."""
LARGEST = 64
"""Radius at most, in blocks: what a tile of a large picture needs around it grows with it."""


def doubt(scores: Tensor) -> float:
    """Width of the doubtful band along the boundaries that scores ``(1, C, h, w)`` draw, as a share of their side."""
    down, across = (-(-side // CELLS) for side in scores.shape[2:])
    beliefs = scores.detach()[:, :, ::down, ::across].float().softmax(1)
    surest, labels = beliefs.max(1)
    side = labels.numel() ** 0.5
    lines = (labels[:, 1:] != labels[:, :-1]).sum() + (labels[:, :, 1:] != labels[:, :, :-1]).sum()
    return float((1 - surest).sum()) / max(float(lines), side) / side


def settings_from(scores: Tensor, size: Sequence[int], stride: int | None = None) -> dict[str, Any]:
    """What ``Refinement`` leaves open, for scores ``(1, C, h, w)`` of a picture of ``size`` (H, W).

    The blocks have 4 pixels a side, or less if the picture had not 64 of them along its side, or a quarter of the
    distance between scores that are further apart than 16 pixels; unless the stride is given. Scores more than 10
    pixels apart take five iterations.
    """
    picture = (size[0] * size[1]) ** 0.5
    apart = max(side / cells for side, cells in zip(size, scores.shape[2:], strict=True))
    if stride is None:
        stride = max(min(4, int(picture / 64)), round(apart / 4), 1)
    side, percent = picture / stride, 100 * doubt(scores)
    return {
        "stride": stride,
        "radius": round(max(3, min(0.02 * percent**2 * side, side / 5, LARGEST))),
        "weight": min(max(7 * percent - 8, 4.0), 16.0),
        "balance": min(max(percent - 0.8, 0.0), max(1.4 - 0.3 * percent, 0.4)),
        "iterations": 3 if apart <= 10 else 5,
    }
