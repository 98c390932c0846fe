"""The untrained refinement with fixed settings as a module, for an exported graph."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmodel.model.untrained_crf import Resolved, balanced_crf
from segmodel.model.upsampling import area_average, enlarge


class RefinementModule(nn.Module):
    """What ``segmodel.refine`` computes with these settings, whichever sizes scores and picture have.

    Forward: logits ``(N, C, h, w)`` and picture ``(N, 3, H, W)``, RGB in 0..255 -> logits ``(N, C, H, W)``.

    A graph cannot choose its way by sizes, as ``refined_with`` does: it computes both, and takes the one.
    """

    def __init__(self, own: Resolved):
        super().__init__()
        self.own = own

    def forward(self, scores: Tensor, image: Tensor) -> Tensor:
        height, width = image.shape[2], image.shape[3]
        stride = self.own.stride
        guide = area_average(image, stride)
        fine = _resized(scores, height, width)
        if stride == 1:
            return balanced_crf(fine, guide, self.own)
        coarse = area_average(fine, stride)
        given = scores.shape[2:]
        on_blocks = torch.stack([torch.scalar_tensor(a) == torch.scalar_tensor(b)
                                 for a, b in zip(given, guide.shape[2:], strict=True)]).all()  # fmt: skip
        start = torch.where(on_blocks, _resized(scores, guide.shape[2], guide.shape[3]), coarse)
        refined = balanced_crf(start, guide, self.own)
        change = refined - torch.where(on_blocks, 0.0, coarse)
        enlarged = enlarge(change, stride).narrow(2, 0, height).narrow(3, 0, width)
        return torch.where(on_blocks, 0.0, fine) + enlarged


def _resized(scores: Tensor, height: int, width: int) -> Tensor:
    """Bilinear; with the antialiasing that only scores finer than the picture need, and the others do not notice."""
    return functional.interpolate(scores, (height, width), mode="bilinear", align_corners=False, antialias=True)
