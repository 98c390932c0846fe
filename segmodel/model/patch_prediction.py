"""Structured patch prediction: each cell of features predicts n x n label cells (Sec. 3.2)."""

from torch import nn


class PatchPrediction(nn.Conv2d):
    """The classifier of patches, a 1x1 convolution: features ``(N, D, h, w)`` -> ``(N, n * n * C, h, w)`` (Eq. 3).

    ``kernels.patch_rearrange`` lays the patches out in space.

    ``initialise`` is a step of its own: the draws of the modules beside it come between, as in trainings so far.
    """

    def __init__(self, channels: int, num_classes: int, patch_size: int):
        super().__init__(channels, patch_size * patch_size * num_classes, 1)

    def initialise(self) -> None:
        """Small random weights, no bias."""
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        if not self.weight.is_meta:  # on "meta" that would load half of torch
            nn.init.normal_(self.weight, std=0.01)
