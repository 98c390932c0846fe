"""The bilateral dense CRF (Krähenbühl and Koltun, NIPS 2011) of pydensecrf with DeepLab's kernels, for comparison."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmodel.common.environment import peer


def installed() -> Any:
    """The module ``pydensecrf.densecrf``, or None."""
    return peer("pydensecrf.densecrf")


def dense_crf_scores(
    scores: Tensor, image: Tensor, *, iterations: int = 10, sxy: float = 80, srgb: float = 13, compat: float = 10
) -> Tensor:
    """Log marginals ``(1, C, H, W)`` of the dense CRF on scores ``(1, C, H, W)`` and their image ``(1, 3, H, W)``."""
    labels, height, width = scores.shape[1:]
    crf = installed().DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(-scores[0].float().log_softmax(0).reshape(labels, -1).cpu().numpy()))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    picture = np.ascontiguousarray(image[0].permute(1, 2, 0).to(torch.uint8).cpu().numpy())
    crf.addPairwiseBilateral(sxy=sxy, srgb=srgb, rgbim=picture, compat=compat)
    marginals = np.asarray(crf.inference(iterations), np.float32).reshape(1, labels, height, width)
    return torch.from_numpy(marginals).clamp(min=torch.finfo(torch.float32).tiny).log()  # finite: it is interpolated
